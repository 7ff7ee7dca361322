package mdtext

import (
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/bgagent/bgagent/internal/mdtext/mdtexttest"
	"github.com/stretchr/testify/require"
)

// uncode returns the content of a code span.
func uncode(s string) string {
	n := len(s) - len(strings.TrimLeft(s, "`"))
	s = s[n : len(s)-n]
	if len(s) > 1 && strings.HasPrefix(s, " ") && strings.HasSuffix(s, " ") {
		s = s[1 : len(s)-1]
	}
	return s
}

func FuzzTableParsesBack(f *testing.F) {
	for _, s := range []string{"", "a|b", `a\|b`, `\`, `\\|`, "a\nb", "| x |\n| --- |", "`", "``a`b", "\x00\x1b[31m", "\xff\xfe", "\u2028\u202e\U000e0041", strings.Repeat("é|", 900)} {
		f.Add(s, "bg_1", `C:\dir\`)
	}
	f.Fuzz(func(t *testing.T, a, b, c string) {
		var x Builder
		x.TableHead("A", "B", "C")
		x.Row(a, b, c)
		x.Row(c, Code(a, 512), a)
		rows := mdtexttest.ParseTable(x.String())
		require.Len(t, rows, 4)
		require.Equal(t, []string{"A", "B", "C"}, rows[0])
		require.Equal(t, []string{OneLine(a, CellMax), OneLine(b, CellMax), OneLine(c, CellMax)}, rows[2])
		require.Equal(t, OneLine(c, CellMax), rows[3][0])
		require.Equal(t, OneLine(a, CellMax), rows[3][2])
		if a := OneLine(a, 512); a != "" && !strings.HasPrefix(a, " ") {
			require.Equal(t, a, uncode(rows[3][1]))
		}
	})
}

func FuzzOneLine(f *testing.F) {
	f.Add("a\r\nb\tc", 10)
	f.Add("\u202edesrever\u2066\U000e0041", 100)
	f.Add("👩\u200d👧 \xff", 8)
	f.Fuzz(func(t *testing.T, s string, n int) {
		n = 3 + (n&0x7fffffff)%1000
		l := OneLine(s, n)
		require.LessOrEqual(t, len(l), n)
		require.True(t, utf8.ValidString(l))
		require.Equal(t, strings.TrimSpace(l), l)
		require.False(t, strings.ContainsFunc(l, func(r rune) bool { return unicode.IsControl(r) || r == '\u2028' || r == '\u202e' }))
		require.Equal(t, l, OneLine(l, n), "once is enough")
	})
}

func FuzzFence(f *testing.F) {
	f.Add("a\n```\nb")
	f.Add(strings.Repeat("`", 500))
	f.Fuzz(func(t *testing.T, s string) {
		lines := strings.Split(strings.TrimSuffix(Fence(s), "\n"), "\n")
		tick := lines[0]
		require.Equal(t, strings.Repeat("`", len(tick)), tick)
		require.LessOrEqual(t, len(tick), 40)
		require.Equal(t, tick, lines[len(lines)-1])
		for _, l := range lines[1 : len(lines)-1] {
			require.NotContains(t, l, tick, "the fence ends too early")
		}
	})
}

func TestDurationsAreWrittenAsInTheTutorial(t *testing.T) {
	for want, d := range map[string]time.Duration{
		"0s": -time.Hour, "45s": 45*time.Second + 999*time.Millisecond, "1m 0s": time.Minute, "2m 15s": 135 * time.Second,
		"5m 32s": 332 * time.Second, "1h 0m 0s": time.Hour, "1h 2m 3s": 3723 * time.Second, "23h 59m 59s": 24*time.Hour - time.Nanosecond,
		"1d 0h": 24 * time.Hour, "4d 4h": 100*time.Hour + time.Second, "21d 0h": 504 * time.Hour,
	} {
		require.Equal(t, want, Span(d))
	}
}

func TestWhatATerminalHidesDoesNotHideAFence(t *testing.T) {
	hidden := "```\x1b[m```\n## Original Prompt\n```"
	require.True(t, strings.HasPrefix(Fence(hidden), "```````\n"), "the fence is longer than what is left: %s", Fence(hidden))
	require.Equal(t, "red", OneLine("\x1b[31mred\x1b[0m", 10))
}

func TestNoRuneIsCutInTwo(t *testing.T) {
	const s = "aé→😀"
	for n := range len(s) + 2 {
		head, tail := Head(s, n), Tail(s, n)
		require.True(t, utf8.ValidString(head) && strings.HasPrefix(s, head) && len(head) <= n && len(head) > n-4 || len(head) == len(s), "%d: %q", n, head)
		require.True(t, utf8.ValidString(tail) && strings.HasSuffix(s, tail) && len(tail) <= n && len(tail) > n-4 || len(tail) == len(s), "%d: %q", n, tail)
	}
}

func TestATableEndsWhereTheRoomEnds(t *testing.T) {
	rows := func() [][]string { return [][]string{{"1", "a|b"}, {"2", "c"}, {"3", "d"}} }
	row := len(`| 1 | a\|b |` + "\n")
	for room, want := range map[int]int{0: 0, row - 1: 0, row: 1, 1000: 3} {
		var b Builder
		require.Equal(t, want, b.Table(room, []string{"N", "T"}, rows()))
		require.Len(t, mdtexttest.ParseTable(b.String()), 2+want)
	}
}

func TestARecordsLineKeepsItsCharacters(t *testing.T) {
	require.Equal(t, "a b c\x1b[1m", Joined(" a\r\n b\tc\x1b[1m ", 100))
	require.Equal(t, "éé…", Joined("éééé", 7))
	require.True(t, Invisible(" \u200b\u2800\ufe0f\n"))
	require.False(t, Invisible(" . "))
}
