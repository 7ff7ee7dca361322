package settings

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"unicode"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/fileerror"
	"github.com/bgagent/bgagent/internal/jsonc"
	"github.com/bgagent/bgagent/internal/rulename"
)

// The type "merged" holds the keys of one agent from all files.
type merged struct {
	at     bgagent.Origin // where the agent was last named
	values map[string]jsonc.Member
}

// loader merges the agents of several files.
type loader struct {
	agents  map[string]*merged
	hints   map[bgagent.Origin]string // the library's hints about keys outside its section
	notify  *jsonc.Member             // the key "notify"; nil if there is none
	cluster *Cluster                  // the key "cluster"; nil if there is none
	errs    []error
}

// loadOwn reads those parts of the files that are outside the library's section.
func loadOwn(paths []string, ignored []bgagent.IgnoredKey) (own, error) {
	l := &loader{agents: map[string]*merged{}, hints: map[bgagent.Origin]string{}}
	for _, k := range ignored {
		l.hints[k.Origin] = k.Reason
	}
	for _, path := range paths {
		data, err := readFile(path)
		if err != nil {
			l.fail(&bgagent.ConfigFileError{File: path, Problem: "cannot be read: " + err.Error(), Err: err})
			continue
		}
		root, err := jsonc.Parse(path, data, fileerror.Of)
		if err != nil {
			l.fail(err)
			continue
		}
		l.root(root)
	}
	var out own
	out.cluster = l.cluster
	if len(l.errs) == 0 { // after errors, the checks of the merged keys would only repeat them
		for _, name := range slices.Sorted(maps.Keys(l.agents)) {
			a, errs := resolve(name, l.agents[name])
			l.errs = append(l.errs, errs...)
			out.agents = append(out.agents, a)
		}
		if m := l.notify; m != nil {
			out.notify, out.notifyAt = textsOf(m.Value), bgagent.Origin(m.At())
			if err := inFile(&out.notify[0], m.At().File); err != nil {
				l.fail(m.Value.Errorf("notify", "%s", err))
			}
		}
	}
	return out, errors.Join(l.errs...)
}

// readFile reads a regular file. Like the library, it refuses any other file, because
// reading a pipe could block forever.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is not a regular file")
	}
	if err != nil {
		return nil, err
	}
	return os.ReadFile(path)
}

// The type "own" holds those parts of the files that are outside the library's section.
type own struct {
	agents   []Agent
	notify   []string
	notifyAt bgagent.Origin
	cluster  *Cluster
}

func (l *loader) fail(err error) { l.errs = append(l.errs, err) }

// The method "once" executes f for each member. It reports members that occur twice.
func (l *loader) once(path string, members []jsonc.Member, f func(jsonc.Member)) {
	first := map[string]jsonc.Origin{}
	for _, m := range members {
		if o, twice := first[m.Name]; twice {
			l.fail(m.Errorf(jsonc.Key(path, m.Name), "appears twice, first in line %d; keep one of the two", o.Line))
			continue
		}
		first[m.Name] = m.At()
		f(m)
	}
}

// The method "root" reads the top level of a file.
func (l *loader) root(v jsonc.Value) {
	members, ok := v.Members()
	if !ok { // the library reports this error
		return
	}
	l.once("", members, func(m jsonc.Member) {
		switch m.Name {
		case "background_task":
		case "$schema":
			if _, ok := m.Value.Text(); !ok {
				l.fail(m.Value.Errorf("$schema", "is %s; it must be the address of the schema, a string", m.Value.Describe()))
			}
		case "agents":
			l.section(m.Value)
		case "notify":
			l.takeNotify(m)
		case "cluster":
			l.takeCluster(m)
		default:
			remedy := "the keys of a file are $schema, background_task, agents, notify and cluster; remove it"
			if hint := l.hints[bgagent.Origin(m.At())]; hint != "" {
				remedy = hint
			} else if near := nearest(m.Name, []string{"agents", "$schema", "background_task", "notify", "cluster"}); near != "" {
				remedy = "did you mean " + near + "?"
			}
			l.fail(m.Errorf(jsonc.Key("", m.Name), "is not a known key; %s", remedy))
		}
	})
}

