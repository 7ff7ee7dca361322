package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/control"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/statedir"
	"github.com/bgagent/bgagent/internal/cleantext"
	"github.com/bgagent/bgagent/sqlite"
)

// tasksCmd is the command "bgagent tasks".
type tasksCmd struct {
	All  bool `help:"List all tasks that have ended. Without this flag, only the last ten of each command are listed."`
	JSON bool `name:"json" help:"Print one JSON object per task and line."`
	Kept bool `help:"Read only the state folder, and ask no serve."` // for shell completion, which must not wait for a server
}

// Help implements kong's help provider.
func (tasksCmd) Help() string {
	return `run, mcp and serve keep their tasks in the state folder. This command reads the folder, asks a running serve for the latest state of its tasks, and changes nothing. It can be used while other commands run.

Exit codes: 0 the tasks were listed; 1 some could not be read, or the output could not be written; 2 invalid input.`
}

// fewEnded is the maximum number of ended tasks that are listed per store without --all.
const fewEnded = 10

// keptTask is a task in the output of "bgagent tasks --json".
type keptTask struct {
	Command string       `json:"command"`           // serve, mcp or run
	Path    string       `json:"path"`              // configuration file, working directory or results folder
	Store   string       `json:"store"`             // folder of the store
	Owner   int          `json:"owner"`             // PID of the process that uses the store; 0 if there is none
	Process string       `json:"process,omitempty"` // name of the process in its cluster
	Host    string       `json:"host,omitempty"`    // machine of a cluster's process
	Task    bgagent.Task `json:"task"`
}

// Run implements the subcommand.
func (c tasksCmd) Run(all *cli, stop stops) error {
	folder, err := all.folder()
	if err != nil {
		return err
	}
	stores, err := folder.Stores()
	if err != nil {
		return fmt.Errorf("reading the state folder: %w", err)
	}
	if len(stores) == 0 {
		warn("no tasks are kept in %s", folder.Dir())
		return nil
	}
	if c.Kept {
		stores = slices.DeleteFunc(stores, func(s statedir.Store) bool { return s.Cluster != "" })
	}
	most, width := fewEnded, terminalWidth()
	if c.All {
		most = 0
	}
	return eachView(stop.soft, stores, most, func(v *view) error {
		if !c.Kept {
			v.refresh(stop.soft)
		}
		if c.JSON {
			return v.writeJSON(os.Stdout)
		}
		return v.write(os.Stdout, width)
	})
}

// eachView calls the function "show" with the tasks of each store. At most the given number of ended tasks
// are read per store; 0 means all. If some of a store's tasks cannot be read, eachView continues and returns
// the error at the end. If the function "show" returns an error, eachView returns this error immediately.
//
// If one of a cluster's processes runs on this machine, the tasks of all the cluster's processes are shown.
func eachView(ctx context.Context, stores []statedir.Store, most int, show func(v *view) error) error {
	var problems []error
	seen := map[string]bool{} // the processes of clusters
	for _, s := range stores {
		if s.Cluster != "" {
			views, err := clusterViews(ctx, s, most)
			if err != nil {
				problems = append(problems, err)
			}
			for _, v := range views {
				if key := s.Cluster + " " + v.process; !seen[key] {
					seen[key] = true
					if err := show(v); err != nil {
						return err
					}
				}
			}
			continue
		}
		v, err := openView(s)
		if errors.Is(err, fs.ErrNotExist) {
			continue // no manager has opened the store yet, or the store was removed
		}
		if err == nil {
			err = errors.Join(v.list(most), v.reader.Close())
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("the tasks of %v cannot all be read: %w", s, err))
		}
		if v == nil {
			continue
		}
		if err := show(v); err != nil {
			return err
		}
	}
	return errors.Join(problems...)
}

// view contains a store's tasks and the store's owner.
type view struct {
	statedir.Store
	reader  *sqlite.Reader
	owner   bgagent.StoreOwner // the process that last opened the store
	lives   bool               // whether the owner is alive
	tasks   []bgagent.Task
	due     map[string]bool // ids of the tasks that the next process needs, even if they have ended
	more    bool            // whether the store contains more ended tasks than the view
	process string          // name of the process in its cluster; empty if the store is in the state folder
	takenBy string          // name of the process that has taken over its tasks, or ""
	now     *control.Status // what the running server reported; nil if no server was asked
}

