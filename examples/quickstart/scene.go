package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/charmbracelet/x/ansi"
)

// parent is the session that delegates. It has no agent, because this program takes the role of the
// model that would call the tools.
const parent = "quickstart"

// job is a piece of work to delegate.
type job struct{ agent, description, prompt string }

// The function "jobs" returns the jobs of the scene. The task of the last job is cancelled.
func jobs(find string) []job {
	return []job{
		{"explore", "Explore: find the code for " + find, "Find where " + quoted(find) + " is implemented in this module."},
		{"librarian", "Librarian: study the dependencies", "Read the documentation of the direct dependencies: what is each for, and which of it does this module really use?"},
		{"oracle", "Oracle: review the architecture", "Measure the packages: sizes, imports, cycles, and which of them nobody imports."},
		{"oracle", "Oracle: look into the biggest package", "Measure the inside of the biggest package: who refers to whom, cycles, large functions."},
		{"librarian", "Librarian: study the standard packages in use", "Read the documentation of the standard packages: which does this module use, and what of them?"},
		{"explore", "Explore: find where errors are made", `Find where "error" is implemented in this module.`},
		{"explore", "Explore: find the tests' helpers", `Find where "test helper" is implemented in this module.`},
	}
}

// The function "play" runs the tasks three times: first to warm the caches, then concurrently, and
// then one after the other. Finally, it prints the comparison and the results.
func play(ctx context.Context, o options, stdout io.Writer) error {
	quiet := newLines(io.Discard)
	talk, tasks := display(newLines(stdout)), display(quiet)
	switch {
	case live(o, stdout):
		s := newScreen(stdout.(*os.File), !o.verbose)
		talk, tasks = s, s
	case o.verbose:
		tasks = talk
	}

	talk.print(fmt.Sprintf("Module %s: %d tasks, first side by side, then one after the other.\nBefore, each runs once, untimed, to warm the caches …", o.dir, len(jobs(o.find))))
	if _, err := playOnce(ctx, o, o.limit, quiet, false); err != nil {
		return err
	}
	if o.verbose {
		talk.print(fmt.Sprintf("=== At most %d side by side ===", o.limit))
	}
	parallel, err := playOnce(ctx, o, o.limit, tasks, o.verbose)
	if err != nil {
		return err
	}
	if o.verbose {
		talk.print("=== The same tasks one after the other (a limit of 1) ===")
	}
	serial, err := playOnce(ctx, o, 1, tasks, false)
	if err != nil {
		return err
	}
	talk.print(figures(o.limit, parallel, serial))
	talk.print(findings(parallel.tasks))
	if !o.verbose {
		talk.print("With -v, the output also shows what a model reads, and a follow-up question to one of the agents.")
	}
	return nil
}

// outcome is the result of running the tasks once.
type outcome struct {
	took   time.Duration // time from the first launch until the last task ended
	added  time.Duration // sum of the tasks' durations
	failed int           // number of tasks that did not complete
	tasks  []bgagent.Task
}

func figures(limit int, parallel, serial outcome) string {
	s := fmt.Sprintf("=== Time, from the first launch to the last end, on %d processors ===\n", runtime.GOMAXPROCS(0))
	side := fmt.Sprintf("at most %d side by side:", limit)
	s += fmt.Sprintf("%-26s%8.3fs (the tasks' own times add up to %.3fs)\n", side, parallel.took.Seconds(), parallel.added.Seconds())
	s += fmt.Sprintf("%-26s%8.3fs (%.3fs)\n", "one after the other:", serial.took.Seconds(), serial.added.Seconds())
	s += fmt.Sprintf("%-26s%8.2f", "ratio:", float64(serial.took)/float64(max(parallel.took, 1)))
	if n := parallel.failed + serial.failed; n > 0 {
		s += fmt.Sprintf("\n%d task(s) did not complete; the reasons are below.", n)
	}
	return s
}

// The function "findings" lists the tasks. For each task, the list contains the first line of the
// result or, if there is no result, the first line of the reason.
func findings(tasks []bgagent.Task) string {
	var b strings.Builder
	b.WriteString("=== What the agents found, side by side ===\n")
	for _, t := range tasks {
		fmt.Fprintf(&b, "%-9s %6.1fs  %s\n", t.Status, t.Duration(t.Ended).Seconds(), t.Description)
		said, _, _ := strings.Cut(cmp.Or(t.Result, t.Reason, t.Cause.String()), "\n")
		fmt.Fprintf(&b, "                   %s\n", ansi.Truncate(said, 60, "…"))
	}
	return b.String()
}

// playOnce delegates all tasks to a manager with the given limit, cancels the last task, and reads
// each result when a notice reports that the task has ended. If show is true, playOnce also prints
// the text that a model would read, and finally asks a follow-up question.
func playOnce(ctx context.Context, o options, limit int, out display, show bool) (res outcome, err error) {
	m, err := bgagent.New(newClient(o.dir), bgagent.Config{
		Limits: bgagent.Limits{Provider: map[string]int{"local": limit}},
		Model:  modelOf,
		Wake:   bgagent.WakeEach,
	})
	if err != nil {
		return res, err
	}
	defer func() {
		// The caller's context may have ended, so Close gets a separate timeout.
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		err = errors.Join(err, m.Close(closing))
	}()
	p := &player{m: m, out: out, show: show}
	if err := p.launch(ctx, jobs(o.find)); err != nil {
		return res, err
	}
	if err := p.cancelLast(ctx); err != nil {
		return res, err
	}
	if err := p.status(ctx); err != nil {
		return res, err
	}
	if err := p.watched(ctx, p.readAll, p.launched...); err != nil {
		return res, err
	}
	if res, err = p.outcome(); err == nil && show {
		err = p.followUp(ctx)
	}
	return res, err
}

// The method "outcome" returns all tasks and measures them by the times that the manager recorded.
// The cancelled task is not measured.
func (p *player) outcome() (outcome, error) {
	var res outcome
	var first, last time.Time
	for i, id := range p.launched {
		t, err := p.m.Get(id)
		if err != nil {
			return res, err
		}
		res.tasks = append(res.tasks, t)
		if i == len(p.launched)-1 {
			break
		}
		if t.Status != bgagent.Completed {
			res.failed++
		}
		if first.IsZero() || t.Queued.Before(first) {
			first = t.Queued
		}
		if t.Ended.After(last) {
			last = t.Ended
		}
		res.added += t.Duration(t.Ended)
	}
	res.took = last.Sub(first)
	return res, nil
}
