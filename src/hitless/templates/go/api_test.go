package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func ask(method, target, body string) (int, string) {
	response := httptest.NewRecorder()
	routes().ServeHTTP(response, httptest.NewRequest(method, target, strings.NewReader(body)))
	return response.Code, strings.TrimSpace(response.Body.String())
}

func TestRoutes(t *testing.T) {
	for _, one := range []struct {
		method, target, body string
		status               int
		wanted               string
	}{
		{"GET", "/hello/world", "", 200, `{"greeting":"Hello, world!"}`},
		{"GET", "/hello/Zo%C3%AB%2F", "", 200, `{"greeting":"Hello, Zoë/!"}`},
		{"POST", "/greetings", `{"name": "world", "language": "fr"}`, 200, `{"greeting":"Bonjour, world!","language":"fr"}`},
		{"POST", "/greetings", `{}`, 200, `{"greeting":"Hello, world!","language":"en"}`},
		{"POST", "/greetings", `[]`, 400, `must be a JSON object`},
		{"POST", "/greetings", `{"name": ""}`, 400, `"details":{"field":"name"}`},
		{"POST", "/greetings", `{"language": "xx"}`, 400, `must be one of de, en, es, fr`},
		{"GET", "/health", "", 200, `{"status":"ok"}`},
		{"GET", "/version", "", 200, `"release":null`},
	} {
		status, body := ask(one.method, one.target, one.body)
		if status != one.status || !strings.Contains(body, one.wanted) {
			t.Errorf("%s %s: %d %s, wanted %d %s", one.method, one.target, status, body, one.status, one.wanted)
		}
	}
}

func TestAnEventBecomesARequest(t *testing.T) {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reply(w, 201, []any{r.URL.Path, r.URL.Query()["q"], r.Host, r.ContentLength})
	})
	got, err := respond(handler, []byte(`{"httpMethod": "POST", "path": "/a%20b", "body": "eA==", "isBase64Encoded": true,
		"multiValueQueryStringParameters": {"q": ["1", "ä"]}, "multiValueHeaders": {"Host": ["example.org"]}}`))
	text, _ := json.Marshal(got)
	wanted := `{"statusCode":201,"multiValueHeaders":{"Content-Type":["application/json"]},` +
		`"body":"[\"/a b\",[\"1\",\"ä\"],\"example.org\",1]\n"}`
	if err != nil || string(text) != wanted {
		t.Errorf("%v %s", err, text)
	}
}

func TestAPanicIsAnErrorOfTheFunction(t *testing.T) {
	handler := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("as asked") })
	if _, err := respond(handler, []byte(`{"httpMethod": "GET", "path": "/"}`)); err == nil || err.Error() != "panic: as asked" {
		t.Error(err)
	}
}
