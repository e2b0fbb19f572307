package main

import (
	"fmt"
	"net/http"
	"time"
)

// state is how the clocks of a zone stand at an instant.
type state struct {
	Offset       string `json:"offset"`
	Abbreviation string `json:"abbreviation"`
	IsDST        bool   `json:"dst"`
}

func stateAt(zone *time.Location, at time.Time) state {
	local := at.In(zone)
	name, offset := local.Zone()
	_, before := local.AddDate(0, -6, 0).Zone()
	_, after := local.AddDate(0, 6, 0).Zone()
	ahead := offset > min(before, after) // Dublin's winter counts as standard time, as people there see it
	return state{offsetOf(offset), name, local.IsDST() && ahead}
}

// offsetOf writes +05:30, and +00:53:28 for the local mean time of old.
func offsetOf(seconds int) string {
	sign := '+'
	if seconds < 0 {
		sign, seconds = '-', -seconds
	}
	text := fmt.Sprintf("%c%02d:%02d", sign, seconds/3600, seconds/60%60)
	if seconds%60 != 0 {
		text += fmt.Sprintf(":%02d", seconds%60)
	}
	return text
}

func wallText(at time.Time) string {
	if at.Nanosecond() != 0 {
		return at.Format("2006-01-02T15:04:05.000000")
	}
	return at.Format("2006-01-02T15:04:05")
}

func utcText(at time.Time) string { return wallText(at.UTC()) + "Z" }

func localText(zone *time.Location, at time.Time) string {
	local := at.In(zone)
	_, offset := local.Zone()
	return wallText(local) + offsetOf(offset)
}

type localTime struct {
	Zone  string `json:"zone"`
	Local string `json:"local"`
	state
}

func localOf(zone *time.Location, at time.Time) localTime {
	return localTime{zone.String(), localText(zone, at), stateAt(zone, at)}
}

// readings are the instants at which the zone's clocks show a wall time (given as if it were UTC), in order: one, or two
// for a time that comes twice. For a time that the clocks skip there is none, and gapEnd is when they go on.
func readings(zone *time.Location, wall time.Time) (found []time.Time, gapEnd time.Time) {
	offset := func(at time.Time) time.Duration {
		_, seconds := at.In(zone).Zone()
		return time.Duration(seconds) * time.Second
	}
	before, after := offset(wall.Add(-24*time.Hour)), offset(wall.Add(24*time.Hour))
	for _, each := range []time.Duration{max(before, after), min(before, after)} {
		at := wall.Add(-each)
		if offset(at) == each && (len(found) == 0 || !found[0].Equal(at)) {
			found = append(found, at)
		}
	}
	if len(found) == 0 {
		gapEnd, _ = wall.Add(-before).In(zone).ZoneBounds()
	}
	return found, gapEnd
}

func readLocal(zone *time.Location, wall time.Time, later bool) (at time.Time, isAmbiguous bool, err error) {
	found, gapEnd := readings(zone, wall)
	if len(found) == 0 {
		message := fmt.Sprintf("%s does not exist in %s: the clocks go forward then", wallText(wall), zone)
		details := map[string]any{"zone": zone.String(), "next_local": localText(zone, gapEnd)}
		return at, false, &refusal{http.StatusUnprocessableEntity, "nonexistent_time", message, details}
	}
	if later {
		return found[len(found)-1], len(found) > 1, nil
	}
	return found[0], len(found) > 1, nil
}

// readEdge is for the edge of a stretch of time: a local time that is skipped counts as the end of the gap.
func readEdge(zone *time.Location, wall time.Time, later bool) time.Time {
	found, gapEnd := readings(zone, wall)
	switch {
	case len(found) == 0:
		return gapEnd
	case later:
		return found[len(found)-1]
	default:
		return found[0]
	}
}

type transition struct {
	At           string `json:"at"`
	Before       state  `json:"before"`
	After        state  `json:"after"`
	ShiftSeconds int    `json:"shift_seconds"`
}

func transitionAt(zone *time.Location, at time.Time) *transition {
	before, after := stateAt(zone, at.Add(-time.Second)), stateAt(zone, at)
	if before == after {
		return nil
	}
	_, from := at.Add(-time.Second).In(zone).Zone()
	_, to := at.In(zone).Zone()
	return &transition{utcText(at), before, after, to - from}
}

// transitions are the ones before (or at) an instant and after it; nil if there is none.
func transitions(zone *time.Location, at time.Time) (previous, next *transition) {
	for start, _ := at.In(zone).ZoneBounds(); previous == nil && !start.IsZero(); start, _ = start.Add(-time.Second).ZoneBounds() {
		previous = transitionAt(zone, start)
	}
	for _, end := at.In(zone).ZoneBounds(); next == nil && !end.IsZero(); _, end = end.ZoneBounds() {
		next = transitionAt(zone, end)
	}
	return previous, next
}
