package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"

	"github.com/bgagent/bgagent"
)

// parent is the session that delegates. No agent runs in it: this program plays the
// model that would call the tools.
const parent = "quickstart"

// job is a piece of work to delegate.
type job struct{ agent, description, prompt string }

// jobs returns the work of the scene. The last one is cancelled.
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

// play plays the whole scene.
func play(ctx context.Context, o options, stdout io.Writer) error {
	var out display = newLines(stdout)
	if live(o, stdout) {
		out = newScreen(stdout.(*os.File))
	}
	quiet := newLines(io.Discard)

	out.print(fmt.Sprintf("Module %s. First every task once, untimed, so that both timed runs find the same warm caches …", o.dir))
	began := time.Now()
	if _, err := playOnce(ctx, o, o.limit, quiet, false); err != nil {
		return err
	}
	out.print(fmt.Sprintf("That took %s.", round(time.Since(began))))

	out.print(fmt.Sprintf("=== %d tasks, at most %d side by side ===", len(jobs(o.find)), o.limit))
	parallel, err := playOnce(ctx, o, o.limit, out, true)
	if err != nil {
		return err
	}
	out.print("=== The same tasks one after the other (a limit of 1) ===")
	serial, err := playOnce(ctx, o, 1, out, false)
	if err != nil {
		return err
	}
	out.print(figures(o.limit, parallel, serial))
	return nil
}

// outcome is the result of one run of the tasks.
type outcome struct {
	took   time.Duration // from the first launch to the last end
	added  time.Duration // sum of the tasks' own durations
	failed int           // tasks that did not complete
}

func figures(limit int, parallel, serial outcome) string {
	s := fmt.Sprintf("=== Time, from the first launch to the last end, on %d processors ===\n", runtime.GOMAXPROCS(0))
	side := fmt.Sprintf("at most %d side by side:", limit)
	s += fmt.Sprintf("%-26s%8.3fs (the tasks' own times add up to %.3fs)\n", side, parallel.took.Seconds(), parallel.added.Seconds())
	s += fmt.Sprintf("%-26s%8.3fs (%.3fs)\n", "one after the other:", serial.took.Seconds(), serial.added.Seconds())
	s += fmt.Sprintf("%-26s%8.2f", "ratio:", float64(serial.took)/float64(max(parallel.took, 1)))
	if n := parallel.failed + serial.failed; n > 0 {
		s += fmt.Sprintf("\n%d task(s) did not complete; their results say why.", n)
	}
	return s
}

func round(d time.Duration) time.Duration { return d.Round(time.Millisecond) }

// playOnce delegates all tasks to a manager with the limit, cancels the last one,
// and reads every result when its end is reported. With show set, it prints what
// the model would read and ends with a follow-up question.
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
		// The caller's context may have ended, so closing has a timeout of its own.
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

// outcome measures all tasks but the cancelled one, by the manager's times.
func (p *player) outcome() (outcome, error) {
	var res outcome
	var first, last time.Time
	for _, id := range p.launched[:len(p.launched)-1] {
		t, err := p.m.Get(id)
		if err != nil {
			return res, err
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
