package command

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bgagent/bgagent"
)

// The formats of the sessions that the programs store are undocumented. A reader therefore uses
// only data that it understands. If it finds other data, it sets Stored.Unclear.

// The function "here" returns a preset's Look function. program is the name of the preset's
// program, and look reads the program's files on this machine. If another executable runs the
// program, such as ssh, docker, sudo or a script, the program might have other files, and the
// client might not have terminated all of its processes. In that case, a session or prompt that is
// not found might still exist.
func here(program string, look func(context.Context, Lookup) (Stored, error)) func(context.Context, Lookup) (Stored, error) {
	return func(ctx context.Context, l Lookup) (Stored, error) {
		st, err := look(ctx, l)
		if runsHere(l.Command, program) {
			return st, err
		}
		st.elsewhere = true
		if errors.Is(err, bgagent.ErrNoSession) {
			err = fmt.Errorf("its command %s might keep the session in another place: %v", l.Command[0], err)
		}
		return st, err
	}
}

// runners are executables that run a JavaScript program on the same machine, as the same user and in
// the same environment.
var runners = []string{"node", "npx", "bun", "bunx"}

// runsHere reports whether the command runs the program directly or through one of the runners.
func runsHere(command []string, program string) bool {
	name := func(path string) string {
		return strings.TrimSuffix(strings.TrimSuffix(strings.ToLower(filepath.Base(path)), ".exe"), ".js")
	}
	if len(command) == 0 || name(command[0]) == program {
		return len(command) > 0
	}
	return slices.Contains(runners, name(command[0])) && slices.ContainsFunc(command[1:], func(arg string) bool {
		return strings.Contains(strings.ToLower(arg), program)
	})
}

// variable returns the value of a variable in an environment. It returns "" if the variable is not
// set.
func variable(env []string, name string) string {
	for _, kv := range env {
		if value, ok := strings.CutPrefix(kv, name+"="); ok {
			return value
		}
	}
	return ""
}

// folder returns the path of the program's folder. If the variable with the given name is set, its
// value is the path. Otherwise, the folder is in the user's home directory, and inHome is its name
// there. If the folder does not exist, the program probably keeps its sessions in another place. In
// this case, the function "folder" returns an error that does not match ErrNoSession.
func folder(env []string, name, inHome string) (string, error) {
	dir := variable(env, name)
	if home := variable(env, "HOME"); dir == "" && home != "" {
		dir = filepath.Join(home, inHome)
	}
	if dir == "" {
		return "", errors.New("neither " + name + " nor HOME is set")
	}
	if info, err := os.Stat(dir); err != nil {
		return "", fmt.Errorf("its folder cannot be read: %w", err)
	} else if !info.IsDir() {
		return "", errors.New(dir + " is not a folder")
	}
	return dir, nil
}

// The function "match" returns the files below dir that match the pattern. Each element of the
// pattern matches the names on one level. If a folder on one of these levels cannot be read, the
// function returns an error. If no file matches the pattern, the error matches ErrNoSession.
func match(dir string, pattern ...string) ([]string, error) {
	paths := []string{dir}
	for _, part := range pattern {
		var next []string
		for _, p := range paths {
			entries, err := os.ReadDir(p)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				if info, statErr := os.Stat(p); statErr == nil && !info.IsDir() {
					continue // p is a file, not a folder
				}
				return nil, err
			}
			for _, e := range entries {
				if ok, _ := filepath.Match(part, e.Name()); ok {
					next = append(next, filepath.Join(p, e.Name()))
				}
			}
		}
		paths = next
	}
	if len(paths) == 0 {
		return nil, fmt.Errorf("there is no file %s: %w", filepath.Join(append([]string{dir}, pattern...)...), bgagent.ErrNoSession)
	}
	return paths, nil
}

// isName reports whether an id can safely be used as a command-line argument and as part of a file name
// or of a pattern.
func isName(id string) bool {
	return id != "" && id[0] != '-' && strings.IndexFunc(id, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_')
	}) < 0
}

// errName is the error for an id that isName rejects.
var errName = errors.New("the id of the session is not understood")

// eachLine calls f for every non-blank line of a file, until f returns false. If the last line is
// not terminated, the program was killed while it wrote the line. eachLine does not pass this
// incomplete line to f, and the result "whole" is false.
func eachLine(path string, f func(line []byte) bool) (whole bool, err error) {
	file, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer func() { _ = file.Close() }()
	in := bufio.NewReaderSize(file, 64<<10)
	for {
		line, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return len(line) == 0, nil
		}
		if err != nil {
			return false, err
		}
		if line = bytes.TrimSpace(line); len(line) > 0 && !f(line) {
			return true, nil
		}
	}
}
