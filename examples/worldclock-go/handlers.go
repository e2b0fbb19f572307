package main

import (
	"net/http"
	"net/url"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

func listZones(r *http.Request) (any, error) {
	asked, err := query(r, "", "q", "offset", "limit")
	if err != nil {
		return nil, refused(err)
	}
	wanted, _ := optional(asked, "q", text, "")
	offset, err := optional(asked, "offset", digits(0, 10_000), 0)
	if err != nil {
		return nil, refused(err)
	}
	limit, err := optional(asked, "limit", digits(1, 100), 50)
	if err != nil {
		return nil, refused(err)
	}
	found := search(wanted)
	end := offset + limit
	page := []map[string]any{}
	for _, name := range found[min(offset, len(found)):min(end, len(found))] {
		page = append(page, map[string]any{"zone": name, "country": countries[name]})
	}
	document := map[string]any{
		"zones": page, "total": len(found), "offset": offset, "limit": limit, "next": nil, "tzdata": runtime.Version(),
	}
	if end < len(found) {
		following := url.Values{"offset": {strconv.Itoa(end)}, "limit": {strconv.Itoa(limit)}}
		if wanted != "" {
			following.Set("q", wanted)
		}
		document["next"] = "/zones?" + following.Encode()
	}
	return document, nil
}

func showZone(r *http.Request) (any, error) {
	name := strings.TrimPrefix(strings.TrimRight(r.URL.Path, "/"), "/zones/")
	asked, err := query(r, "", "at")
	if err != nil {
		return nil, refused(err)
	}
	at, err := optional(asked, "at", instant, time.Now().UTC().Truncate(time.Second))
	if err != nil {
		return nil, refused(err)
	}
	if !isKnown(name) {
		message := "there is no time zone " + name + "; GET /zones?q=TEXT finds one"
		return nil, &refusal{http.StatusNotFound, "unknown_zone", message, map[string]any{"zone": name}}
	}
	zone, err := load(name)
	if err != nil {
		return nil, err
	}
	previous, next := transitions(zone, at)
	return struct {
		At string `json:"at"`
		localTime
		Country  *country    `json:"country"`
		Previous *transition `json:"previous_transition"`
		Next     *transition `json:"next_transition"`
		TZData   string      `json:"tzdata"`
	}{utcText(at), localOf(zone, at), countries[name], previous, next, runtime.Version()}, nil
}

var conversion = []string{"instant", "from", "to", "when_ambiguous"}

func convertQuery(r *http.Request) (any, error) {
	asked, err := query(r, "to", slices.Clone(conversion)...)
	if err != nil {
		return nil, refused(err)
	}
	return convert(asked)
}

func convertBody(r *http.Request) (any, error) {
	asked, err := body(r, slices.Clone(conversion)...)
	if err != nil {
		return nil, refused(err)
	}
	return convert(asked)
}

func convert(asked fields) (any, error) {
	given, err := required(asked, "instant", dateTime)
	if err != nil {
		return nil, refused(err)
	}
	source, err := optional(asked, "from", zone, nil)
	if err != nil {
		return nil, refused(err)
	}
	targets, err := required(asked, "to", many(zone, 20))
	if err != nil {
		return nil, refused(err)
	}
	which, err := optional(asked, "when_ambiguous", choice("earlier", "later"), "earlier")
	if err != nil {
		return nil, refused(err)
	}
	at, isAmbiguous := given.wall, false
	if !given.hasOffset && source == nil {
		message := "instant: has no offset: add one (Z is UTC), or name the zone in `from`"
		details := map[string]any{"field": "instant"}
		return nil, &refusal{http.StatusUnprocessableEntity, "missing_offset", message, details}
	}
	if !given.hasOffset {
		if at, isAmbiguous, err = readLocal(source, given.wall, which == "later"); err != nil {
			return nil, err
		}
	}
	document := map[string]any{"instant": utcText(at), "ambiguous": isAmbiguous, "from": nil}
	if source != nil {
		document["from"] = localOf(source, at)
	}
	shown := make([]localTime, len(targets))
	for index, target := range targets {
		shown[index] = localOf(target, at)
	}
	document["to"] = shown
	return document, nil
}

func findHours(r *http.Request) (any, error) {
	asked, err := body(r, "date", "duration_minutes", "participants")
	if err != nil {
		return nil, refused(err)
	}
	date, err := required(asked, "date", day)
	if err != nil {
		return nil, refused(err)
	}
	minutes, err := required(asked, "duration_minutes", integer(1, 24*60))
	if err != nil {
		return nil, refused(err)
	}
	participants, err := required(asked, "participants", many(readParticipant, 20))
	if err != nil {
		return nil, refused(err)
	}
	duration := time.Duration(minutes) * time.Minute
	windows := []map[string]any{}
	for _, one := range commonWindows(participants, date, duration) {
		local := []map[string]any{}
		for _, each := range participants {
			local = append(local, map[string]any{
				"zone": each.zone.String(), "from": localText(each.zone, one.begin), "until": localText(each.zone, one.until),
			})
		}
		windows = append(windows, map[string]any{
			"from": utcText(one.begin), "until": utcText(one.until), "latest_start": utcText(one.until.Add(-duration)),
			"minutes": int(one.until.Sub(one.begin) / time.Minute), "local": local,
		})
	}
	return map[string]any{"date": date.Format("2006-01-02"), "duration_minutes": minutes, "windows": windows}, nil
}

// refused turns a wrong field into a response.
func refused(err error) error {
	if found, is := err.(*invalidField); is {
		return found.refusal()
	}
	return err
}
