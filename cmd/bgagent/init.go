package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/bgagent/bgagent/cmd/bgagent/internal/settings"
	"github.com/bgagent/bgagent/internal/cleantext"
)

// initCmd is the command "bgagent init".
type initCmd struct {
	User bool `help:"Write your own file, which applies in all projects, instead of the project's."`
}

// Help implements kong's help provider.
func (initCmd) Help() string {
	return `Writes a configuration file with the agent programs that are on PATH: .bgagent.jsonc here or, with --user, bgagent/bgagent.jsonc in your configuration folder. With --config FILE, it writes that file. An existing file is never changed.

Exit codes: 0 the file was written; 1 it could not be written; 2 invalid input, or the file exists.`
}

// Run implements the subcommand.
func (c initCmd) Run(all *cli) error {
	path := all.Config
	switch {
	case path != "" && c.User:
		return &exitError{exitInput, errors.New("--config and --user name two files; leave one of them out")}
	case c.User:
		var err error
		if path, err = settings.UserFile(); err != nil {
			return &exitError{exitInput, fmt.Errorf("looking for your configuration folder: %w; set one of them", err)}
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
	case path == "":
		path = settings.ProjectFile
	}
	found := settings.Detect(exec.LookPath)
	// The file gets its name only when it is complete, and an existing file is not replaced.
	part := fmt.Sprintf("%s.part-%d", path, os.Getpid())
	defer os.Remove(part)
	switch err := os.WriteFile(part, initialFile(found), 0o644); {
	case errors.Is(err, fs.ErrNotExist):
		return &exitError{exitInput, fmt.Errorf("writing %s: there is no folder %s; make it, or name another file", path, filepath.Dir(path))}
	case err != nil:
		return fmt.Errorf("writing %s: %w", path, unpathed(err))
	}
	switch err := link(part, path); {
	case errors.Is(err, fs.ErrExist):
		return &exitError{exitInput, fmt.Errorf("%s exists, and nothing is overwritten; edit it, or remove it first", path)}
	case err != nil:
		return fmt.Errorf("writing %s: %w", path, err)
	}
	fmt.Fprintf(&stdout, "wrote %s\n", cleantext.Line(path))
	fmt.Fprintln(&stdout, "bgagent agents checks whether each agent can start")
	return nil
}

// The function "link" gives a file an additional name. If the file system does not support links, it copies
// the file.
func link(from, to string) error {
	err := os.Link(from, to)
	if err == nil || errors.Is(err, fs.ErrExist) {
		return err
	}
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

// initialFile returns a configuration file with the agents. If no agent program was found, it
// contains the demo agents.
func initialFile(found *settings.Settings) []byte {
	programs := map[bool][]settings.Agent{}
	for _, a := range found.Agents {
		programs[a.Kind == settings.Command] = append(programs[a.Kind == settings.Command], a)
	}
	var b bytes.Buffer
	b.WriteString("{\n")
	b.WriteString("  // bgagent config prints every value that applies. docs/program.md describes all keys.\n")
	fmt.Fprintf(&b, "  \"$schema\": %q,\n", settings.SchemaURL)
	b.WriteString("  \"background_task\": {\n")
	b.WriteString("    // \"totalConcurrency\": 5, // how many tasks work at the same time\n")
	b.WriteString("  },\n  \"agents\": {\n")
	if len(programs[true]) == 0 {
		b.WriteString("    // No agent program was found on PATH (codex, claude, gemini, opencode). These demo agents need no model.\n")
	}
	for _, a := range programs[true] {
		fmt.Fprintf(&b, "    // found: %s\n", cleantext.Line(a.Origin("").File))
		fmt.Fprintf(&b, "    %s: { \"kind\": \"command\", \"preset\": %s, \"description\": %s },\n", quote(a.Name), quote(a.Preset), quote(a.Description))
	}
	for _, a := range programs[false] {
		if len(programs[true]) == 0 {
			fmt.Fprintf(&b, "    %s: { \"kind\": \"inproc\", \"agent\": %s },\n", quote(a.Name), quote(a.Remote))
		}
	}
	b.WriteString("  },\n}\n")
	return b.Bytes()
}

// quote returns the text as a JSON string.
func quote(text string) string {
	b, _ := json.Marshal(text) // encoding a string never fails
	return string(b)
}