// takeNotify reads the key "notify". Its value replaces the value from an earlier file.
func (l *loader) takeNotify(m jsonc.Member) {
	l.notify = nil
	if m.Value.IsNull() {
		return
	}
	if err := checkTexts(&notifyKey, "notify", m.Value); err != nil {
		l.fail(err)
		return
	}
	l.notify = &m
}

// The method "section" reads the key "agents" of a file.
func (l *loader) section(v jsonc.Value) {
	if v.IsNull() {
		clear(l.agents)
		return
	}
	members, ok := v.Members()
	if !ok {
		l.fail(v.Errorf("agents", `is %s; it must be an object like { "explore": { "kind": "command", "preset": "codex" } }`, v.Describe()))
		return
	}
	l.once("agents", members, func(m jsonc.Member) {
		if problem := badName(m.Name); problem != "" {
			l.fail(m.Errorf(jsonc.Key("agents", m.Name), "%s", problem))
			return
		}
		l.agent(m)
	})
}

// badName describes what is wrong with the name of an agent. If the name is valid, it returns "".
func badName(name string) string {
	switch {
	case name == "":
		return "has no name; give the agent one"
	case name == "*":
		return "is not a name; name each agent"
	case len(name) > 64:
		return "is a name of more than 64 bytes; give it a shorter one"
	case strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) || unicode.IsSpace(r) }):
		return "is a name with blanks or control characters; leave them out"
	}
	return ""
}

// The method "agent" merges the keys that one file has for an agent into the keys from earlier
// files.
func (l *loader) agent(m jsonc.Member) {
	path := jsonc.Key("agents", m.Name)
	if m.Value.IsNull() {
		delete(l.agents, m.Name)
		return
	}
	members, ok := m.Value.Members()
	if !ok {
		l.fail(m.Value.Errorf(path, `is %s; it must be an object like { "kind": "command", "preset": "codex" }, or null`, m.Value.Describe()))
		return
	}
	a := l.agents[m.Name]
	if a == nil || slices.ContainsFunc(members, func(m jsonc.Member) bool { return m.Name == "kind" && !m.Value.IsNull() }) {
		a = &merged{values: map[string]jsonc.Member{}} // drops the keys from earlier files, which might be for another kind
	}
	a.at = bgagent.Origin(m.At())
	l.agents[m.Name] = a
	l.once(path, members, func(m jsonc.Member) {
		at := jsonc.Key(path, m.Name)
		k := keyNamed(m.Name)
		switch {
		case k == nil:
			l.fail(m.Errorf(at, "is not a known key; %s", keyRemedy(m.Name)))
		case m.Value.IsNull():
			delete(a.values, m.Name)
		default:
			if err := check(k, at, m.Value); err != nil {
				l.fail(err)
				return
			}
			a.values[m.Name] = m
		}
	})
}

func keyRemedy(name string) string {
	var names []string
	for i := range keys {
		names = append(names, keys[i].name)
	}
	if near := nearest(name, names); near != "" {
		return "did you mean " + near + "?"
	}
	return "the keys of an agent are " + strings.Join(names, ", ")
}

// The function "check" checks the shape of a value.
func check(k *key, path string, v jsonc.Value) error {
	switch k.shape {
	case shapeText:
		s, ok := v.Text()
		switch {
		case !ok:
			return v.Errorf(path, "is %s; it must be a string", v.Describe())
		case k.enum != nil && !slices.Contains(k.enum, s):
			return v.Errorf(path, "is %s; it must be %s", v.Describe(), oneOf(k.enum))
		case strings.ContainsFunc(s, unicode.IsControl):
			return v.Errorf(path, "contains a line break or a control character; it must be one line")
		case s == "":
			return v.Errorf(path, "is empty; write a value, or remove the key")
		}
	case shapeTexts:
		return checkTexts(k, path, v)
	case shapeBool:
		if _, ok := v.Bool(); !ok {
			return v.Errorf(path, "is %s; it must be true or false", v.Describe())
		}
	case shapeRules:
		return checkRules(path, v)
	case shapeReplicas:
		if n, _ := v.Number(); !slices.Contains(replicas, n) {
			return v.Errorf(path, "is %s; it must be %s", v.Describe(), strings.ReplaceAll(oneOf(replicas), `"`, ""))
		}
	}
	return nil
}

