package mdtext

import (
	"fmt"
	"strings"

	"github.com/bgagent/bgagent/internal/cleantext"
)

// Quote is strconv.Quote for text in a sentence, and keeps it short.
func Quote(s string) string { return fmt.Sprintf("%.120q", s) }

// Code makes text from outside a code span. The text has at most max bytes.
func Code(s string, max int) string {
	s = OneLine(s, max)
	if s != "" && strings.IndexByte(s, '`') < 0 {
		return "`" + s + "`"
	}
	tick := strings.Repeat("`", longestRun(s, '`')+1)
	if strings.HasPrefix(s, "`") || strings.HasSuffix(s, "`") || s == "" {
		s = " " + s + " "
	}
	return tick + s + tick
}

// Fence puts text from outside into a fence that nothing in it can end.
func Fence(s string) string {
	s = cleantext.String(s) // first: what is dropped may separate two runs of ticks
	// A run of ticks without a bound would need a fence without a bound.
	const run = "````````````````````````````````"
	s = strings.ReplaceAll(s, run, run+" ")
	ticks := strings.Repeat("`", max(3, longestRun(s, '`')+1))
	return ticks + "\n" + strings.TrimRight(s, "\n") + "\n" + ticks + "\n"
}

// longestRun returns the length of the longest run of c in s.
func longestRun(s string, c byte) (longest int) {
	run := 0
	for i := range len(s) {
		if s[i] != c {
			run = 0
			continue
		}
		run++
		longest = max(longest, run)
	}
	return longest
}
