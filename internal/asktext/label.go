package asktext

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/bgagent/bgagent/internal/mdtext"
)

// Line returns a text as one line where every character is visible. It replaces each run of white space with
// one space. Such a line stays the same when a program displays it or prints it as part of a command.
func Line(s string) string { return strings.Join(strings.Fields(Shown(s)), " ") }

// Quoted returns a text in quotes, as one line where every character is visible. There are at most max bytes
// between the quotes. If the text is longer, "…" follows the quotes.
func Quoted(s string, max int) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range strings.Join(strings.Fields(mdtext.Valid(s)), " ") {
		q := strconv.Quote(string(r))
		if q = Shown(q[1 : len(q)-1]); b.Len()-1+len(q) > max {
			return b.String() + `"…`
		}
		b.WriteString(q)
	}
	return b.String() + `"`
}

// Numbered makes the labels unique and keeps their order. The first of several equal labels is unchanged, and
// the others get a number, such as "yes #2".
func Numbered(labels []string) (out []string) {
	taken, count := map[string]bool{}, map[string]int{}
	for _, l := range labels {
		taken[l] = true
	}
	for _, l := range labels {
		text := l
		for count[l]++; count[l] > 1; count[l]++ {
			if text = fmt.Sprintf("%s #%d", l, count[l]); !taken[text] {
				taken[text] = true
				break
			}
		}
		out = append(out, text)
	}
	return out
}