func checkTexts(k *key, path string, v jsonc.Value) error {
	list, ok := v.Elements()
	if !ok {
		return v.Errorf(path, `is %s; it must be a list of strings like ["a", "b"]`, v.Describe())
	}
	if len(list) == 0 {
		return v.Errorf(path, "is an empty list; write a value, or remove the key")
	}
	for i, e := range list {
		s, ok := e.Text()
		at := fmt.Sprintf("%s[%d]", path, i)
		switch {
		case !ok:
			return e.Errorf(at, "is %s; it must be a string", e.Describe())
		case strings.Contains(s, "\x00"):
			return e.Errorf(at, "contains a zero byte; remove it")
		case s == "" && k.name != "args":
			return e.Errorf(at, "is empty; write a value, or remove it")
		}
	}
	return nil
}

func textsOf(v jsonc.Value) []string {
	list, _ := v.Elements()
	out := make([]string, len(list))
	for i, e := range list {
		out[i], _ = e.Text()
	}
	return out
}

// checkRules checks permissions: an object whose members are actions, or objects that
// map patterns to actions.
func checkRules(path string, v jsonc.Value) error {
	members, ok := v.Members()
	if !ok {
		return v.Errorf(path, `is %s; it must be an object like { "edit": "deny", "bash": { "*": "deny", "git *": "allow" } }`, v.Describe())
	}
	// The order of rules matters, so a duplicate further down must not silently override an earlier rule.
	twice := func(path string, members []jsonc.Member) error {
		first := map[string]jsonc.Origin{}
		for _, m := range members {
			if o, found := first[m.Name]; found {
				return m.Errorf(jsonc.Key(path, m.Name), "appears twice, first in line %d; merge the two", o.Line)
			}
			first[m.Name] = m.At()
		}
		return nil
	}
	if err := twice(path, members); err != nil {
		return err
	}
	for _, m := range members {
		at := jsonc.Key(path, m.Name)
		patterns, nested := m.Value.Members()
		if err := twice(at, patterns); err != nil {
			return err
		}
		if problem := rulename.Problem(m.Name); problem != "" {
			return m.Errorf(at, "%s", problem)
		}
		if !nested {
			if err := checkAction(at, m.Value); err != nil {
				return err
			}
		}
		for _, p := range patterns {
			if err := checkAction(jsonc.Key(at, p.Name), p.Value); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkAction(path string, v jsonc.Value) error {
	if s, _ := v.Text(); !slices.Contains(actions, s) {
		return v.Errorf(path, "is %s; it must be %s", v.Describe(), oneOf(actions))
	}
	return nil
}

// rulesOf turns permissions into rules, in the order of the file.
func rulesOf(v jsonc.Value) []bgagent.Permission {
	var out []bgagent.Permission
	members, _ := v.Members()
	for _, m := range members {
		patterns, nested := m.Value.Members()
		if !nested {
			action, _ := m.Value.Text()
			out = append(out, bgagent.Permission{Name: m.Name, Pattern: "*", Action: bgagent.PermissionAction(action)})
		}
		for _, p := range patterns {
			action, _ := p.Value.Text()
			out = append(out, bgagent.Permission{Name: m.Name, Pattern: p.Name, Action: bgagent.PermissionAction(action)})
		}
	}
	return out
}

// formatRules returns the rules as they would be written in a file. If there are no rules, it
// returns false.
func formatRules(rules []bgagent.Permission) (string, bool) {
	var b strings.Builder
	for i := 0; i < len(rules); {
		name, from := rules[i].Name, i
		for i < len(rules) && rules[i].Name == name {
			i++
		}
		if from > 0 {
			b.WriteString(", ")
		}
		if group := rules[from:i]; len(group) == 1 && group[0].Pattern == "*" {
			fmt.Fprintf(&b, "%q: %q", name, group[0].Action)
		} else {
			fmt.Fprintf(&b, "%q: {%s}", name, patterns(group))
		}
	}
	return "{" + b.String() + "}", len(rules) > 0
}

func patterns(rules []bgagent.Permission) string {
	out := make([]string, len(rules))
	for i, r := range rules {
		out[i] = fmt.Sprintf("%q: %q", r.Pattern, r.Action)
	}
	return strings.Join(out, ", ")
}
