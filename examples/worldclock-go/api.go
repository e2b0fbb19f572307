package main

import (
	_ "embed"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
)

//go:embed openapi.json
var openapi []byte

// refusal is a response other than success. A client gets {"error": {"code", "message", "details"}}.
type refusal struct {
	status        int
	code, message string
	details       map[string]any
}

type action func(*http.Request) (any, error)

func (r *refusal) Error() string { return r.message }

// routes has no ServeMux, because that redirects a zone's name with two slashes.
func routes() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		found := route(r.Method, strings.TrimRight(r.URL.Path, "/"))
		document, err := found(r)
		switch err := err.(type) {
		case nil:
			reply(w, http.StatusOK, document)
		case *refusal:
			reply(w, err.status, map[string]any{"error": map[string]any{
				"code": err.code, "message": err.message, "details": err.details,
			}})
		default:
			panic(err) // a defect: the function fails, and its alarms count it
		}
	})
}

func route(method, path string) action {
	switch {
	case method == "GET" && path == "/zones":
		return listZones
	case method == "GET" && strings.HasPrefix(path, "/zones/"):
		return showZone
	case method == "GET" && path == "/convert":
		return convertQuery
	case method == "POST" && path == "/convert":
		return convertBody
	case method == "POST" && path == "/meetings":
		return findHours
	case method == "GET" && path == "/health":
		return func(*http.Request) (any, error) { return map[string]any{"status": "ok"}, nil }
	case method == "GET" && path == "/version":
		return version
	case method == "GET" && path == "/openapi.json":
		return func(*http.Request) (any, error) { return json.RawMessage(openapi), nil }
	default:
		return func(r *http.Request) (any, error) {
			message := "there is no " + r.Method + " " + r.URL.Path
			return nil, &refusal{http.StatusNotFound, "unknown_route", message, map[string]any{}}
		}
	}
}

func version(*http.Request) (any, error) {
	document := map[string]any{"service": os.Getenv("SERVICE"), "stage": nil, "release": nil, "commit": nil, "tzdata": runtime.Version()}
	if release, err := strconv.Atoi(os.Getenv("AWS_LAMBDA_FUNCTION_VERSION")); err == nil {
		document["release"] = release // nil if the function is unpublished ($LATEST)
	}
	for name, variable := range map[string]string{"stage": "STAGE", "commit": "HITLESS_COMMIT"} {
		if text := os.Getenv(variable); text != "" {
			document[name] = text
		}
	}
	return document, nil
}

func reply(w http.ResponseWriter, status int, document any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(document)
}

// query has the last value of each field, and all of those in lists.
func query(r *http.Request, lists string, known ...string) (fields, error) {
	values := map[string]any{}
	for name, given := range r.URL.Query() {
		values[name] = given[len(given)-1]
		if name == lists {
			all := make([]any, len(given))
			for index, text := range given {
				all[index] = text
			}
			values[name] = all
		}
	}
	return newFields(values, known...)
}

func body(r *http.Request, known ...string) (fields, error) {
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	var document any
	if json.Unmarshal(text, &document) != nil {
		return nil, invalid("the body must be JSON")
	}
	values, isObject := document.(map[string]any)
	if !isObject {
		return nil, invalid("the body must be a JSON object")
	}
	return newFields(values, known...)
}
