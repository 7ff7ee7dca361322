package mdtext

import (
	"fmt"
	"strings"

	"github.com/bgagent/bgagent/internal/cleantext"
)

// Quote returns the first 120 characters of s, quoted as strconv.Quote does.
func Quote(s string) string { return fmt.Sprintf("%.120q", s) }

// Code turns untrusted text into a code span with at most max bytes of that text.
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

// Fence puts untrusted text into a code fence. The text cannot close the fence.
func Fence(s string) string {
	s = cleantext.String(s) // clean before counting ticks, because removing characters can join two runs
	// Long runs of ticks are split. The fence must be longer than any run, so it would otherwise become very
	// long.
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
