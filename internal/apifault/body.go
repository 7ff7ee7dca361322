package apifault

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// apiError is an error in the format of a provider's API. If errors are nested, an apiError
// contains the message of the innermost error, and the other fields of all nested errors.
type apiError struct {
	message string
	names   []string
	status  int

	resetsAt float64  // Unix time
	resetsIn float64  // seconds
	quotas   []string // Google's ids for the exceeded quotas
}

// The method "limits" reports whether the id of an exceeded quota contains the given word.
func (e *apiError) limits(word string) bool {
	return slices.ContainsFunc(e.quotas, func(id string) bool { return strings.Contains(id, word) })
}

// maxDepth limits how deeply errors may be nested. Two levels have been seen in practice; a
// gateway can add more.
const maxDepth = 6

// prefixes matches what can be in front of the provider's response in a message: nothing, or words
// of the agent program. An object after other words is ignored, because it can be a quotation of
// what was sent to the model.
var prefixes = regexp.MustCompile(`^(?:(?:Failed to authenticate\. )?\[?API Error: (?:[45]\d\d )?|unexpected status [45]\d\d [^:{]*: )?$`)

// bodyPrefixes matches what can be in front of the first object in a body: nothing, the start of a
// list, or the lines of an event in a stream.
var bodyPrefixes = regexp.MustCompile(`^(?:\[\s*|(?:[a-z]+:.*\n)*data:\s*)?$`)

// maxObjects is the maximum number of objects that are examined in a text. It bounds the work.
const maxObjects = 8

// split divides text at the first error in the format of a provider's API. An error is an object
// with a message, a name or a status. Its field "error" can hold another error as an object, and
// its fields "error" and "message" can each hold another error encoded as a string. The words in
// front of the error must match the expression "known". Other objects are left out, because they
// say nothing about the failure. If there is no such error, the result "before" is the whole text
// without objects.
func split(text string, known *regexp.Regexp) (before string, e apiError, after string) {
	var words [2]string // in front of the error, and after it
	at := 0
	for range maxObjects {
		begin := strings.IndexByte(text, '{')
		if begin < 0 {
			break
		}
		words[at] += text[:begin]
		var object json.RawMessage
		if json.NewDecoder(strings.NewReader(text[begin:])).Decode(&object) != nil { // the brace is part of prose
			words[at] += "{"
			text = text[begin+1:]
			continue
		}
		text = text[begin+len(object):]
		if at == 0 && known.MatchString(words[0]) && e.object(object, maxDepth) {
			at = 1
		}
	}
	words[at] += text
	return words[0], e, words[1]
}

// The method "object" adds the error in a JSON object to e, and reports whether the object contains
// an error.
func (e *apiError) object(data []byte, depth int) bool {
	var o struct {
		Error    json.RawMessage `json:"error"`
		Message  json.RawMessage `json:"message"`
		Type     json.RawMessage `json:"type"`
		Code     json.RawMessage `json:"code"`
		Status   json.RawMessage `json:"status"` // Google's name for the error
		Details  json.RawMessage `json:"details"`
		ResetsAt json.RawMessage `json:"resets_at"`
		ResetsIn json.RawMessage `json:"resets_in_seconds"`
	}
	if depth == 0 || json.Unmarshal(data, &o) != nil {
		return false
	}
	inner := false // whether there is an inner error; the names of inner errors come first, because they are more specific
	if nested := bytes.TrimSpace(o.Error); len(nested) > 0 && nested[0] == '{' {
		inner = e.object(nested, depth-1)
	}
	for _, text := range []string{as[string](o.Error), as[string](o.Message)} {
		if text = strings.TrimSpace(text); e.whole(text, depth-1) {
			inner = true
		} else if text != "" && !inner {
			e.message = text
		}
	}
	for _, field := range []json.RawMessage{o.Code, o.Type, o.Status} {
		if name := as[string](field); name != "" {
			e.names = append(e.names, name)
		}
		if e.status == 0 {
			e.status = failed(int(min(max(number(field), 0), 1000)))
		}
	}
	if e.resetsAt == 0 {
		e.resetsAt = number(o.ResetsAt)
	}
	e.resetsIn = max(e.resetsIn, number(o.ResetsIn))
	for _, d := range as[[]json.RawMessage](o.Details) {
		e.detail(d)
	}
	return e.message != "" || len(e.names) > 0 || e.status != 0
}

