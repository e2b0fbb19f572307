package main

import (
	"fmt"
	"math"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	yearPattern = `(1[89]|2[0-4])\d\d`
	leapPattern = `((1[89]|2[0-4])(0[48]|[2468][048]|[13579][26])|2000|2400)`
	dayOfMonth  = `((0[13578]|1[02])-(0[1-9]|[12]\d|3[01])|(0[469]|11)-(0[1-9]|[12]\d|30)|02-(0[1-9]|1\d|2[0-8]))`
	hourPattern = `([01]\d|2[0-3]):[0-5]\d`
	dayPattern  = `(` + yearPattern + `-` + dayOfMonth + `|` + leapPattern + `-02-29)`
)

// As in openapi.json: a client can generate and check values by these patterns alone.
var (
	dayText    = regexp.MustCompile(`\A` + dayPattern + `\z`)
	momentText = regexp.MustCompile(`\A` + dayPattern + `T` + hourPattern + `(:[0-5]\d(\.\d{1,6})?)?(Z|[+-]` + hourPattern + `)?\z`)
	clockText  = regexp.MustCompile(`\A` + hourPattern + `\z`)
	offsetText = regexp.MustCompile(`(Z|[+-]\d\d:\d\d)\z`)
	lostPlus   = regexp.MustCompile(`(T\S+) (\d\d:?\d\d)\z`) // clients forget to encode `+` in a query
)

// invalidField is a field that is missing, of the wrong type, or outside what is allowed.
type invalidField struct{ problem, field string }

func invalid(problem string) *refusal { return (&invalidField{problem, ""}).refusal() }

func (i *invalidField) Error() string { return i.problem }

func (i *invalidField) refusal() *refusal {
	message, details := i.problem, map[string]any{"field": nil, "problem": i.problem}
	if i.field != "" {
		message, details["field"] = i.field+": "+i.problem, i.field
	}
	return &refusal{http.StatusBadRequest, "invalid_request", message, details}
}

func problem(format string, values ...any) error {
	return &invalidField{fmt.Sprintf(format, values...), ""}
}

// inside says the same of the field's place in an object or list.
func inside(err error, name string) error {
	if found, is := err.(*invalidField); is {
		separator := "."
		if found.field == "" || strings.HasPrefix(found.field, "[") {
			separator = ""
		}
		return &invalidField{found.problem, name + separator + found.field}
	}
	return err
}

// fields are the named values of one object.
type fields map[string]any

func newFields(values map[string]any, known ...string) (fields, error) {
	for name := range values {
		if !slices.Contains(known, name) {
			slices.Sort(known)
			return nil, inside(problem("is not a field; known are %s", strings.Join(known, ", ")), name)
		}
	}
	return values, nil
}

func required[T any](f fields, name string, parse func(any) (T, error)) (T, error) {
	raw, given := f[name]
	if !given {
		var none T
		return none, inside(problem("is required"), name)
	}
	parsed, err := parse(raw)
	return parsed, inside(err, name)
}

func optional[T any](f fields, name string, parse func(any) (T, error), missing T) (T, error) {
	if _, given := f[name]; !given {
		return missing, nil
	}
	return required(f, name, parse)
}

func text(raw any) (string, error) {
	if found, is := raw.(string); is {
		return found, nil
	}
	return "", problem("must be a string")
}

func choice(allowed ...string) func(any) (string, error) {
	return func(raw any) (string, error) {
		if found, is := raw.(string); is && slices.Contains(allowed, found) {
			return found, nil
		}
		return "", problem("must be one of %s", strings.Join(allowed, ", "))
	}
}

func integer(least, most int) func(any) (int, error) {
	return func(raw any) (int, error) {
		found, is := raw.(float64)
		if !is || found != math.Trunc(found) || found < float64(least) || found > float64(most) {
			return 0, problem("must be a whole number from %d to %d", least, most)
		}
		return int(found), nil
	}
}

// digits is a whole number in a query, where everything is text.
func digits(least, most int) func(any) (int, error) {
	return func(raw any) (int, error) {
		found, is := raw.(string)
		number, err := strconv.ParseUint(found, 10, 30)
		if !is || err != nil {
			return integer(least, most)(nil)
		}
		return integer(least, most)(float64(number))
	}
}

func many[T any](parse func(any) (T, error), most int) func(any) ([]T, error) {
	return func(raw any) ([]T, error) {
		items, is := raw.([]any)
		if !is || len(items) < 1 || len(items) > most {
			return nil, problem("must be a list of 1 to %d items", most)
		}
		parsed := make([]T, len(items))
		for index, item := range items {
			var err error
			if parsed[index], err = parse(item); err != nil {
				return nil, inside(err, fmt.Sprintf("[%d]", index))
			}
		}
		return parsed, nil
	}
}

func zone(raw any) (*time.Location, error) {
	name, err := text(raw)
	if err != nil {
		return nil, err
	}
	if !isKnown(name) {
		return nil, problem("is not an IANA time zone; GET /zones?q=TEXT finds one")
	}
	return load(name)
}

// moment is a time on somebody's clock, or with an offset an instant.
type moment struct {
	wall      time.Time
	hasOffset bool
}

func dateTime(raw any) (moment, error) {
	given, err := text(raw)
	if err != nil {
		return moment{}, err
	}
	given = lostPlus.ReplaceAllString(given, "$1+$2")
	if !momentText.MatchString(given) {
		return moment{}, problem("must be an ISO 8601 time from 1800 to 2499, such as 2026-11-24T12:00:00Z")
	}
	hasOffset := offsetText.MatchString(given[len("2006-01-02"):])
	if !hasOffset {
		given += "Z"
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04Z07:00"} {
		if parsed, err := time.Parse(layout, given); err == nil {
			return moment{parsed.UTC(), hasOffset}, nil
		}
	}
	return moment{}, problem("must be an ISO 8601 time")
}

func instant(raw any) (time.Time, error) {
	parsed, err := dateTime(raw)
	if err == nil && !parsed.hasOffset {
		err = problem("needs an offset, such as the Z of 2026-11-24T12:00:00Z")
	}
	return parsed.wall, err
}

func day(raw any) (time.Time, error) {
	given, err := text(raw)
	if err == nil && !dayText.MatchString(given) {
		err = problem("must be a date from 1800 to 2499, such as 2026-11-24")
	}
	if err != nil {
		return time.Time{}, err
	}
	return time.Parse("2006-01-02", given)
}

// clockTime is a time of day, as the time since midnight.
func clockTime(raw any) (time.Duration, error) {
	given, err := text(raw)
	if err == nil && !clockText.MatchString(given) {
		err = problem("must be a time from 00:00 to 23:59, such as 09:00")
	}
	if err != nil {
		return 0, err
	}
	hours, _ := strconv.Atoi(given[:2])
	minutes, _ := strconv.Atoi(given[3:])
	return time.Duration(hours)*time.Hour + time.Duration(minutes)*time.Minute, nil
}
