package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/bgagent/bgagent/cmd/bgagent/internal/results"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/settings"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/tasklist"
)

// job is the input of the command "bgagent run".
type job struct {
	tasks []tasklist.Task
	open  func() (*results.Folder, error)

	// The folder and the index of the earlier run that this run resumes; zero if this
	// is a new run.
	folder *results.Folder
	index  results.Index
}

// close closes the folder of the earlier run, if there is one.
func (j *job) close() error {
	if j.folder == nil {
		return nil
	}
	return j.folder.Close()
}

// The method "input" reads the configuration and the list. The error reports the problems of both.
func (c *runCmd) input(all *cli) (*settings.Settings, *job, error) {
	set, wrong := all.settings()
	if wrong != nil && (c.List == "" && c.Resume == "" || c.List == "-") {
		return nil, nil, wrong // no list is checked: the command line names none, or the user would have to type it on standard input
	}
	if wrong == nil {
		sayFiles(set)
	}
	var known []string // names of the agents; nil if they are unknown
	if set != nil {
		if c.List == "" && c.Resume == "" {
			set.Agents = settings.Demo()
		}
		known = append([]string{}, set.Names()...)
	}
	j, err := c.job(known)
	var e *exitError
	switch {
	case errors.As(err, &e) && e.Code != exitInput:
		return nil, nil, err
	case err != nil || wrong != nil:
		problems := []error{reasonOf(wrong), reasonOf(err)}
		if j != nil {
			problems = append(problems, j.close())
		}
		return nil, nil, &exitError{exitInput, errors.Join(problems...)}
	}
	if err := fits(len(j.tasks), set); err != nil {
		return nil, nil, &exitError{exitInput, errors.Join(err, j.close())}
	}
	return set, j, nil
}

// reasonOf returns the error without its exit code.
func reasonOf(err error) error {
	if e, ok := err.(*exitError); ok {
		return e.Err
	}
	return err
}

// The method "job" reads the list, or the folder of an earlier run.
func (c *runCmd) job(known []string) (*job, error) {
	if c.Resume == "" {
		tasks, err := c.read(known)
		return &job{tasks: tasks, open: c.newFolder}, err
	}
	folder, index, list, err := results.Resume(c.Resume)
	if err != nil {
		return nil, &exitError{exitInput, err}
	}
	j := &job{folder: folder, index: index, open: func() (*results.Folder, error) { return folder, nil }}
	j.tasks, err = tasklist.Saved(filepath.Join(c.Resume, results.ListName), list, known)
	if err == nil && len(j.tasks) != len(index.Tasks) {
		err = fmt.Errorf("%s and %s in %s do not belong together: one has %d tasks and the other %d", results.ListName, results.IndexName, c.Resume, len(j.tasks), len(index.Tasks))
	}
	if err != nil {
		return nil, &exitError{exitInput, errors.Join(err, folder.Close())}
	}
	return j, nil
}

// read reads the list.
func (c *runCmd) read(known []string) ([]tasklist.Task, error) {
	name, base, data := c.List, ".", sample
	var err error
	switch c.List {
	case "":
		name = "tasks.jsonc"
	case "-":
		name = "standard input"
		if data, err = io.ReadAll(io.LimitReader(os.Stdin, tasklist.MaxSize+1)); err != nil {
			return nil, &exitError{exitInput, fmt.Errorf("reading standard input: %w", err)}
		}
	default:
		base = filepath.Dir(c.List)
		if data, err = readList(c.List); err != nil {
			return nil, &exitError{exitInput, fmt.Errorf("reading the list of tasks: %w", err)}
		}
	}
	if base, err = filepath.Abs(base); err != nil {
		return nil, err
	}
	tasks, err := tasklist.Parse(name, data, base, known)
	if err != nil {
		return nil, &exitError{exitInput, err}
	}
	return tasks, nil
}

// readList reads a list, up to one byte more than the size limit. The additional byte lets the
// parser reject a list that is too large.
func readList(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, tasklist.MaxSize+1))
}

// newFolder creates and opens the folder for the results.
func (c *runCmd) newFolder() (*results.Folder, error) {
	dir := c.Output
	switch {
	case dir != "":
	case c.List == "":
		var err error
		if dir, err = os.MkdirTemp("", "bgagent-results-"); err != nil {
			return nil, fmt.Errorf("creating the folder for the results: %w", err)
		}
	default:
		folder, err := results.OpenNew("bgagent-results-" + time.Now().Format("20060102-150405"))
		if err != nil {
			return nil, &exitError{exitInput, err}
		}
		return folder, nil
	}
	folder, err := results.Open(dir)
	if err != nil {
		return nil, &exitError{exitInput, err}
	}
	return folder, nil
}
