// Package tasklist reads lists of tasks:
//
//	[
//	  { "agent": "codex", "prompt": "Find the code that …" },
//	  { "agent": "gemini", "prompt": "Read …", "description": "library", "directory": "docs" },
//	]
//
// A list can also be the member "tasks" of an object.
package tasklist

import (
	"bytes"
	"cmp"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/fileerror"
	"github.com/bgagent/bgagent/internal/jsonc"
)

// MaxSize is the maximum size of a list in bytes.
const MaxSize = 16 << 20

// Task is one entry of a list.
type Task struct {
	Agent       string `json:"agent"`
	Prompt      string `json:"prompt"`
	Description string `json:"description"`         // short title; made from the prompt if the list contains no title
	Model       string `json:"model,omitempty"`     // empty if the agent's model applies
	Directory   string `json:"directory,omitempty"` // absolute; empty if the agent's directory applies
}

// The variable "names" lists a task's keys.
var names = []string{"agent", "prompt", "promptFile", "description", "model", "directory"}

// Schema is the JSON Schema (draft 2020-12) of a list.
//
//go:embed tasks.schema.json
var Schema []byte

// Format returns a list in the form that [Parse] and [Saved] read.
func Format(tasks []Task) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(struct {
		Tasks []Task `json:"tasks"`
	}{tasks})
	return b.Bytes(), err
}

// Parse reads a list. Directories and prompt files are relative to the folder "base". The argument "known"
// holds the names of the allowed agents; nil allows all agents. The argument "name" is the list's name in
// errors. Parse returns all errors together, each a [*bgagent.ConfigFileError] with its place. If there is an
// error, no tasks are returned.
func Parse(name string, data []byte, base string, known []string) ([]Task, error) {
	return parse(name, data, base, known, MaxSize)
}

// Saved reads a list that [Format] wrote. Unlike Parse, it does not limit the size.
func Saved(name string, data []byte, known []string) ([]Task, error) {
	return parse(name, data, "/", known, len(data))
}

func parse(name string, data []byte, base string, known []string, size int) ([]Task, error) {
	if len(data) > size {
		return nil, fileerror.At(bgagent.Origin{File: name, Line: 1, Column: 1}, "", "is larger than the maximum of %d bytes; divide it", size)
	}
	root, err := jsonc.Parse(name, data, func(at jsonc.Origin, key, problem string) error {
		switch {
		case problem == jsonc.Empty:
			problem += "; write a list of tasks like " + example
		case strings.HasSuffix(problem, "after top-level value"):
			problem += "; put all tasks into one list like " + example
		}
		return fileerror.Of(at, key, problem)
	})
	if err != nil {
		return nil, err
	}
	p := &parser{base: base, known: known}
	tasks := p.root(root)
	if len(p.errs) > 0 {
		return nil, errors.Join(p.errs...)
	}
	return tasks, nil
}

type parser struct {
	base  string
	known []string
	errs  []error
}

func (p *parser) fail(err error) { p.errs = append(p.errs, err) }

// example is a list for error messages.
const example = `[ { "agent": "codex", "prompt": "…" } ]`

func (p *parser) root(v jsonc.Value) (out []Task) {
	path, list := "", v
	if members, ok := v.Members(); ok {
		path, list = "tasks", jsonc.Value{}
		found := false
		for _, m := range members {
			switch {
			case m.Name == "tasks" && found:
				p.fail(m.Errorf(path, "appears twice; merge the two lists"))
			case m.Name == "tasks":
				list, found = m.Value, true
			case m.Name != "$schema":
				p.fail(m.Errorf(jsonc.Key("", m.Name), `is not a known key; the list belongs under "tasks"`))
			}
		}
		if !found {
			p.fail(v.Errorf("", `has no tasks; write { "tasks": %s }`, example))
			return nil
		}
	}
	elements, ok := list.Elements()
	switch {
	case !ok:
		p.fail(list.Errorf(path, "is %s; it must be a list of tasks like %s", list.Describe(), example))
	case len(elements) == 0:
		p.fail(list.Errorf(path, "is an empty list; name at least one task, like %s", example))
	}
	for i, e := range elements {
		out = append(out, p.task(fmt.Sprintf("%s[%d]", path, i), e))
	}
	return out
}

