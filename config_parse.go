package bgagent

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"strconv"
	"strings"

	"github.com/bgagent/bgagent/internal/jsonc"
	"github.com/bgagent/bgagent/internal/mdtext"
	"github.com/bgagent/bgagent/internal/slots"
	"github.com/bgagent/bgagent/internal/spell"
)

// ParseConfig parses the content of a configuration file. Errors and origins refer to the file by
// the given name. If there are errors, ParseConfig does not load anything and returns all errors,
// joined. Each of them is a [*ConfigFileError] with the line of the error.
func ParseConfig(name string, data []byte) (FileConfig, error) {
	p := parseFile(name, data)
	if len(p.errs) > 0 {
		return FileConfig{}, errors.Join(p.errs...)
	}
	return FileConfig{p.values, p.ignored}, nil
}

func parseFile(name string, data []byte) *fileParser {
	p := &fileParser{values: map[valueID]value{}}
	if len(data) > maxConfigFile {
		p.fail(fileProblem(jsonc.Origin{File: name, Line: 1, Column: 1}, "", tooLarge(int64(len(data)))))
		return p
	}
	root, err := jsonc.Parse(name, data, fileProblem)
	if err != nil {
		p.fail(err)
		return p
	}
	p.root(root)
	return p
}

// fileProblem implements [jsonc.ErrorFunc].
func fileProblem(at jsonc.Origin, key, problem string) error {
	if problem == jsonc.Empty {
		problem += fmt.Sprintf(`; write {} or { "%s": {} }, or remove the file`, section)
	}
	return &ConfigFileError{File: at.File, Line: at.Line, Column: at.Column, Key: key, Problem: problem}
}

type fileParser struct {
	values  map[valueID]value
	ignored []IgnoredKey
	errs    []error
	found   bool // whether the file has the section background_task
}

func (p *fileParser) fail(err error) { p.errs = append(p.errs, err) }

// The method "root" reads the section background_task at the top level and under "[opencode]".
// Values under "[opencode]" override values at the top level.
func (p *fileParser) root(v jsonc.Value) {
	members, ok := v.Members()
	if !ok {
		p.fail(v.Errorf("", `is %s; it must be an object like { "%s": { "defaultConcurrency": 5 } }`, v.Describe(), section))
		return
	}
	p.members(members)
	shared := p.values
	for i, m := range named(members, harness) {
		inner, ok := m.Value.Members()
		if !ok {
			continue
		}
		if i > 0 {
			p.fail(m.Errorf(harness, "appears twice; merge the two"))
			continue
		}
		p.values = map[valueID]value{}
		p.members(inner)
		overlay(shared, p.values)
	}
	p.values = shared
	if !p.found && len(p.ignored) == 0 {
		p.ignored = []IgnoredKey{{"", fmt.Sprintf("has no section %s, neither at its top nor in %s; nothing in it applies", section, mdtext.Quote(harness)), Origin(v.Origin())}}
	}
}

// The function "named" returns the members with the given name.
func named(members []jsonc.Member, name string) (all []jsonc.Member) {
	for _, m := range members {
		if m.Name == name {
			all = append(all, m)
		}
	}
	return all
}

// The method "members" reads the section background_task if the object has one.
func (p *fileParser) members(members []jsonc.Member) {
	first := 0
	for _, m := range members {
		switch {
		case m.Name == harness:
		case m.Name != section:
			p.foreign(m)
		case first != 0:
			p.fail(m.Errorf(section, "appears twice, first in line %d; merge the two", first))
		default:
			first, p.found = m.At().Line, true
			p.section(m)
		}
	}
}

// overlay overrides values with later values from the same file. It keeps nulls, because
// they can also remove values from an earlier file.
func overlay(values, later map[valueID]value) {
	for id, v := range later {
		if v.null && id.entry == "" {
			maps.DeleteFunc(values, func(old valueID, _ value) bool { return old.key == id.key })
		}
	}
	maps.Copy(values, later)
}

// The method "foreign" reports a key outside the section background_task that seems to belong in
// it. Such a key is not an error, because other programs might use the same name.
func (p *fileParser) foreign(m jsonc.Member) {
	name, reason := m.Name, ""
	inner, _ := m.Value.Members()
	switch {
	case topKey(name) != nil || name == breaker:
		reason = "it counts only inside of " + section
	case spell.Distance(plainKey(name), plainSection, 3) < 3:
		reason = "did you mean " + section + "?"
	case len(named(inner, section)) > 0:
		name = mdtext.Quote(name) + "." + section
		reason = fmt.Sprintf("only the one at the top of the file and the one in %s count", mdtext.Quote(harness))
	default:
		return
	}
	p.ignored = append(p.ignored, IgnoredKey{name, reason, Origin(m.At())})
}

