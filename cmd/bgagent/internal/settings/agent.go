package settings

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/demo"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/fileerror"
	"github.com/bgagent/bgagent/internal/jsonc"
)

// Agent is a configured agent. Its kind decides which of the fields after Permissions
// are used.
type Agent struct {
	Name        string
	Kind        Kind
	Description string
	Model       string
	Directory   string // absolute, or empty
	Permissions []bgagent.Permission

	Remote       string // name of the demo agent, or of the agent on the server
	Preset       string
	Command      []string
	Args         []string
	Env          []string
	Profile      string
	Format       string
	LeaveRetries bool
	Mode         string
	Auth         string
	Files        string
	Terminals    bool
	URL          string
	Username     string
	PasswordEnv  string

	origins map[string]bgagent.Origin // by key; the key "" holds the origin of the agent itself
}

// Field is a key that is set for an agent, with its value and origin.
type Field struct {
	Key    string
	Value  string // as it would be written in a file
	Origin bgagent.Origin
}

// Origin returns where the agent's key was set. For an empty key, it returns where the agent was named. The
// result is zero if the key was not set.
func (a Agent) Origin(key string) bgagent.Origin { return a.origins[key] }

// Path returns the full name of one of the agent's keys, for error messages.
func (a Agent) Path(name string) string {
	path := jsonc.Key("agents", a.Name)
	if name == "" {
		return path
	}
	return jsonc.Key(path, name)
}

// Errorf returns an error about one of the agent's keys, with the key's place in the file.
func (a Agent) Errorf(key, format string, args ...any) error {
	o, ok := a.origins[key]
	if !ok {
		o = a.origins[""]
	}
	return fileerror.At(o, a.Path(key), format, args...)
}

// Fields returns the keys that are set, in the order of the documentation. The
// values of environment variables are left out.
func (a Agent) Fields() []Field {
	var out []Field
	for i := range keys {
		k := &keys[i]
		if v, ok := a.value(k); ok {
			o, set := a.origins[k.name]
			if !set {
				o = a.origins[""]
			}
			out = append(out, Field{k.name, v, o})
		}
	}
	return out
}

// value returns the value of a key as it would be written in a file, and whether the key is set.
func (a *Agent) value(k *key) (string, bool) {
	var v any
	switch {
	case k.name == "kind":
		v = a.Kind
	case k.shape == shapeText:
		if v = *a.text(k.name); v == "" {
			return "", false
		}
	case k.shape == shapeTexts:
		list := slices.Clone(*a.texts(k.name))
		for i := range list {
			if name, _, set := strings.Cut(list[i], "="); set && k.name == "env" {
				list[i] = name + "=…" // the value can be secret, and users might publish this output
			}
		}
		if v = list; len(list) == 0 {
			return "", false
		}
	case k.shape == shapeBool:
		is := *a.flag(k.name)
		if v = is; !is {
			return "", false
		}
	default:
		return formatRules(a.Permissions)
	}
	b, err := json.Marshal(v)
	if err != nil {
		panic("settings: bug: a string cannot be written: " + err.Error())
	}
	return string(b), true
}

// flag returns the field for a key whose value is true or false.
func (a *Agent) flag(key string) *bool {
	return map[string]*bool{"terminals": &a.Terminals, "leaveRetries": &a.LeaveRetries}[key]
}

// text returns the field for a key whose value is a string. The method "texts" is the same for a key whose
// value is a list.
func (a *Agent) text(key string) *string {
	return map[string]*string{
		"description": &a.Description, "model": &a.Model, "directory": &a.Directory,
		"agent": &a.Remote, "preset": &a.Preset, "profile": &a.Profile, "format": &a.Format,
		"mode": &a.Mode, "auth": &a.Auth, "files": &a.Files,
		"url": &a.URL, "username": &a.Username, "passwordEnv": &a.PasswordEnv,
	}[key]
}

func (a *Agent) texts(key string) *[]string {
	return map[string]*[]string{"command": &a.Command, "args": &a.Args, "env": &a.Env}[key]
}

// set stores the value of a key in the key's field. The shape of the value has already been
// checked.
func (a *Agent) set(k *key, v jsonc.Value) {
	switch k.shape {
	case shapeText:
		s, _ := v.Text()
		if k.name == "kind" {
			a.Kind = Kind(s)
			return
		}
		*a.text(k.name) = s
	case shapeTexts:
		*a.texts(k.name) = textsOf(v)
	case shapeBool:
		*a.flag(k.name), _ = v.Bool()
	case shapeRules:
		a.Permissions = rulesOf(v)
	}
}

