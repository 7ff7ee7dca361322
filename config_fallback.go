package bgagent

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/bgagent/bgagent/internal/jsonc"
	"github.com/bgagent/bgagent/internal/mdtext"
	"github.com/bgagent/bgagent/internal/slots"
)

// The code in this file handles Config.Fallback and the key "fallback" of a file. The value of the
// key maps each model to the list of its fallbacks.

// fallbackKey is the key of the fallbacks in a file.
const fallbackKey = "fallback"

// checkFallbacks returns an error about the first mistake in Config.Fallback. A cycle is not a
// mistake, because a task never gets the same model twice. The keys are checked in sorted order, so
// that the same mistake always gives the same error.
func checkFallbacks(all map[string][]string) error {
	from := map[string]string{} // maps the normal form of a key to the key as the caller wrote it
	for _, raw := range slices.Sorted(maps.Keys(all)) {
		field, name := fmt.Sprintf("Config.Fallback[%q]", raw), slots.Normal(raw)
		if name == "" {
			return &InputError{field, "has no name; name the model that has the fallback"}
		}
		if other, twice := from[name]; twice {
			return &InputError{field, fmt.Sprintf("is the same name as %q; keep one of the two", other)}
		}
		from[name] = raw
		for i := range all[raw] {
			if problem := fallbackProblem(name, all[raw], i); problem != "" {
				return &InputError{fmt.Sprintf("%s[%d]", field, i), problem}
			}
		}
	}
	return nil
}

// fallbackProblem describes the mistake in the i-th fallback of a model. It returns "" if there is
// none.
func fallbackProblem(model string, list []string, i int) string {
	switch name := slots.Normal(list[i]); {
	case name == "":
		return "is empty; it must name a model"
	case name == slots.Normal(model):
		return "is the model itself; it must be another model"
	default:
		if j := slices.IndexFunc(list[:i], func(s string) bool { return slots.Normal(s) == name }); j >= 0 {
			return fmt.Sprintf("names %q again; keep one of the two", list[j])
		}
	}
	return ""
}

// normalFallbacks returns a copy of the fallbacks. The keys of the copy are in their normal form, and
// the names in its lists are trimmed.
func normalFallbacks(all map[string][]string) map[string][]string {
	if len(all) == 0 {
		return nil
	}
	out := make(map[string][]string, len(all))
	for raw, list := range all {
		copied := make([]string, len(list))
		for i, model := range list {
			copied[i] = strings.TrimSpace(model)
		}
		out[slots.Normal(raw)] = copied
	}
	return out
}

// fallbacksOf returns the fallbacks of a model.
func fallbacksOf(all map[string][]string, model string) []string {
	name := slots.Normal(model)
	if list, ok := all[name]; ok {
		return list
	}
	if _, id, slash := strings.Cut(name, "/"); slash && !strings.Contains(id, "/") {
		return all[id]
	}
	return nil
}

// nextFallback returns the first usable fallback of the given models. The fallbacks of the first
// model come before those of the second, and so on. A fallback is usable if it is not itself one of
// the given models and the function "closed" returns false for it. If no fallback is usable,
// nextFallback returns "".
func nextFallback(all map[string][]string, models []string, closed func(model string) bool) string {
	for _, model := range models {
		for _, next := range fallbacksOf(all, model) {
			if !slices.ContainsFunc(models, func(m string) bool { return slots.Normal(m) == slots.Normal(next) }) && !closed(next) {
				return next
			}
		}
	}
	return ""
}

// The method "fallbacks" reads the value of the key "fallback".
func (p *fileParser) fallbacks(v jsonc.Value) {
	members, ok := v.Members()
	if !ok {
		p.fail(v.Errorf(keyPath(fallbackKey), `is %s; it must be an object like { "a/opus": ["b/large", "a/sonnet"] }, or null`, v.Describe()))
		return
	}
	seen := map[string]int{} // line by model
	for _, m := range members {
		path, name, at := keyPath(fallbackKey, m.Name), slots.Normal(m.Name), Origin(m.At())
		first, twice := seen[name]
		switch {
		case name == "":
			p.fail(m.Errorf(path, "has no name; name the model that has the fallback"))
			continue
		case twice:
			p.fail(m.Errorf(path, "appears twice, first in line %d (upper and lower case are the same); keep one of the two", first))
			continue
		}
		seen[name] = at.Line
		id := valueID{fallbackKey, name}
		if m.Value.IsNull() {
			p.values[id] = value{null: true, origin: at}
		} else if list, ok := p.fallback(m, path); ok {
			p.values[id] = value{names: list, origin: at}
		}
	}
}

// The method "fallback" reads the list of a model's fallbacks.
func (p *fileParser) fallback(of jsonc.Member, path string) (list []string, ok bool) {
	elements, ok := of.Value.Elements()
	if !ok {
		p.fail(of.Value.Errorf(path, `is %s; it must be a list of models like ["b/large", "a/sonnet"], or null`, of.Value.Describe()))
		return nil, false
	}
	list = make([]string, 0, len(elements))
	for i, e := range elements {
		model, isText := e.Text()
		list = append(list, strings.TrimSpace(model))
		problem := ""
		if !isText {
			problem = "is " + e.Describe() + "; it must be the name of a model"
		} else if problem = fallbackProblem(of.Name, list, i); problem == "" {
			continue
		}
		p.fail(e.Errorf(fmt.Sprintf("%s[%d]", path, i), "%s", problem))
		ok = false
	}
	return list, ok
}

// applyFallbacks sets the entries of c.Fallback that the files contain.
func (f FileConfig) applyFallbacks(c *Config, ids []valueID) {
	all := normalFallbacks(c.Fallback)
	if all == nil {
		all = map[string][]string{}
	}
	for _, id := range ids {
		all[id.entry] = slices.Clone(f.values[id].names)
	}
	c.Fallback = all
}

// fallbackText returns a list of fallbacks as JSON text for a file.
func fallbackText(list []string) string {
	texts := make([]string, len(list))
	for i, model := range list {
		texts[i] = jsonString(model)
	}
	return "[" + strings.Join(texts, ", ") + "]"
}

// formatFallbacks returns the value of the key "fallback" as JSON text, or "" if c has no fallbacks.
func formatFallbacks(c *Config) (string, error) {
	if err := checkFallbacks(c.Fallback); err != nil || len(c.Fallback) == 0 {
		return "", err
	}
	all := normalFallbacks(c.Fallback)
	var members []jsonMember
	for _, model := range slices.Sorted(maps.Keys(all)) {
		for _, name := range append([]string{model}, all[model]...) {
			if !utf8.ValidString(name) {
				return "", &InputError{"Config.Fallback[" + mdtext.Quote(model) + "]", "has a name that a file cannot hold"}
			}
		}
		members = append(members, jsonMember{model, fallbackText(all[model])})
	}
	return jsonObject(members, "    "), nil
}
