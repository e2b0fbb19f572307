package main

import (
	"slices"
	"time"
)

// participant has working hours on the clocks of its own zone; until at or before begin is on the next day.
type participant struct {
	zone         *time.Location
	begin, until time.Duration
}

// window is a stretch of time from begin (inclusive) to until.
type window struct{ begin, until time.Time }

func readParticipant(raw any) (participant, error) {
	var read participant
	object, is := raw.(map[string]any)
	if !is {
		return read, problem("must be a JSON object")
	}
	given, err := newFields(object, "zone", "from", "until")
	if err != nil {
		return read, err
	}
	if read.zone, err = required(given, "zone", zone); err != nil {
		return read, err
	}
	if read.begin, err = optional(given, "from", clockTime, 9*time.Hour); err != nil {
		return read, err
	}
	read.until, err = optional(given, "until", clockTime, 17*time.Hour)
	return read, err
}

// commonWindows are those, in order and at least so long, in which all are at work on the first participant's day.
func commonWindows(participants []participant, day time.Time, duration time.Duration) []window {
	common := workingWindows(participants[0], day, 0, 0)
	for _, other := range participants[1:] {
		common = intersect(common, workingWindows(other, day, -3, 3)) // local dates lie up to 26 hours apart
	}
	return slices.DeleteFunc(common, func(one window) bool { return one.until.Sub(one.begin) < duration })
}

// workingWindows are the hours of one person on the days around one; days without a break between them are one window.
func workingWindows(who participant, day time.Time, first, last int) []window {
	var windows []window
	for around := first; around <= last; around++ {
		begins, ends := day.AddDate(0, 0, around), day.AddDate(0, 0, around)
		if who.begin >= who.until {
			ends = ends.AddDate(0, 0, 1)
		}
		begin, until := readEdge(who.zone, begins.Add(who.begin), true), readEdge(who.zone, ends.Add(who.until), false)
		if count := len(windows); count > 0 && !begin.After(windows[count-1].until) {
			if until.After(windows[count-1].until) {
				windows[count-1].until = until
			}
		} else if begin.Before(until) {
			windows = append(windows, window{begin, until})
		}
	}
	return windows
}

func intersect(left, right []window) []window {
	var overlaps []window
	for _, a := range left {
		for _, b := range right {
			one := a
			if b.begin.After(one.begin) {
				one.begin = b.begin
			}
			if b.until.Before(one.until) {
				one.until = b.until
			}
			if one.begin.Before(one.until) {
				overlaps = append(overlaps, one)
			}
		}
	}
	slices.SortFunc(overlaps, func(a, b window) int { return a.begin.Compare(b.begin) })
	return overlaps
}
