package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

var greetings = map[string]string{"de": "Hallo", "en": "Hello", "es": "Hola", "fr": "Bonjour"}

// routes are those of serverless.yml; API Gateway and hitless let no other request through.
func routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /hello/{name}", hello)
	mux.HandleFunc("POST /greetings", createGreeting)
	mux.HandleFunc("GET /health", health)
	mux.HandleFunc("GET /version", version)
	return mux
}

func hello(w http.ResponseWriter, r *http.Request) {
	reply(w, http.StatusOK, map[string]any{"greeting": greet(r.PathValue("name"), "en")})
}

func createGreeting(w http.ResponseWriter, r *http.Request) {
	asked := struct {
		Name     string `json:"name"`
		Language string `json:"language"`
	}{"world", "en"}
	if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
		refuse(w, http.StatusBadRequest, "invalid_request", "the body must be a JSON object of texts", "")
		return
	}
	if length := utf8.RuneCountInString(asked.Name); length < 1 || length > 100 {
		refuse(w, http.StatusBadRequest, "invalid_request", "name: must be a string of 1 to 100 characters", "name")
		return
	}
	if _, known := greetings[asked.Language]; !known {
		languages := strings.Join(slices.Sorted(maps.Keys(greetings)), ", ")
		refuse(w, http.StatusBadRequest, "invalid_request", "language: must be one of "+languages, "language")
		return
	}
	reply(w, http.StatusOK, map[string]any{"greeting": greet(asked.Name, asked.Language), "language": asked.Language})
}

func health(w http.ResponseWriter, _ *http.Request) {
	reply(w, http.StatusOK, map[string]any{"status": "ok"})
}

func version(w http.ResponseWriter, _ *http.Request) {
	document := map[string]any{"service": os.Getenv("SERVICE"), "stage": os.Getenv("STAGE"), "release": nil, "commit": nil}
	if release, err := strconv.Atoi(os.Getenv("AWS_LAMBDA_FUNCTION_VERSION")); err == nil {
		document["release"] = release // nil if the function is unpublished ($LATEST)
	}
	if commit := os.Getenv("HITLESS_COMMIT"); commit != "" {
		document["commit"] = commit
	}
	reply(w, http.StatusOK, document)
}

func greet(name, language string) string {
	return fmt.Sprintf("%s, %s!", greetings[language], name)
}

func reply(w http.ResponseWriter, status int, document any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(document)
}

// refuse sends an error in the one shape that clients get: {"error": {"code", "message", "details"}}.
func refuse(w http.ResponseWriter, status int, code, message, field string) {
	details := map[string]any{}
	if field != "" {
		details["field"] = field
	}
	reply(w, status, map[string]any{"error": map[string]any{"code": code, "message": message, "details": details}})
}
