package results

import (
	"cmp"
	"strings"
	"unicode"
)

// maxSlug is the maximum number of characters that a file name takes from a title.
const maxSlug = 40

// The function "slug" turns a title into part of a file name.
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
