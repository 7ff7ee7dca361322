package command

import (
	"encoding/json"
	"strings"

	"github.com/bgagent/bgagent/internal/jsonlines"
)

// jsonString returns s as a quoted string that is valid in JSON and in TOML. It escapes the
// character DEL, because TOML does not allow DEL in strings.
func jsonString(s string) string {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s) // encoding a string into a Builder cannot fail
	return strings.ReplaceAll(strings.TrimSuffix(b.String(), "\n"), "\x7f", `\u007f`)
}

// errorText returns a provider's error as plain text. Many programs write such an error as text
// that contains a JSON object; in that case, errorText replaces the object with the message in it.
func errorText(s string) string {
	s = strings.TrimSpace(s)
	begin, end := strings.IndexByte(s, '{'), strings.LastIndexByte(s, '}')
	if begin < 0 || end < begin {
		return s
	}
	var v struct {
		Message string
		Error   struct{ Message string }
	}
	if !jsonlines.Decode([]byte(s[begin:end+1]), &v) {
		return s
	}
	for _, m := range []string{v.Error.Message, v.Message} {
		if m != "" {
			return strings.TrimSuffix(s[:begin], " ") + spaced(m, begin > 0) + s[end+1:]
		}
	}
	return s
}

func spaced(s string, space bool) string {
	if space {
		return " " + s
	}
	return s
}