// openView opens the store for reading. The view does not contain tasks yet. The error matches
// [fs.ErrNotExist] if there is no database.
func openView(s statedir.Store) (*view, error) {
	r, err := sqlite.OpenReader(s.Dir)
	if err != nil {
		return nil, err
	}
	v := &view{Store: s, reader: r, due: map[string]bool{}}
	if v.owner, v.lives, err = r.Owner(); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return v, nil
}

// pageSize is the number of ended tasks that are read or deleted in one step.
const pageSize = 500

// The method "list" reads the tasks into the view. The tasks that have not ended come first. The ended tasks
// follow, beginning with the task that was launched last. The argument "most" is the maximum number of ended
// tasks; 0 means no maximum. Tasks that can be read are added even if the method "list" returns an error.
func (v *view) list(most int) error {
	records, err := v.reader.Live(context.Background())
	problems := []error{err}
	places := map[string]int{} // indexes in v.tasks, by task id
	add := func(records []bgagent.StoreRecord) {
		for i := range records {
			t, err := records[i].Task()
			if err != nil {
				problems = append(problems, err)
				continue
			}
			v.due[t.ID] = records[i].Due
			if at, twice := places[t.ID]; twice { // the task ended after the first read
				v.tasks[at] = t
				continue
			}
			places[t.ID] = len(v.tasks)
			v.tasks = append(v.tasks, t)
		}
	}
	add(records)
	q := bgagent.StoreQuery{Limit: pageSize}
	if most > 0 {
		q.Limit = most + 1
	}
	for {
		page, err := v.reader.History(context.Background(), q)
		problems = append(problems, err)
		if most > 0 && len(page) > most {
			page, v.more = page[:most], true
		}
		add(page)
		if len(page) < q.Limit || most > 0 {
			return errors.Join(problems...)
		}
		q.Before = page[len(page)-1].Key
	}
}

// status returns a task's status in the words of "bgagent status", with one exception: a task that waits for
// an answer is always "asking". If the store's owner is dead, a task that has not ended is not running, so
// its status begins with "was".
func (v *view) status(t bgagent.Task) string {
	state, _ := doing(t, time.Now(), 0)
	switch {
	case v.lives && len(t.Questions) > 0:
		return "asking"
	case t.Status.Terminal() || v.lives:
		return state
	}
	return "was " + state
}

// The method "state" describes whether the store's owner is alive. If the owner is dead and some tasks have
// not ended, the text also says what will happen to them.
func (v *view) state() string {
	switch live := len(v.tasks) > 0 && !v.tasks[0].Status.Terminal(); {
	case v.lives:
		return fmt.Sprintf("runs as process %d", v.owner.PID)
	case !live:
		return "has ended"
	case v.process != "":
		return "its process is dead, so its tasks cannot be cancelled until it is back"
	case v.Kind == statedir.Run:
		return "has ended; continue it with: bgagent run --resume " + cleantext.Line(v.Path)
	case v.Kind == statedir.Serve:
		return "has ended; the next one with this configuration continues its tasks"
	default:
		return "has ended; the next one in this project ends its tasks"
	}
}

// write writes the tasks as a table. The argument "width" is the terminal's width; 0 means that there is no
// terminal.
func (v *view) write(w io.Writer, width int) error {
	if len(v.tasks) == 0 && !v.lives {
		return nil
	}
	if _, err := io.WriteString(w, fold(fmt.Sprintf("%s: %s\n", v, v.state()), width)); err != nil {
		return err
	}
	var rows [][]any
	for _, t := range v.tasks {
		took := "-"
		if !t.Started.IsZero() && (v.lives || t.Status.Terminal()) {
			took = t.Duration(time.Now()).Round(time.Second).String()
		}
		rows = append(rows, clean(t.ID, v.status(t), t.Agent, t.Queued.Local().Format(time.DateTime), took, t.Description))
	}
	if err := writeRows(w, rows, 3, width); err != nil || !v.more {
		return err
	}
	_, err := fmt.Fprintln(w, "  (older tasks are listed with --all)")
	return err
}

// writeJSON writes one line of JSON for each task.
func (v *view) writeJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	for _, t := range v.tasks {
		k := keptTask{Command: v.Kind, Path: v.Path, Store: v.Dir, Process: v.process, Task: t}
		if v.process != "" {
			k.Host = v.owner.Host
		}
		if v.lives {
			k.Owner = v.owner.PID
		}
		if err := e.Encode(k); err != nil {
			return err
		}
	}
	return nil
}
