package mdtext

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/bgagent/bgagent/internal/cleantext"
)

const ellipsis = "…"

// Head returns at most the first n bytes of s. It never splits a rune.
func Head(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// Tail returns at most the last n bytes of s. It never splits a rune.
func Tail(s string, n int) string {
	if len(s) <= n {
		return s
	}
	i := len(s) - n
	for i < len(s) && !utf8.RuneStart(s[i]) {
		i++
	}
	return s[i:]
}

// Valid returns s as valid UTF-8. It replaces each run of invalid bytes with U+FFFD.
func Valid(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// Invisible reports whether s has no visible character. Spaces, control and format
// characters, variation selectors and fillers are not visible.
func Invisible(s string) bool { return strings.IndexFunc(s, visible) < 0 }

func visible(r rune) bool {
	if r < utf8.RuneSelf {
		return r > ' ' && r != '\x7f'
	}
	const brailleBlank, nullNote = '\u2800', '\U0001D159'
	return r != brailleBlank && r != nullNote && !unicode.IsSpace(r) && !unicode.IsControl(r) &&
		!unicode.In(r, unicode.Cf, unicode.Variation_Selector, unicode.Other_Default_Ignorable_Code_Point)
}

// Joined returns s as one line of at most max bytes. Unlike [OneLine], it does not remove invisible
// characters. Joined is for records that programs read; text for a model needs [OneLine].
func Joined(s string, max int) string {
	if strings.ContainsAny(s, "\r\n\t\v\f\u0085\u2028\u2029") {
		s = strings.Join(strings.Fields(s), " ")
	}
	s = strings.TrimSpace(s)
	if len(s) > max {
		s = Head(s, max-len(ellipsis)) + ellipsis
	}
	return s
}

// Ends is like [Joined], but keeps both the beginning and the end of the text. If the text is
// too long, Ends removes its middle.
func Ends(s string, max int) string {
	s = Joined(s, len(s)+1)
	if len(s) <= max {
		return s
	}
	const gap = " " + ellipsis + " "
	head := (max - len(gap)) * 2 / 5
	return strings.TrimRight(Head(s, head), " ") + gap + strings.TrimLeft(Tail(s, max-len(gap)-head), " ")
}

// OneLine turns untrusted text into one line of at most max bytes. It replaces each run of
// white space and control characters with one space. It drops escape sequences and invisible
// format characters, such as direction marks and tags. It keeps the joiners that scripts and
// emoji need.
func OneLine(s string, max int) string {
	if len(s) <= max && isPlain(s) {
		return s
	}
	if strings.ContainsAny(s, escapes) {
		s = cleantext.String(Head(s, 16*max))
	}
	const joiner, nonJoiner = '\u200d', '\u200c'
	var b strings.Builder
	gap := false
	for _, r := range s { // for an invalid byte, the loop gets U+FFFD
		switch {
		case unicode.IsSpace(r) || unicode.IsControl(r):
			gap = b.Len() > 0
			continue
		case unicode.Is(unicode.Cf, r) && r != joiner && r != nonJoiner:
			continue
		}
		if gap {
			b.WriteByte(' ')
			gap = false
		}
		b.WriteRune(r)
		if b.Len() > max {
			return strings.TrimRight(Head(b.String(), max-len(ellipsis)), " ") + ellipsis
		}
	}
	return b.String()
}

// escapes are the characters that begin an escape sequence.
const escapes = "\x1b\u0090\u0098\u009b\u009d\u009e\u009f"

// isPlain reports whether s is one line of printable ASCII with single spaces between
// words. Such text needs no cleaning, and most text is of this form.
func isPlain(s string) bool {
	last := byte(' ')
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == ' ' && last == ' ' {
			return false
		}
		last = s[i]
	}
	return s == "" || last != ' '
}
