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

func TestReadTextKeepsCharactersWhole(t *testing.T) {
	const text = "naïve 日本語 🎉 \x80 end"
	for name, r := range map[string]io.Reader{
		"at once": strings.NewReader(text), "in bytes": iotest.OneByteReader(strings.NewReader(text)), "with its end": iotest.DataErrReader(strings.NewReader(text)),
	} {
		var got strings.Builder
		garbled := readText(r, func(s string) {
			require.Equal(t, s, strings.ToValidUTF8(s, "?"), name)
			got.WriteString(s)
		})
		require.True(t, garbled)
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

func TestHintIsTheMostTellingLine(t *testing.T) {
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

// zeros is a reader of endless text without line breaks.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = '0'
	}
	return len(p), nil
}
