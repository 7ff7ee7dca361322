package command

import (
	"encoding/json"
	"strings"

	"github.com/bgagent/bgagent/internal/jsonlines"
)

// jsonString returns s as a JSON string that is also a TOML string. TOML does not allow
// DEL in strings, so that is escaped.
func jsonString(s string) string {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s) // a string can always be encoded, and a Builder written to
	return strings.ReplaceAll(strings.TrimSuffix(b.String(), "\n"), "\x7f", `\u007f`)
}

// errorText returns the message in a provider's error. Many programs pass on a JSON
// object as text, with the message nested in it.
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
