package cleantext

import (
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

var texts = []struct{ name, dirty, clean string }{
	{"plain text is unchanged", "# Title\n\n\tcode — é 👩‍👩‍👧\n", "# Title\n\n\tcode — é 👩‍👩‍👧\n"},
	{"colours", "\x1b[1;31mred\x1b[0m and \x1b[38:2:1:2:3mmore\x1b[m", "red and more"},
	{"a title closed by BEL", "\x1b]0;evil\atext", "text"},
	{"a link closed by ST", "\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"},
	{"a device string", "\x1bPq#0;2\x1b\\x\x1b_app\x1b\\y\x1b^pm\x1b\\z", "xyz"},
	{"eight-bit sequences", "\u009b31mred\u009d0;title\u009c!", "red!"},
	{"a character set", "\x1b(0lqk\x1b(B", "lqk"},
	{"two-byte sequences", "\x1b7a\x1b8b\x1bMc\x1bcd", "abcd"},
	{"a sequence cut by a newline", "\x1b[31\nnext\x1b\nlast", "\nnext\nlast"},
	{"a title that is never closed", "\x1b]0;oops\nthe answer\n", "\nthe answer\n"},
	{"a sequence in a title", "\x1b]0;a\x1b[31mred", "red"},
	{"line endings", "a\r\nb\rc\n\rd\r\r\ne", "a\nb\nc\n\nd\n\ne"},
	{"control characters", "a\x00b\x08c\x7fd\x0be\x0cf\a", "abcdef"},
	{"a byte-order mark", "\ufeffa", "a"},
	{"text with changed direction", "a\u202eb\u2066c\u2069", "abc"},
	{"invalid UTF-8", "a\xffb\xc3", "a\ufffdb\ufffd"},
	{"a replacement character in the text", "\ufffd", "\ufffd"},
	{"a letter after a cut sequence", "\x1b[3é", "é"},
}

func TestTextThatActsOnATerminalIsLeftOut(t *testing.T) {
	for _, c := range texts {
		require.Equal(t, c.clean, String(c.dirty), c.name)
		require.Equal(t, c.clean, String(String(c.dirty)), c.name)
	}
	require.Equal(t, "one line of words", Line(" one\r\nline\x1b[1m of\t\twords\n"))
}

func TestAnEscapeSequenceThatNeverEndsSwallowsLittle(t *testing.T) {
	got := String("\x1b]0;" + strings.Repeat("x", 10*maxSequence))
	require.Greater(t, len(got), 8*maxSequence)
}

func TestTextInPiecesIsCleanedAsOne(t *testing.T) {
	for _, c := range texts {
		var b strings.Builder
		w := NewWriter(&b)
		_, err := io.Copy(struct{ io.Writer }{w}, iotest.OneByteReader(strings.NewReader(c.dirty)))
		require.NoError(t, err)
		require.NoError(t, w.Flush())
		require.Equal(t, c.clean, b.String(), c.name)
	}
}

func TestAWriterTellsWhatIsBehindIt(t *testing.T) {
	r, pipe := io.Pipe()
	require.NoError(t, r.CloseWithError(io.ErrShortWrite))
	_, err := NewWriter(pipe).Write([]byte("x"))
	require.ErrorIs(t, err, io.ErrShortWrite)
}

func FuzzString(f *testing.F) {
	for _, c := range texts {
		f.Add(c.dirty, 1)
	}
	f.Fuzz(func(t *testing.T, s string, at int) {
		got := String(s)
		require.True(t, utf8.ValidString(got))
		for _, r := range got {
			require.False(t, unwanted(r) || r == '\r', "%q of %q", got, s)
		}
		require.Equal(t, got, String(got))
		var b strings.Builder
		w := NewWriter(&b)
		at = max(0, min(at, len(s)))
		for _, piece := range []string{s[:at], s[at:]} {
			_, err := io.WriteString(w, piece)
			require.NoError(t, err)
		}
		require.NoError(t, w.Flush())
		require.Equal(t, got, b.String())
	})
}