func (p *fileParser) section(of jsonc.Member) {
	v := of.Value
	if v.IsNull() { // the null removes all values from earlier files
		for i := range fileKeys {
			p.values[valueID{key: fileKeys[i].key}] = value{null: true, origin: Origin(of.At())}
		}
		return
	}
	members, ok := v.Members()
	if !ok {
		p.fail(v.Errorf(section, `is %s; it must be an object like { "defaultConcurrency": 5 }, or null`, v.Describe()))
		return
	}
	seen := map[string]int{} // line by key
	for _, m := range members {
		name, at := m.Name, Origin(m.At())
		k, canonical := topKey(name), name
		if k != nil {
			canonical = k.key
		}
		first, twice := seen[canonical]
		if twice {
			p.fail(m.Errorf(keyPath(name), "%s", twiceText(k, first)))
			continue
		}
		seen[canonical] = at.Line
		if k != nil {
			p.key(k, m)
		} else if name == breaker {
			p.breaker(m)
		} else if inner, ok := strings.CutPrefix(name, inBreaker); ok {
			p.fail(m.Errorf(keyPath(name), `is written with a dot; write "%s": { "%s": … }`, breaker, inner))
		} else if reason, known := foreignReason(name); known {
			p.ignored = append(p.ignored, IgnoredKey{keyPath(name), reason, at})
		} else if meant := mistyped(name); meant != "" {
			p.fail(m.Errorf(keyPath(name), "is not a known key; did you mean %s?", meant))
		} else {
			p.ignored = append(p.ignored, IgnoredKey{keyPath(name), unknownReason(name), at})
		}
	}
}

// topKey returns the key with the given name or alias, or nil if there is none at the top level of
// the section.
func topKey(name string) *fileKey {
	if strings.HasPrefix(name, inBreaker) {
		return nil
	}
	return keyNamed(name)
}

// The method "breaker" reads the object circuitBreaker. The keys in the object are merged one by
// one, like those of the section.
func (p *fileParser) breaker(of jsonc.Member) {
	v := of.Value
	if v.IsNull() {
		for i := range fileKeys {
			if key := fileKeys[i].key; strings.HasPrefix(key, inBreaker) {
				p.values[valueID{key: key}] = value{null: true, origin: Origin(of.At())}
			}
		}
		return
	}
	members, ok := v.Members()
	if !ok {
		p.fail(v.Errorf(keyPath(breaker), `is %s; it must be an object like { "consecutiveThreshold": 20 }, or null`, v.Describe()))
		return
	}
	seen := map[string]int{} // line by key
	for _, m := range members {
		key, at := inBreaker+m.Name, Origin(m.At())
		first, twice := seen[m.Name]
		if twice {
			p.fail(m.Errorf(keyPath(key), "%s", twiceText(nil, first)))
			continue
		}
		seen[m.Name] = at.Line
		if k := keyNamed(key); k != nil {
			p.key(k, m)
		} else if meant := mistyped(key); meant != "" {
			p.fail(m.Errorf(keyPath(key), "is not a known key; did you mean %s?", strings.TrimPrefix(meant, inBreaker)))
		} else {
			p.ignored = append(p.ignored, IgnoredKey{keyPath(key), "it is not known here; the documentation has a table of the known keys", at})
		}
	}
}

func twiceText(k *fileKey, first int) string {
	if k == nil || k.alias == "" {
		return fmt.Sprintf("appears twice, first in line %d; keep one of the two", first)
	}
	return fmt.Sprintf("appears twice, first in line %d (%s and %s are the same); keep one of the two", first, k.key, k.alias)
}

// unknownReason returns the reason why an unknown key is ignored. The reason names the
// nearest known key, if there is one.
func unknownReason(name string) string {
	if near := relatedKey(name); near != "" {
		return "it is not known here; the nearest known key is " + near
	}
	return "it is not known here; the documentation has a table of the known keys"
}

