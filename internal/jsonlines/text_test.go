package jsonlines

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCleanReturnsPlainText(t *testing.T) {
	for in, want := range map[string]string{
		"plain\ttext\n":                          "plain\ttext\n",
		"a\r\nb\rc\n\r\nd\r":                     "a\nb\nc\n\nd\n",
		"\x1b[1mbold\x1b[0m":                     "bold",
		"\x1b]8;;http://x\x1b\\link\x1b]8;;\x07": "link",
		"\x1b]0;title without end\nnext":         "0;title without end\nnext",
		"a\x00\x07\x08\x7fb":                     "ab",
		"a\u0085\u009b\ufeffb":                   "ab",
		"é ï 日本 🎉 \u00a0\ufe0f":                  "é ï 日本 🎉 \u00a0\ufe0f",
		"\x1b]0;é\u009b\ufeff":                   "0;é",
		"half \xc2":                              "half \xc2",
		"half \xef\xbb":                          "half \xef\xbb",
		"half \x1b[3":                            "half ",
	} {
		require.Equal(t, want, Clean(in), "%q", in)
		var c Cleaner
		got := ""
		for i := range len(in) {
			got += c.Clean(in[i : i+1])
		}
		require.Equal(t, want, got+c.Rest(), "%q in pieces", in)
	}
}

func TestCleanTextIsNotCopied(t *testing.T) {
	text := strings.Repeat("clean ", 100)
	var c Cleaner
	require.Zero(t, testing.AllocsPerRun(100, func() { _ = Clean(text); _ = c.Clean(text) }))
}
