package bgagent

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Text from outside, made fit for records and reasons.

// clean makes text from outside valid UTF-8.
func clean(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// invisible reports whether nothing of s would be seen: it is spaces, control and
// format characters alone.
func invisible(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return !unicode.IsSpace(r) && !unicode.IsControl(r) && !unicode.Is(unicode.Cf, r) }) < 0
}

// title returns the description, or the beginning of the prompt, as one line.
func title(description, prompt string) string {
	s := clean(description)
	if invisible(s) {
		s = strings.TrimSpace(prompt)
		if i := strings.IndexAny(s, "\r\n"); i >= 0 {
			s = s[:i]
		}
	}
	if s = inOneLine(s, titleMax); len(prompt) > 2*titleMax {
		s = strings.Clone(s) // it outlives the prompt that it may be a part of
	}
	return s
}

// inOneLine returns s as one line of at most max bytes.
func inOneLine(s string, max int) string {
	if strings.ContainsAny(s, "\r\n\t\v\f\u0085\u2028\u2029") {
		s = strings.Join(strings.Fields(s), " ")
	}
	s = strings.TrimSpace(s)
	if len(s) > max {
		s = cutAtRune(s, max-len("…")) + "…"
	}
	return s
}

// cutAtRune returns at most n bytes of s, and no half rune.
func cutAtRune(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// setting writes a duration as Go and configurations do; from a day on as span.
func setting(d time.Duration) string {
	if d >= 24*time.Hour {
		return span(d)
	}
	return d.String()
}

// quote is strconv.Quote for text that goes into a reason, kept short.
func quote(s string) string { return fmt.Sprintf("%.120q", s) }
