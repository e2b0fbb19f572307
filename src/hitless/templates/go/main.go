// The program is a JSON REST API: an ordinary http.Handler that runs on Lambda, behind hitless, and by itself.
package main

import (
	"cmp"
	"log"
	"net/http"
	"os"
)

func main() {
	if os.Getenv("AWS_LAMBDA_RUNTIME_API") != "" {
		log.Fatal(serve(routes())) // hitless or Lambda starts another
	}
	address := cmp.Or(os.Getenv("ADDRESS"), "127.0.0.1:8000")
	log.Printf("http://%s", address)
	log.Fatal(http.ListenAndServe(address, routes()))
}