// resolve creates an agent from its merged keys and checks that the keys fit together.
func resolve(name string, m *merged) (Agent, []error) {
	a := Agent{Name: name, origins: map[string]bgagent.Origin{"": m.at}}
	for i := range keys {
		if v, ok := m.values[keys[i].name]; ok {
			a.origins[keys[i].name] = bgagent.Origin(v.At())
			a.set(&keys[i], v.Value)
		}
	}
	if a.Kind == "" {
		return a, []error{a.Errorf("", "has no kind; write %s", `"kind": `+oneOf(kinds))}
	}
	var errs []error
	fail := func(key, format string, args ...any) { errs = append(errs, a.Errorf(key, format, args...)) }
	for i := range keys {
		if k := &keys[i]; a.origins[k.name] != (bgagent.Origin{}) && !k.has(a.Kind) {
			fail(k.name, "is not for agents of the kind %s, which have %s; remove it, or change the kind", a.Kind, strings.Join(keysOf(a.Kind), ", "))
		}
	}
	if need := required[a.Kind]; need != "" && a.origins[need] == (bgagent.Origin{}) {
		fail("", "is of the kind %s and has no %s; %s", a.Kind, need, remedies[a.Kind])
	}
	a.checkKind(fail)
	if len(a.Command) > 0 {
		if err := inFile(&a.Command[0], a.origins["command"].File); err != nil {
			fail("command", "%s", err)
		}
	}
	if err := a.absolute(); err != nil {
		fail("directory", "%s", err)
	}
	return a, errs
}

// The variable "remedies" holds, for each kind, advice on how to write the required key.
var remedies = map[Kind]string{
	Command:  `write "preset": ` + oneOf(presets),
	ACP:      `write, for example, "command": ["opencode", "acp"]`,
	Opencode: `write, for example, "url": "http://127.0.0.1:4096"`,
}

// checkKind checks the keys that depend on the kind.
func (a *Agent) checkKind(fail func(key, format string, args ...any)) {
	switch a.Kind {
	case InProc:
		a.Remote = cmp.Or(a.Remote, a.Name)
		if !slices.Contains(demo.Names(), a.Remote) {
			fail("agent", "is %q, but the demo agents are %s; name one of them with \"agent\"", a.Remote, strings.Join(demo.Names(), ", "))
		}
	case Command:
		a.checkCommand(fail)
	case Opencode:
		a.Remote = cmp.Or(a.Remote, a.Name)
		if v := a.PasswordEnv; v != "" && os.Getenv(v) == "" {
			fail("passwordEnv", "names the environment variable %s, which is not set; set it to the server's password", v)
		}
	}
}

func (a *Agent) checkCommand(fail func(key, format string, args ...any)) {
	generic := a.Preset == "generic"
	if !generic && a.Format != "" {
		fail("format", "is for the preset generic only; remove it")
	}
	if !generic {
		return
	}
	if len(a.Command) == 0 {
		fail("", `has the preset generic and no command; write, for example, "command": ["my-agent", "--quiet"]`)
	}
	for _, key := range []string{"model", "profile"} {
		if *a.text(key) != "" {
			fail(key, "cannot be passed on by the preset generic; remove it, or name it in args")
		}
	}
}

// inFile makes the name of a program absolute if it is a path. A relative path is relative to the
// file's folder.
func inFile(program *string, file string) error {
	if !strings.ContainsAny(filepath.ToSlash(*program), "/") {
		return nil
	}
	path, err := pathIn(*program, file)
	if err == nil {
		*program = path
	}
	return err
}

// pathIn returns the absolute form of a path from a file. A path that begins with ~/ is in the home
// directory.
func pathIn(path, file string) (string, error) {
	if rest, ok := strings.CutPrefix(filepath.ToSlash(path), "~/"); ok || path == "~" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("is %q, but there is no home directory: %w", path, err)
		}
		return filepath.Join(home, strings.TrimPrefix(rest, "~")), nil
	}
	if filepath.IsAbs(path) {
		return path, nil
	}
	file, err := filepath.Abs(file)
	if err != nil {
		return "", err
	}
	return filepath.Join(filepath.Dir(file), path), nil
}

// The method "absolute" makes the directory absolute. It also checks that the directory exists, except for
// agents of the kind opencode.
func (a *Agent) absolute() error {
	if a.Directory == "" {
		return nil
	}
	dir, err := pathIn(a.Directory, a.origins["directory"].File)
	if err != nil {
		return err
	}
	a.Directory = dir
	if a.Kind == Opencode { // the server can be on another machine, so the directory cannot be checked here
		return nil
	}
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("is %s, which does not exist; make it, or name another", dir)
	case err != nil:
		return fmt.Errorf("cannot be used: %w", err)
	case !info.IsDir():
		return fmt.Errorf("is %s, which is not a directory", dir)
	}
	return nil
}
