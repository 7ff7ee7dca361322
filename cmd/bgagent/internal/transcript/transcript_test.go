package transcript

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func written(t *testing.T, l *Log) string {
	t.Helper()
	var b strings.Builder
	require.NoError(t, l.CopyTo(&b))
	return b.String()
}

func TestBothStreamsOfEachTaskAreKept(t *testing.T) {
	k := New(&Secrets{})
	k.Printed("a", 1, []byte("one\x1b[31m\r\n"))
	k.Printed("b", 2, []byte("other"))
	k.Printed("a", 2, []byte("bad\x07"))
	k.Printed("a", 1, []byte("two"))
	require.Equal(t, "== standard error, 4 bytes ==\nbad\n== standard output, 13 bytes ==\none\ntwo\n", written(t, k.Take("a")))
	require.Nil(t, k.Take("a"))
	require.Equal(t, "== standard error, 5 bytes ==\nother\n", written(t, k.Take("b")))
}

func TestTheBeginningAndTheEndOfALongStreamAreKept(t *testing.T) {
	for _, piece := range []int{1000, 32 << 10, Kept - 1, 5 * Kept} {
		k := New(&Secrets{})
		var b strings.Builder
		for b.Len() < 5*Kept {
			b.WriteString(strings.Repeat(string(rune('a'+b.Len()%26)), 99) + "\n")
		}
		all := b.String()
		for rest := all; rest != ""; {
			n := min(piece, len(rest))
			k.Printed("a", 1, []byte(rest[:n]))
			rest = rest[n:]
		}
		text := written(t, k.Take("a"))
		require.Less(t, len(text), 2*Kept+200)
		_, text, _ = strings.Cut(text, "==\n")
		head, rest, found := strings.Cut(text, "\n[… ")
		require.True(t, found)
		require.True(t, strings.HasPrefix(all, head) && len(head) > Kept-2, "%d", len(head))
		_, tail, _ := strings.Cut(rest, "…]\n")
		require.True(t, strings.HasSuffix(all, tail) && len(tail) >= Kept, "%d", len(tail))
	}
}

func TestSecretsAreMaskedWhereverTheyAre(t *testing.T) {
	const secret = `sk-"secret"-0123456789`
	var s Secrets
	s.Add("API_KEY", secret)
	s.Add("SHORT", "short")
	s.Add("CERT", "-----BEGIN KEY-----\nabcdefghijklmnop\n")
	require.Equal(t, `a [API_KEY] b {"k":"[API_KEY]"} short`, s.Mask(`a `+secret+` b {"k":"sk-\"secret\"-0123456789"} short`))
	require.Equal(t, "x [CERT] y", s.Mask("x abcdefghijklmnop y"))
	require.Equal(t, "x", (*Secrets)(nil).Mask("x"))

	// If the text ends with a complete value, the value is masked there, and is not mistaken for the
	// beginning of another value.
	var again Secrets
	again.Add("KEY", "sk-0123456789sk")
	k := New(&again)
	k.Printed("a", 2, []byte(strings.Repeat(".", Kept-15)+"sk-0123456789sk"+strings.Repeat(".", 3*Kept)))
	require.Contains(t, written(t, k.Take("a")), ".[KEY]\n")

	// No matter where a secret is cut, no part of it may remain.
	for at := -len(secret); at <= 0; at += 3 {
		k := New(&s)
		k.Printed("a", 2, []byte(strings.Repeat(".", Kept+at)+secret+strings.Repeat(".", 3*Kept)))
		text := written(t, k.Take("a"))
		require.NotContains(t, text, "sk-", "at %d", at)
		k.Printed("a", 2, []byte(strings.Repeat(".", 3*Kept)+secret+strings.Repeat(".", Kept+at)))
		text = written(t, k.Take("a"))
		require.NotContains(t, text, "456789", "at %d", at)
	}
}
