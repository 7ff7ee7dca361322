package bgagent

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/bgagent/bgagent/internal/mdtext"
	"github.com/bgagent/bgagent/internal/slots"
)

// FormatConfig returns c as the text of a configuration file, with the keys in the same order
// as the table for [FileConfig]. It writes every field that is set and has a key. [ParseConfig]
// and [FileConfig.Apply] restore these fields. FormatConfig returns an [*InputError] for a
// value that is wrong or that a file cannot represent, such as a fraction of a millisecond.
func FormatConfig(c Config) ([]byte, error) {
	members, err := formatMembers(c)
	if err != nil {
		return nil, fmt.Errorf("bgagent: format config: %w", err)
	}
	body := jsonObject([]jsonMember{{section, jsonObject(members, "  ")}}, "")
	return append([]byte(body), '\n'), nil
}

func formatMembers(c Config) (members []jsonMember, err error) {
	for i := range fileKeys {
		k := &fileKeys[i]
		if k.kind == keyLimits {
			limits, err := formatLimits(k, *k.limits(&c))
			if err != nil {
				return nil, err
			}
			if len(limits) > 0 {
				members = append(members, jsonMember{k.key, jsonObject(limits, "    ")})
			}
			continue
		}
		if k.kind == keyBudget || k.kind == keyFallback {
			format := formatBudgets
			if k.kind == keyFallback {
				format = formatFallbacks
			}
			text, err := format(&c)
			if err != nil {
				return nil, err
			}
			if text != "" {
				members = append(members, jsonMember{k.key, text})
			}
			continue
		}
		raw, _ := k.access(&c)
		if raw == 0 || k.key == nestedMaxCallsKey || k.field == "RepeatedCalls" && raw == -1 && k.kind != keySwitch { // the value is not set, or another key represents it
			continue
		}
		n, err := k.fromConfig(raw)
		if err != nil {
			return nil, &InputError{"Config." + k.field, err.Error()}
		}
		if name, nested := strings.CutPrefix(k.key, inBreaker); nested { // the object gets only this key, because at most one of its keys is ever written
			members = append(members, jsonMember{breaker, jsonObject([]jsonMember{{name, k.text(n)}}, "    ")})
			continue
		}
		members = append(members, jsonMember{k.key, k.text(n)})
	}
	return members, nil
}

// formatLimits returns the members for a map of limits, sorted by name. Names are
// trimmed and in lower case, because limits are compared in that form.
func formatLimits(k *fileKey, limits map[string]int) ([]jsonMember, error) {
	var out []jsonMember
	from := map[string]string{}
	for _, raw := range slices.Sorted(maps.Keys(limits)) {
		field, name := fmt.Sprintf("Config.%s[%s]", k.field, mdtext.Quote(raw)), slots.Normal(raw)
		if limits[raw] == 0 { // 0 means that the limit is not set
			continue
		}
		if name == "" || !utf8.ValidString(raw) {
			return nil, &InputError{field, "has a name that a file cannot hold"}
		}
		if other, twice := from[name]; twice {
			return nil, &InputError{field, fmt.Sprintf("is the same name as %s; keep one of the two", mdtext.Quote(other))}
		}
		from[name] = raw
		n, err := k.fromConfig(int64(limits[raw]))
		if err != nil {
			return nil, &InputError{field, err.Error()}
		}
		out = append(out, jsonMember{name, k.text(n)})
	}
	slices.SortFunc(out, func(a, b jsonMember) int { return bytes.Compare([]byte(a.name), []byte(b.name)) })
	return out, nil
}

// jsonMember is a member of a JSON object. The field "value" contains JSON text.
type jsonMember struct{ name, value string }

// jsonObject returns a JSON object with the members in the given order, one per line.
func jsonObject(members []jsonMember, indent string) string {
	if len(members) == 0 {
		return "{}"
	}
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range members {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString("\n" + indent + "  " + jsonString(m.name) + ": " + m.value)
	}
	b.WriteString("\n" + indent + "}")
	return b.String()
}

// jsonString returns s as a JSON string, without escaping <, > and &.
func jsonString(s string) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		panic("bgagent: bug: a string cannot be written: " + err.Error())
	}
	return string(bytes.TrimSuffix(b.Bytes(), []byte("\n")))
}