func (p *parser) task(path string, v jsonc.Value) Task {
	var t Task
	members, ok := v.Members()
	if !ok {
		p.fail(v.Errorf(path, `is %s; it must be a task like { "agent": "codex", "prompt": "…" }`, v.Describe()))
		return t
	}
	promptFile := ""
	fields := map[string]*string{"agent": &t.Agent, "prompt": &t.Prompt, "promptFile": &promptFile, "description": &t.Description, "model": &t.Model, "directory": &t.Directory}
	seen := map[string]jsonc.Member{}
	for _, m := range members {
		key := jsonc.Key(path, m.Name)
		text, isText := m.Value.Text()
		first, twice := seen[m.Name]
		switch {
		case fields[m.Name] == nil:
			p.fail(m.Errorf(key, "is not a known key; the keys of a task are %s", strings.Join(names, ", ")))
		case twice:
			p.fail(m.Errorf(key, "appears twice, first in line %d; keep one of the two", first.At().Line))
		case !isText:
			p.fail(m.Value.Errorf(key, "is %s; it must be a string", m.Value.Describe()))
		default:
			*fields[m.Name] = text
		}
		if !twice {
			seen[m.Name] = m
		}
	}
	if m, ok := seen["promptFile"]; ok && promptFile != "" {
		t.Prompt = p.read(path, promptFile, m, seen)
	}
	p.check(path, v, &t, seen)
	return t
}

// read returns the content of a prompt file.
func (p *parser) read(path, name string, m jsonc.Member, seen map[string]jsonc.Member) string {
	fail := func(format string, args ...any) string {
		p.fail(m.Value.Errorf(jsonc.Key(path, m.Name), format, args...))
		return ""
	}
	if _, both := seen["prompt"]; both {
		return fail("is next to a prompt; keep one of the two")
	}
	if !filepath.IsAbs(name) {
		name = filepath.Join(p.base, name)
	}
	f, err := os.Open(name)
	if err != nil {
		return fail("is %s, which cannot be read (%v); write the file, or name another", name, reason(err))
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	b = bytes.TrimPrefix(b, []byte("\ufeff"))
	switch {
	case err != nil:
		return fail("is %s, which cannot be read (%v); name another", name, reason(err))
	case len(b) > MaxSize:
		return fail("is %s, which is larger than %d bytes; shorten it", name, MaxSize)
	case !utf8.Valid(b):
		return fail("is %s, which is not UTF-8 text; save it as UTF-8", name)
	case len(bytes.TrimSpace(b)) == 0:
		return fail("is %s, which is empty; write what the agent should do", name)
	}
	return string(b)
}

// The function "reason" removes the path from an operating system error, because the caller's message already
// contains the path.
func reason(err error) error {
	var path *os.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// The method "check" checks the values of a task. It sets a missing description and makes the directory
// absolute.
func (p *parser) check(path string, v jsonc.Value, t *Task, seen map[string]jsonc.Member) {
	at := func(key string) jsonc.Value {
		if m, ok := seen[key]; ok {
			return m.Value
		}
		return v
	}
	needed := func(key, value, remedy string) bool {
		switch m, ok := seen[key]; {
		case !ok:
			p.fail(v.Errorf(path, "has no %s; %s", key, remedy))
		case strings.TrimSpace(value) != "":
			return true
		default:
			if _, text := m.Value.Text(); text { // a value of another type has already been reported
				p.fail(m.Value.Errorf(jsonc.Key(path, key), "is empty; %s", remedy))
			}
		}
		return false
	}
	if _, file := seen["promptFile"]; !file {
		needed("prompt", t.Prompt, "say what the agent should do")
	} else if m := seen["promptFile"]; t.Prompt == "" {
		if text, ok := m.Value.Text(); ok && strings.TrimSpace(text) == "" {
			p.fail(m.Value.Errorf(jsonc.Key(path, "promptFile"), "is empty; name the file with the prompt"))
		}
	}
	if needed("agent", t.Agent, p.remedy()) && p.known != nil && !slices.Contains(p.known, t.Agent) {
		p.fail(at("agent").Errorf(jsonc.Key(path, "agent"), "names the agent %q, which does not exist; %s", t.Agent, p.agents()))
	}
	t.Description = cmp.Or(oneLine(t.Description), oneLine(t.Prompt))
	if t.Directory == "" {
		return
	}
	if !filepath.IsAbs(t.Directory) {
		t.Directory = filepath.Join(p.base, t.Directory)
	}
	if info, err := os.Stat(t.Directory); err != nil || !info.IsDir() {
		p.fail(at("directory").Errorf(jsonc.Key(path, "directory"), "is %s, which is not a directory; make it, or name another", t.Directory))
	}
}

func (p *parser) remedy() string {
	if p.known == nil {
		return "name one of those in the configuration"
	}
	if len(p.known) == 0 {
		return noAgents
	}
	return "name one of " + strings.Join(p.known, ", ")
}

const noAgents = "no agent is configured; bgagent init writes a configuration file with those on PATH"

func (p *parser) agents() string {
	if len(p.known) == 0 {
		return noAgents
	}
	return "the agents are " + strings.Join(p.known, ", ")
}

// maxTitle is the maximum number of characters in a title. A longer title is cut.
const maxTitle = 72

func oneLine(s string) string {
	s = strings.Join(strings.FieldsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }), " ")
	if r := []rune(s); len(r) > maxTitle {
		return strings.TrimSpace(string(r[:maxTitle-1])) + "…"
	}
	return s
}
