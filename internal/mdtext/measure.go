package mdtext

import (
	"fmt"
	"strconv"
	"time"
)

// Span returns a duration in whole seconds: 45s, 2m 15s, 1h 2m 3s. A duration of a day
// or more is given in whole hours: 21d 0h.
func Span(d time.Duration) string {
	s := int64(max(d, 0) / time.Second)
	switch {
	case s >= 24*3600:
		return fmt.Sprintf("%dd %dh", s/(24*3600), s/3600%24)
	case s >= 3600:
		return fmt.Sprintf("%dh %dm %ds", s/3600, s/60%60, s%60)
	case s >= 60:
		return fmt.Sprintf("%dm %ds", s/60, s%60)
	default:
		return fewSeconds[s]
	}
}

// fewSeconds holds the results for durations below one minute, which are the most frequent.
var fewSeconds = func() (names [60]string) {
	for i := range names {
		names[i] = strconv.Itoa(i) + "s"
	}
	return names
}()

// Setting returns a duration in Go's notation, which configurations also use. For a duration
// of a day or more, it returns the result of [Span].
func Setting(d time.Duration) string {
	if d >= 24*time.Hour {
		return Span(d)
	}
	return d.String()
}

// Count returns a number with its noun: 1 task, 3 tasks.
func Count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}