// The method "key" reads the value of one key.
func (p *fileParser) key(k *fileKey, m jsonc.Member) {
	path, id, at := keyPath(k.key), valueID{key: k.key}, Origin(m.At())
	if m.Name == k.alias {
		path = keyPath(k.alias)
	}
	switch v := m.Value; {
	case v.IsNull():
		p.values[id] = value{null: true, origin: at}
	case k.kind == keyLimits:
		p.limits(k, v)
	case k.kind == keyBudget:
		p.budgets(v)
	case k.kind == keyFallback:
		p.fallbacks(v)
	case k.kind == keyWake:
		p.wake(k, v, at)
	case k.kind == keySwitch || k.kind == keyFlag:
		on, ok := v.Bool()
		if !ok {
			p.fail(v.Errorf(path, "is %s; it must be %s, or null", v.Describe(), k.want()))
			return
		}
		p.values[id] = value{origin: at}
		if on {
			p.values[id] = value{n: 1, origin: at}
		}
	default:
		n, ok := p.number(k, path, v)
		if !ok {
			return
		}
		if n == 0 && m.Name == k.alias && k.zero != "" {
			p.fail(v.Errorf(path, "is 0; under this name it must be at least 1: write %s: 0 for %s", k.key, k.zero))
			return
		}
		p.values[id] = value{n: n, origin: at}
	}
}

func (p *fileParser) wake(k *fileKey, v jsonc.Value, at Origin) {
	var w Wake
	text, ok := v.Text()
	if !ok || w.UnmarshalText([]byte(text)) != nil {
		p.fail(v.Errorf(keyPath(k.key), "is %s; it must be %s, or null", v.Describe(), k.want()))
		return
	}
	p.values[valueID{key: k.key}] = value{n: int64(w), origin: at}
}

// The method "limits" reads a map of limits. Names are compared after they are trimmed and changed
// to lower case, as in [Limits].
func (p *fileParser) limits(k *fileKey, v jsonc.Value) {
	members, ok := v.Members()
	if !ok {
		p.fail(v.Errorf(keyPath(k.key), `is %s; it must be an object of names and limits like %s, or null`, v.Describe(), k.example()))
		return
	}
	seen := map[string]int{} // line by name
	for _, m := range members {
		path, name, at := keyPath(k.key, m.Name), slots.Normal(m.Name), Origin(m.At())
		first, twice := seen[name]
		slash := ""
		if k.field == "Limits.Provider" {
			slash = slashInProvider(name, "modelConcurrency")
		}
		switch {
		case name == "":
			p.fail(m.Errorf(path, "has no name; name a model, provider or agent, or use defaultConcurrency"))
			continue
		case twice:
			p.fail(m.Errorf(path, "appears twice, first in line %d (upper and lower case are the same); keep one of the two", first))
			continue
		case slash != "":
			p.fail(m.Errorf(path, "%s", slash))
			continue
		}
		seen[name] = at.Line
		id := valueID{k.key, name}
		if m.Value.IsNull() {
			p.values[id] = value{null: true, origin: at}
		} else if n, ok := p.number(k, path, m.Value); ok {
			p.values[id] = value{n: n, origin: at}
		}
	}
}

// The method "number" reads a whole number that the key's field in Config can hold.
func (p *fileParser) number(k *fileKey, path string, v jsonc.Value) (int64, bool) {
	problem := func(format string, args ...any) (int64, bool) {
		p.fail(v.Errorf(path, format+"; it must be "+k.want(), args...))
		return 0, false
	}
	text, ok := v.Number()
	if !ok {
		return problem("is %s", v.Describe())
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil { // 1e3 and 5.0 are also whole numbers; like the host, parse them as doubles
		f, ferr := strconv.ParseFloat(text, 64)
		switch {
		case ferr != nil || math.Abs(f) > 1<<53:
			if strings.HasPrefix(text, "-") {
				return problem("is negative (%.40s)", text)
			}
			if ferr == nil && f < float64(k.most()) { // the number is in range, but a double cannot represent it exactly
				return problem("is too large to be written with an exponent (%.40s); write out its digits", text)
			}
			return problem("is too large (%.40s); the maximum is %d", text, k.most())
		case f < 0:
			return problem("is negative (%.40s)", text)
		case f != math.Trunc(f):
			return problem("is not whole (%.40s)", text)
		}
		n = int64(f)
	}
	switch {
	case n < 0:
		return problem("is negative (%d)", n)
	case n > k.most():
		return problem("is too large (%d); the maximum is %d", n, k.most())
	case n == 0 && k.zero == "":
		return problem("is 0, but it cannot be switched off")
	case 0 < n && n < k.least:
		return problem("is %d", n)
	}
	return n, true
}
