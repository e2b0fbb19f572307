package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"runtime/debug"
)

// event is what API Gateway hands to a function of an `http` event (payload format 1.0).
type event struct {
	Method  string              `json:"httpMethod"`
	Path    string              `json:"path"`
	Query   map[string][]string `json:"multiValueQueryStringParameters"`
	Headers map[string][]string `json:"multiValueHeaders"`
	Body    string              `json:"body"`
	Encoded bool                `json:"isBase64Encoded"`
}

// result is the response in that format.
type result struct {
	Status  int         `json:"statusCode"`
	Headers http.Header `json:"multiValueHeaders"`
	Body    string      `json:"body"`
}

type failure struct {
	Message string `json:"errorMessage"`
	Type    string `json:"errorType"`
}

// serve asks Lambda's Runtime API for one event after another, and lets the handler respond to it as to a request.
// It returns only with an error of the API itself.
//
// With github.com/aws/aws-lambda-go and an adapter from events to requests this file is not needed (see README.md).
func serve(handler http.Handler) error {
	invocation := "http://" + os.Getenv("AWS_LAMBDA_RUNTIME_API") + "/2018-06-01/runtime/invocation/"
	client := &http.Client{Transport: &http.Transport{}} // no proxy, no time limit: the next event may take hours
	for {
		next, err := client.Get(invocation + "next")
		if err != nil {
			return err
		}
		body, err := io.ReadAll(next.Body)
		next.Body.Close()
		if err != nil {
			return err
		}
		os.Setenv("_X_AMZN_TRACE_ID", next.Header.Get("Lambda-Runtime-Trace-Id"))
		kind, document := "response", any(nil)
		if document, err = respond(handler, body); err != nil {
			kind, document = "error", failure{err.Error(), fmt.Sprintf("%T", err)}
		}
		text, err := json.Marshal(document)
		if err != nil {
			return err
		}
		id := next.Header.Get("Lambda-Runtime-Aws-Request-Id")
		posted, err := client.Post(invocation+id+"/"+kind, "application/json", bytes.NewReader(text))
		if err != nil {
			return err
		}
		io.Copy(io.Discard, posted.Body)
		posted.Body.Close()
	}
}

// respond turns an event into a request, and the handler's response into a result. A panic becomes an error, which
// hitless and Lambda log and count; the client gets 502.
func respond(handler http.Handler, body []byte) (_ any, err error) {
	var got event
	if err := json.Unmarshal(body, &got); err != nil {
		return nil, err
	}
	request, err := got.request()
	if err != nil {
		return result{http.StatusBadRequest, http.Header{}, err.Error()}, nil // as net/http does
	}
	defer func() {
		if reason := recover(); reason != nil {
			log.Printf("panic: %v\n%s", reason, debug.Stack())
			err = fmt.Errorf("panic: %v", reason)
		}
	}()
	response := &recorder{header: http.Header{}}
	handler.ServeHTTP(response, request)
	if response.status == 0 {
		response.status = http.StatusOK
	}
	return result{response.status, response.header, response.body.String()}, nil
}

func (got event) request() (*http.Request, error) {
	target := got.Path // as the client encoded it
	if len(got.Query) > 0 {
		target += "?" + url.Values(got.Query).Encode()
	}
	parsed, err := url.ParseRequestURI(target)
	if err != nil {
		return nil, err
	}
	body := []byte(got.Body)
	if got.Encoded {
		decoded, err := base64.StdEncoding.DecodeString(got.Body)
		if err != nil {
			return nil, err
		}
		body = decoded
	}
	request, err := http.NewRequest(got.Method, "/", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.URL = parsed
	for name, values := range got.Headers {
		for _, value := range values {
			request.Header.Add(name, value)
		}
	}
	request.Host = request.Header.Get("Host")
	return request, nil
}

// recorder keeps a response until it is complete.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header { return r.header }

func (r *recorder) Write(data []byte) (int, error) { return r.body.Write(data) }

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
}
