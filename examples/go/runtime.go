package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
)

// serve asks Lambda's Runtime API for one event after another. It returns only with an error of the API itself.
//
// With github.com/aws/aws-lambda-go this file is not needed: main calls lambda.Start with a handler.
func serve(handle func([]byte) (any, error)) error {
	invocation := "http://" + os.Getenv("AWS_LAMBDA_RUNTIME_API") + "/2018-06-01/runtime/invocation/"
	for {
		next, err := http.Get(invocation + "next")
		if err != nil {
			return err
		}
		event, err := io.ReadAll(next.Body)
		next.Body.Close()
		if err != nil {
			return err
		}
		id := next.Header.Get("Lambda-Runtime-Aws-Request-Id")
		os.Setenv("_X_AMZN_TRACE_ID", next.Header.Get("Lambda-Runtime-Trace-Id"))
		kind, result := "response", any(nil)
		if result, err = handle(event); err != nil {
			kind, result = "error", map[string]string{"errorMessage": err.Error(), "errorType": fmt.Sprintf("%T", err)}
		}
		body, err := json.Marshal(result)
		if err != nil {
			return err
		}
		posted, err := http.Post(invocation+id+"/"+kind, "application/json", bytes.NewReader(body))
		if err != nil {
			return err
		}
		io.Copy(io.Discard, posted.Body)
		posted.Body.Close()
	}
}
