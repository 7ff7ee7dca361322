package dashboard

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/bgagent/bgagent"
)

// Others gives the page access to the tasks of other processes, such as those of a cluster. All calls act on
// behalf of the host. The methods must be safe for concurrent use.
type Others interface {
	// Processes returns the other processes with their tasks, but without the tasks' prompts and results: all
	// tasks that have not ended, and up to the given number of ended tasks of each process. It should return
	// within a few seconds, even if a process does not answer. While a page is open, Processes is called
	// every two seconds, but calls never overlap.
	Processes(ctx context.Context, ended int) ([]Process, error)
	// Read returns a task with its prompt and result. If no other process has the task, the error matches
	// [bgagent.ErrUnknownTask]. This applies to all methods that take an id.
	Read(ctx context.Context, id string) (bgagent.Task, error)
	// Cancel cancels a task, and returns the task as it was right before the cancellation.
	Cancel(ctx context.Context, id, reason string) (bgagent.Task, error)
	// Answer answers a task's question.
	Answer(ctx context.Context, id string, in bgagent.AnswerInput) (bgagent.Question, error)
}

// Process is another process, with what is known about its tasks.
type Process struct {
	Name  string
	Tasks []bgagent.Task

	// Problem says in a few words why the current state of the tasks is not known, for example "not
	// running". It is empty if the process has answered. Tasks that the process reported earlier stay on
	// the page.
	Problem string
}

const (
	othersEvery = 2 * time.Second  // pause between two calls to Others.Processes
	othersTime  = 20 * time.Second // maximum duration of one call to Others.Processes
	othersEnded = 200              // number of ended tasks of each other process
)

// process is the state of another process, as it is sent to the page.
type process struct {
	Name    string `json:"name"`
	Problem string `json:"problem,omitempty"`
}

// followOthers reads the tasks of other processes until ctx ends.
func (f *feed) followOthers(ctx context.Context, s *feedState) {
	for ctx.Err() == nil {
		asking, cancel := context.WithTimeout(ctx, othersTime)
		all, err := f.others.Processes(asking, othersEnded)
		cancel()
		if ctx.Err() == nil {
			f.takeOthers(s, all, err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(othersEvery):
		}
	}
}

// takeOthers stores what is known about the tasks of other processes. If the processes cannot be read, all of
// them get the reason as their problem.
func (f *feed) takeOthers(s *feedState, all []Process, err error) {
	if err != nil {
		all = f.unknown(s, err)
	}
	var rows []row
	var now []process
	problems := map[string]string{}
	for _, p := range all {
		x := process{line(p.Name), line(p.Problem)}
		now = append(now, x)
		problems[x.Name] = x.Problem
		for i := range p.Tasks {
			r := newRow(&p.Tasks[i], poolOf(f.m.Concurrency(), &p.Tasks[i]))
			r.Process, r.Problem = x.Name, x.Problem
			rows = append(rows, r)
		}
	}
	slices.SortStableFunc(rows, func(a, b row) int { return cmp.Compare(a.Queued, b.Queued) })
	f.mu.Lock()
	defer f.mu.Unlock()
	told := map[string]bool{}
	for _, r := range rows {
		if !told[r.ID] && !s.isOwn(r.ID) { // otherwise, the manager has the task, or the list contains the task twice
			told[r.ID] = true
			s.put(r)
		}
	}
	for id, el := range s.rows {
		c := el.Value.(*change)
		if c.Process == "" || c.gone || told[id] {
			continue
		}
		r, known := c.row, false
		if r.Problem, known = problems[c.Process]; known && r.Problem != "" {
			s.put(r) // it is unknown whether the process still has the task
		} else {
			s.drop(id)
		}
	}
	if !slices.Equal(now, s.others) {
		s.others = now
		s.othersRev++
	}
}

// The method "unknown" returns the processes that were last known, each with the error as its problem.
func (f *feed) unknown(s *feedState, err error) (all []Process) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range s.others {
		all = append(all, Process{Name: p.Name, Problem: err.Error()})
	}
	if all == nil {
		all = []Process{{Name: "other processes", Problem: err.Error()}}
	}
	return all
}

// isOwn reports whether the manager has the task.
func (s *feedState) isOwn(id string) bool {
	el := s.rows[id]
	return el != nil && !el.Value.(*change).gone && el.Value.(*change).Process == ""
}

// The method "elsewhere" reports whether the manager's error means that the manager does not have the task,
// but that another process might have it.
func (h *Handler) elsewhere(err error) bool {
	return h.cfg.Others != nil && errors.Is(err, bgagent.ErrUnknownTask)
}

// onlyThere returns the error for an operation that only the task's own process can perform. The argument
// "here" is the error that this process's manager returned. If the task cannot belong to another process,
// this error is returned unchanged.
func (h *Handler) onlyThere(ctx context.Context, id string, here error) error {
	if !h.elsewhere(here) {
		return here
	}
	if _, err := h.cfg.Others.Read(ctx, id); err != nil {
		return err
	}
	return fmt.Errorf("task %s belongs to another process, and only that process can do this: %w", id, errors.ErrUnsupported)
}
