package main

import (
	_ "embed"
	"strings"
	"sync"
	"time"
	_ "time/tzdata" // the rules of the Go release, for a machine without its own
)

// zones.tsv has the names of the zones, as openapi.json lists them, with the country of each that lies in one.
//
//go:embed zones.tsv
var table string

type country struct {
	Code string `json:"code"`
	Name string `json:"name"`
}

var (
	names     []string
	countries = map[string]*country{}
	known     = map[string]bool{}
	loaded    sync.Map
)

func init() {
	for _, line := range strings.Split(strings.TrimSpace(table), "\n") {
		parts := strings.Split(line, "\t")
		names = append(names, parts[0])
		known[parts[0]] = true
		if len(parts) == 3 {
			countries[parts[0]] = &country{parts[1], parts[2]}
		}
	}
}

func isKnown(name string) bool { return known[name] }

func load(name string) (*time.Location, error) {
	if found, is := loaded.Load(name); is {
		return found.(*time.Location), nil
	}
	found, err := time.LoadLocation(name)
	if err == nil {
		loaded.Store(name, found)
	}
	return found, err
}

// search finds the zones whose name or country has the text in it, whatever the case; all of them if it is empty.
func search(text string) []string {
	wanted := strings.ToLower(strings.ReplaceAll(text, "_", " "))
	var found []string
	for _, name := range names {
		where := strings.ReplaceAll(name, "_", " ") + " "
		if country := countries[name]; country != nil {
			where += country.Name
		}
		if strings.Contains(strings.ToLower(where), wanted) {
			found = append(found, name)
		}
	}
	return found
}
