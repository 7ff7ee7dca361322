package command

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
)

func linesOf(r io.Reader, most int) (lines []string, dropped int) {
	dropped = readLines(r, most, func(b []byte) bool { lines = append(lines, string(b)); return false }, func(int) bool { return false })
	return lines, dropped
}

func TestReadLines(t *testing.T) {
	long := strings.Repeat("x", 100_000)
	for _, tc := range []struct {
		in      string
		most    int
		want    []string
		dropped int
	}{
		{"", 10, nil, 0},
		{"a\n\nb\r\nc", 10, []string{"a", "b", "c"}, 0},
		{"0123456789\n0123456789a\nb\n", 10, []string{"0123456789", "b"}, 1},
		{long + "\nb\n", 1 << 20, []string{long, "b"}, 0},
		{long + "\nb\n" + long, 50_000, []string{"b"}, 2},
		{long, 100_000, []string{long}, 0},
	} {
		for name, r := range map[string]io.Reader{"at once": strings.NewReader(tc.in), "in bytes": iotest.OneByteReader(strings.NewReader(tc.in))} {
			got, dropped := linesOf(r, tc.most)
			require.Equal(t, tc.want, got, name)
			require.Equal(t, tc.dropped, dropped, name)
		}
	}
	n := 0
	readLines(strings.NewReader("a\nb\nc\n"), 10, func([]byte) bool { n++; return n == 2 }, nil)
	require.Equal(t, 2, n, "it stops when it is told to")
	n = 0
	readLines(zeros{}, 100_000, nil, func(more int) bool { n += more; return n > 200_000 })
	require.Less(t, n, 300_000, "also in the middle of a line")
}

func TestReadTextKeepsCharactersWhole(t *testing.T) {
	const text = "naïve 日本語 🎉 \x80 end"
	for name, r := range map[string]io.Reader{
		"at once": strings.NewReader(text), "in bytes": iotest.OneByteReader(strings.NewReader(text)), "with its end": iotest.DataErrReader(strings.NewReader(text)),
	} {
		var got strings.Builder
		readText(r, func(s string) {
			require.Equal(t, s, strings.ToValidUTF8(s, "?"), name)
			got.WriteString(s)
		})
		require.Equal(t, "naïve 日本語 🎉 \ufffd end", got.String(), name)
	}
	var got strings.Builder
	readText(strings.NewReader("cut \xf0\x9f"), func(s string) { got.WriteString(s) })
	require.Equal(t, "cut \ufffd", got.String())
}

func TestTheEndOfStandardErrorIsKept(t *testing.T) {
	var e tail
	for i := range 3000 {
		fmt.Fprintf(&e, "line %d\n", i)
	}
	s := e.String()
	require.True(t, strings.HasPrefix(s, "line ") && strings.HasSuffix(s, "line 2999"), "whole lines")
	require.Greater(t, len(s), maxStderr-10)
	require.LessOrEqual(t, len(s), maxStderr)
	n, err := e.Write(bytes.Repeat([]byte("y"), 3*maxStderr))
	require.NoError(t, err)
	require.Equal(t, 3*maxStderr, n)
	require.Equal(t, strings.Repeat("y", maxStderr), e.String())
}

func TestHintIsTheLineThatSaysMost(t *testing.T) {
	for in, want := range map[string]string{
		"": "",
		"starting\nError: no account\nfor more information, try --help": "Error: no account",
		"one\ntwo\n\n": "two",
		"\x1b[91m\x1b[1mError: \x1b[0mSession not found\x07":                "Error: Session not found",
		"ApiError: no\n    at throw (file:///x/error.js)\n  status: 400\n}": "ApiError: no",
	} {
		var e tail
		_, _ = e.Write([]byte(in))
		require.Equal(t, want, hint(e.String()))
	}
}

// zeros is an endless text without an end of line.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = '0'
	}
	return len(p), nil
}
