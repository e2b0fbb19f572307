// A greeting in Go, as a custom runtime of Lambda: API Gateway's event in, its response out.
package main

import (
	"encoding/base64"
	"encoding/json"
	"log"
	"net/url"
	"strconv"
)

type request struct {
	Resource string            `json:"resource"`
	Path     map[string]string `json:"pathParameters"`
	Query    map[string]string `json:"queryStringParameters"`
	Body     string            `json:"body"`
	Encoded  bool              `json:"isBase64Encoded"`
}

type response struct {
	Status  int               `json:"statusCode"`
	Headers map[string]string `json:"headers"`
	Body    string            `json:"body"`
}

func main() {
	if err := serve(handle); err != nil {
		log.Fatal(err) // the runtime ends, and Lambda (or hitless) starts another
	}
}

func handle(event []byte) (any, error) {
	var got request
	if err := json.Unmarshal(event, &got); err != nil {
		return nil, err
	}
	switch got.Resource {
	case "/greetings/{name}":
		return greeting(got)
	default:
		return sums(got)
	}
}

func greeting(got request) (any, error) {
	name, err := url.PathUnescape(got.Path["name"]) // API Gateway hands it on as the client encoded it
	if err != nil {
		return reply(400, map[string]any{"error": "the name is not encoded correctly"})
	}
	times := 1
	if text, given := got.Query["times"]; given {
		if times, err = strconv.Atoi(text); err != nil {
			return reply(400, map[string]any{"error": "times must be a whole number"})
		}
	}
	return reply(200, map[string]any{"greeting": "Hello, " + name, "times": times})
}

func sums(got request) (any, error) {
	body := []byte(got.Body)
	if got.Encoded {
		decoded, err := base64.StdEncoding.DecodeString(got.Body)
		if err != nil {
			return nil, err
		}
		body = decoded
	}
	var asked struct {
		Numbers []int `json:"numbers"`
	}
	if err := json.Unmarshal(body, &asked); err != nil {
		return reply(400, map[string]any{"error": "the body must be JSON with a list of numbers"})
	}
	total := 0
	for _, number := range asked.Numbers {
		total += number
	}
	return reply(201, map[string]any{"total": total})
}

func reply(status int, document any) (any, error) {
	text, err := json.Marshal(document)
	return response{status, map[string]string{"Content-Type": "application/json"}, string(text)}, err
}
