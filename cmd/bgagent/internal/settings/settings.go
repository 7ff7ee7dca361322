// Package settings reads the program's configuration: one file for the user and
// one for the project, each with limits and agents.
//
// The limits are in the library's section background_task, which [bgagent.LoadConfig] reads. The
// agents are listed next to this section:
//
//	{
//	  "$schema": "…/bgagent.schema.json",
//	  "background_task": { "providerConcurrency": { "anthropic": 3 } },
//	  "agents": {
//	    "explore": { "kind": "command", "preset": "codex", "permissions": { "edit": "deny" } }
//	  }
//	}
package settings

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/fileerror"
	"github.com/bgagent/bgagent/inproc"
	"github.com/bgagent/bgagent/internal/jsonc"
)

// Settings is the merged and checked content of the configuration files.
type Settings struct {
	Files    []string           // files that were read, the user's before the project's
	Limits   bgagent.FileConfig // the section "background_task"
	Agents   []Agent            // by name
	Notify   []string           // the program that runs for notifications, and its arguments; nil if there is none
	Cluster  *Cluster           // nil if there is none
	Detected bool               // there was no file, so the settings are those of Detect

	notifyAt bgagent.Origin
}

// NotifyOrigin returns where Notify was set.
func (s *Settings) NotifyOrigin() bgagent.Origin { return s.notifyAt }

// Agent returns the agent with the name, and whether there is one.
func (s *Settings) Agent(name string) (Agent, bool) {
	for _, a := range s.Agents {
		if a.Name == name {
			return a, true
		}
	}
	return Agent{}, false
}

// Names returns the agents' names.
func (s *Settings) Names() []string {
	out := make([]string, len(s.Agents))
	for i, a := range s.Agents {
		out[i] = a.Name
	}
	return out
}

// File names.
const (
	userFile = "bgagent.jsonc"

	// ProjectFile is the name of the project's file.
	ProjectFile = ".bgagent.jsonc"
)

// UserFile returns the path of the user's file, which does not have to exist.
func UserFile() (string, error) {
	base, err := os.UserConfigDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(base, "bgagent", userFile), nil
}

// Find returns the files that exist, in the order that [Load] needs: bgagent/bgagent.jsonc in the user's
// configuration folder, and the first .bgagent.jsonc in dir or above it. It is not an error if there is no
// file. If another user owns a file or could change it, Find returns an error, because the programs that a
// file names are run.
func Find(dir string) ([]string, error) {
	var out []string
	if path, err := UserFile(); err == nil { // the program might be a service without a home directory
		if there, err := exists(path); err != nil {
			return nil, err
		} else if there {
			if err := trusted(path); err != nil {
				return nil, err
			}
			out = append(out, path)
		}
	}
	path, err := FindProject(dir)
	if path != "" {
		out = append(out, path)
	}
	return out, err
}

// FindProject returns the first .bgagent.jsonc in dir or above it, or "" if there is none. Like
// [Find], it returns an error if another user could change the file.
func FindProject(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("looking for %s: %w", ProjectFile, err)
	}
	for {
		path := filepath.Join(dir, ProjectFile)
		if there, err := exists(path); err != nil {
			return "", err
		} else if there {
			return path, trusted(path)
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", nil
		}
		dir = up
	}
}

// The function "exists" reports whether there is a file at the path. It does not follow links,
// because a link whose target is missing is a mistake to report, not an absent file.
func exists(path string) (bool, error) {
	_, err := os.Lstat(path)
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ENOTDIR): // for example, HOME is /dev/null
		return false, nil
	}
	return false, &bgagent.ConfigFileError{File: path, Problem: "cannot be examined: " + err.Error(), Err: err}
}

// Load reads the files and merges them key by key. Later files override earlier ones, and null removes a
// value from an earlier file. Load returns the errors of all files together, each a
// [*bgagent.ConfigFileError]. If only the limits have errors, Load returns the settings together with the
// error. After any other error, the settings are nil. If no files are named, Load returns the settings of
// [Detect].
func Load(paths ...string) (*Settings, error) {
	if len(paths) == 0 {
		return Detect(exec.LookPath), nil
	}
	limits, limitsErr := bgagent.LoadConfig(paths...)
	mine, ownErr := loadOwn(paths, limits.Ignored())
	s := &Settings{Files: paths, Limits: limits, Agents: mine.agents, Notify: mine.notify, notifyAt: mine.notifyAt, Cluster: mine.cluster}
	if limitsErr == nil {
		limitsErr = s.checkLimits()
	}
	err := once(limitsErr, ownErr)
	if ownErr != nil {
		return nil, err
	}
	return s, err
}

// The function "once" joins errors and drops duplicates. The library and this package read the same
// files, so both can report the same error.
func once(errs ...error) error {
	var out []error
	said := map[string]bool{}
	var add func(err error)
	add = func(err error) {
		var place *bgagent.ConfigFileError
		if joined, ok := err.(interface{ Unwrap() []error }); ok && !(errors.As(err, &place) && error(place) == err) {
			for _, e := range joined.Unwrap() {
				add(e)
			}
			return
		}
		key := err.Error()
		if errors.As(err, &place) && place.Key == "" { // an error about the whole file
			key = fmt.Sprintf("%s:%d", place.File, place.Line)
		}
		if !said[key] {
			said[key] = true
			out = append(out, err)
		}
	}
	for _, err := range errs {
		if err != nil {
			add(err)
		}
	}
	return errors.Join(out...)
}

// checkLimits lets the library check the combination of all limits, so that contradictory limits are refused
// before any task starts.
func (s *Settings) checkLimits() error {
	var cfg bgagent.Config
	s.Limits.Apply(&cfg)
	nobody := inproc.New(map[string]inproc.Agent{"nobody": func(context.Context, *inproc.Turn) (string, error) { return "", nil }})
	m, err := bgagent.New(nobody, cfg)
	if err == nil {
		return m.Close(context.Background())
	}
	var input *bgagent.InputError
	if !errors.As(err, &input) {
		return fmt.Errorf("checking background_task: %w", err)
	}
	key := fileNames.Replace(input.Field)
	at := bgagent.Origin{File: s.Files[len(s.Files)-1]}
	for _, setting := range s.Limits.Settings() {
		if setting.Key == key && setting.Origin != (bgagent.Origin{}) {
			at = setting.Origin
		}
	}
	return fileerror.At(at, jsonc.Key("background_task", key), "%s", fileNames.Replace(input.Problem))
}

// fileNames replaces the names of Go fields with keys of the configuration file. It covers the fields whose
// values can contradict each other.
var fileNames = strings.NewReplacer(
	"Config.StaleTimeout", "staleTimeoutMs", "Config.TimeToLive", "taskTtlMs",
	"Config.PollInterval", "pollIntervalMs", "Config.HostUnreachable", "hostUnreachableMs",
	"Config.NoticeWindow", "noticeWindowMs", "Config.NoticeMaxWait", "noticeMaxWaitMs",
)
