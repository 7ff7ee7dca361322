package results

import (
	"cmp"
	"strings"
	"unicode"
)

// maxSlug is how many characters of a title the name of a file holds.
const maxSlug = 40

// slug turns a title into part of a file's name.
func slug(title string) string {
	var b strings.Builder
	dash := false
	for _, r := range strings.ToLower(title) {
		switch {
		case b.Len() >= maxSlug:
		case r < unicode.MaxASCII && (unicode.IsLetter(r) || unicode.IsDigit(r)):
			if dash && b.Len() > 0 {
				b.WriteByte('-')
			}
			b.WriteRune(r)
			dash = false
		default:
			dash = true
		}
	}
	return cmp.Or(b.String(), "task")
}
