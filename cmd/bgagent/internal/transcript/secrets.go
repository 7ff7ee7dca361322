package transcript

import (
	"cmp"
	"encoding/json"
	"net/url"
	"slices"
	"strings"
)

// minSecret is the minimum length, in bytes, of a value that is masked. Shorter values can occur in text by
// chance.
const minSecret = 8

// Secrets holds named values that must not appear in logs. The zero value holds no
// secrets. Values must not be added after the first use.
type Secrets struct {
	pairs []string // each value followed by its mask; longer values first
}

// Add adds a value. A value of fewer than 8 bytes is ignored.
func (s *Secrets) Add(name, value string) {
	forms := []string{value, url.QueryEscape(value)}
	if b, err := json.Marshal(value); err == nil {
		forms = append(forms, strings.Trim(string(b), `"`))
	}
	for line := range strings.Lines(value) { // a key with several lines can be printed line by line
		forms = append(forms, strings.TrimSpace(line))
	}
	type pair struct{ value, mask string }
	var all []pair
	for i := 0; i < len(s.pairs); i += 2 {
		all = append(all, pair{s.pairs[i], s.pairs[i+1]})
	}
	for _, f := range forms {
		if len(f) >= minSecret && !slices.ContainsFunc(all, func(p pair) bool { return p.value == f }) {
			all = append(all, pair{f, "[" + name + "]"})
		}
	}
	slices.SortStableFunc(all, func(a, b pair) int { return cmp.Compare(len(b.value), len(a.value)) })
	s.pairs = nil
	for _, p := range all {
		s.pairs = append(s.pairs, p.value, p.mask)
	}
}

// Mask replaces the values in a text with their names.
func (s *Secrets) Mask(text string) string {
	if s == nil || len(s.pairs) == 0 {
		return text
	}
	return strings.NewReplacer(s.pairs...).Replace(text)
}

// The method "complete" returns how many bytes of the text can be masked now. It is for a text whose end was
// cut off: the bytes that cannot be masked yet might be the beginning of a value. The result "masked" is the
// end of the last value within the first n bytes. The text is searched as in Mask, so that no complete value
// is cut.
func (s *Secrets) complete(text string) (n, masked int) {
next:
	for n < len(text) {
		rest := text[n:]
		for i := 0; i < len(s.pairs); i += 2 {
			v := s.pairs[i]
			if len(rest) < len(v) && strings.HasPrefix(v, rest) {
				return n, masked
			}
			if strings.HasPrefix(rest, v) {
				n += len(v)
				masked = n
				continue next
			}
		}
		n++
	}
	return n, masked
}

// withoutBegin is for a text whose beginning was cut off. If the text begins with the end of a value,
// withoutBegin returns the text without this end.
func (s *Secrets) withoutBegin(text string) string {
	for i := 0; i < len(s.pairs); i += 2 {
		v := s.pairs[i]
		for n := min(len(v)-1, len(text)); n > 0; n-- {
			if strings.HasPrefix(text, v[len(v)-n:]) {
				text = text[n:]
				break
			}
		}
	}
	return text
}