// The method "whole" adds the error to e and returns true if the whole text is an object that
// contains an error. It ignores an object within other text, because the text can quote what was
// sent to the model.
func (e *apiError) whole(text string, depth int) bool {
	return strings.HasPrefix(text, "{") && strings.HasSuffix(text, "}") && e.object([]byte(text), depth)
}

// The method "detail" reads one of the details in an error from Google.
func (e *apiError) detail(raw json.RawMessage) {
	d := as[struct {
		Reason     json.RawMessage `json:"reason"`
		Delay      json.RawMessage `json:"retryDelay"`
		Violations json.RawMessage `json:"violations"`
	}](raw)
	if reason := as[string](d.Reason); reason != "" {
		e.names = append(e.names, reason)
	}
	if delay, err := time.ParseDuration(as[string](d.Delay)); err == nil {
		e.resetsIn = max(e.resetsIn, delay.Seconds())
	}
	for _, v := range as[[]json.RawMessage](d.Violations) {
		quota := as[struct {
			ID json.RawMessage `json:"quotaId"`
		}](v)
		if id := as[string](quota.ID); id != "" {
			e.quotas = append(e.quotas, id)
		}
	}
}

// The function "as" decodes a value. If the value has another type, the result is zero.
func as[T any](raw json.RawMessage) T {
	var value, zero T
	if len(raw) == 0 || json.Unmarshal(raw, &value) != nil {
		return zero
	}
	return value
}

// The function "number" decodes a number, or a string that contains a number. For any other value, the
// result is zero.
func number(raw json.RawMessage) float64 {
	if n := as[float64](raw); n != 0 {
		return n
	}
	n, err := strconv.ParseFloat(as[string](raw), 64)
	if err != nil || n != n {
		return 0
	}
	return n
}

// longest is the maximum time until a reset. A later reset is surely a mistake.
const longest = 366 * 24 * time.Hour

// Ahead returns t if t is after now and at most 366 days away. Otherwise, it returns the zero time,
// because a time in the past is useless and one that is further away is surely a mistake.
func Ahead(t, now time.Time) time.Time {
	if !t.After(now) || t.Sub(now) > longest {
		return time.Time{}
	}
	return t
}

// Unix returns the time for a number of seconds since 1970, or the zero time if the number cannot
// be a present-day time.
func Unix(seconds float64) time.Time {
	if !(seconds > 0 && seconds < 1e11) {
		return time.Time{}
	}
	return time.Unix(int64(seconds), 0)
}

func (e *apiError) reset(at time.Time) time.Time {
	if t := Ahead(Unix(e.resetsAt), at); !t.IsZero() {
		return t
	}
	return after(e.resetsIn, at)
}

// retryAfter returns the time that the headers give: Retry-After, which is a number of seconds or a
// date, or Retry-After-Ms, which takes precedence if it is usable. If Retry-After is a date and there
// is a Date header, the wait is the difference between the two, because the provider's clock can
// differ from this machine's clock.
func retryAfter(headers map[string]string, at time.Time) time.Time {
	get := func(name string) string {
		value := headers[name]
		for _, n := range slices.Sorted(maps.Keys(headers)) { // sorted, because two spellings of a name can have different values, and the order of a map is random
			if value == "" && strings.EqualFold(n, name) {
				value = headers[n]
			}
		}
		return strings.TrimSpace(value)
	}
	if ms, err := strconv.ParseFloat(get("retry-after-ms"), 64); err == nil {
		if t := after(ms/1000, at); !t.IsZero() {
			return t
		}
	}
	value := get("retry-after")
	if seconds, err := strconv.ParseFloat(value, 64); err == nil {
		return after(seconds, at)
	}
	date, err := http.ParseTime(value)
	if err != nil {
		return time.Time{}
	}
	if sent, err := http.ParseTime(get("date")); err == nil {
		return after(date.Sub(sent).Seconds(), at)
	}
	return Ahead(date, at)
}

func after(seconds float64, at time.Time) time.Time {
	if !(seconds > 0 && seconds < longest.Seconds()) || at.IsZero() {
		return time.Time{}
	}
	return at.Add(time.Duration(seconds * float64(time.Second)))
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
