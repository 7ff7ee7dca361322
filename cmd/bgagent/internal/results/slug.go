package results

import (
	"cmp"
	"strings"
	"unicode"
)

// maxSlug is how many characters of a title stand in the name of a file.
const maxSlug = 40

// slug makes a part of a file's name of a title.
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
