package bench

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/command"
)

func turnRows() []Row {
	return []Row{{
		ID:        "turns",
		What:      "processor time of a turn of a command line, ours and that of its program: tasks of `/bin/cat` at a limit of 50, told",
		Reference: "the same number of `/bin/cat` by `xargs -P 50`",
		Run:       runTurns,
	}}
}

// turnLimit is the number of programs that run at the same time.
const turnLimit = 50

// catTurns runs n tasks of cat and returns the processor time per task in nanoseconds. The
// result includes the time of this process and of all child processes.
func catTurns(n int) (float64, error) {
	client, err := command.New(command.Config{Agents: map[string]command.Agent{command.Fallback: {Program: command.Text("/bin/cat")}}})
	if err != nil {
		return 0, err
	}
	t := newTold(n)
	m, err := bgagent.New(client, bgagent.Config{
		Notify: t.notify, NoticeWindow: bgagent.Disabled, RetainTasks: 1000,
		Limits: bgagent.Limits{Default: turnLimit},
	})
	if err != nil {
		return 0, err
	}
	before, err := ProcessorTime()
	if err != nil {
		return 0, err
	}
	for i := range n {
		if _, err := m.Launch(context.Background(), bgagent.Caller{Session: root(i)}, input); err != nil {
			return 0, err
		}
	}
	if err := t.wait(10 * time.Minute); err != nil {
		return 0, err
	}
	after, err := ProcessorTime()
	if err != nil {
		return 0, err
	}
	if err := closeManager(m); err != nil {
		return 0, err
	}
	return (after - before) / float64(n), client.Close(context.Background())
}

// catBare runs cat n times with xargs and returns the processor time per run in nanoseconds.
func catBare(n int) (float64, error) {
	before, err := ProcessorTime()
	if err != nil {
		return 0, err
	}
	cmd := exec.Command("xargs", "-P", fmt.Sprint(turnLimit), "-n", "1", "/bin/cat")
	cmd.Stdin = strings.NewReader(strings.Repeat("/dev/null\n", n))
	if out, err := cmd.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("xargs: %w: %s", err, out)
	}
	after, err := ProcessorTime()
	return (after - before) / float64(n), err
}

// The function "crowd" starts n idle processes. It returns a function that stops them.
func crowd(n int) (end func(), err error) {
	var all []*exec.Cmd
	end = func() {
		for _, c := range all {
			_ = c.Process.Kill()
			_ = c.Wait()
		}
	}
	for range n {
		c := exec.Command("sleep", "3600")
		if err := c.Start(); err != nil {
			end()
			return nil, err
		}
		all = append(all, c)
	}
	return end, nil
}

func runTurns(o Options) ([]Check, error) {
	const few, many, crowded = 500, 10_000, 1_000
	compare := func(n int) (pair, error) {
		return interleave(o.Rounds, func() (float64, error) { return catTurns(n) }, func() (float64, error) { return catBare(n) })
	}
	alone, err := compare(few)
	if err != nil {
		return nil, err
	}
	checks := []Check{{"500 turns", alone.ratio, "x", 1.5, 1.25, alone.beside()}}
	o.note("%d turns among %d processes", few, crowded)
	end, err := crowd(crowded)
	if err != nil {
		return nil, err
	}
	among, err := compare(few)
	end()
	if err != nil {
		return nil, err
	}
	checks = append(checks, Check{"the same among 1,000 other processes", among.ratio, "x", 1.5, 1.25, among.beside()})
	if o.Most >= many {
		o.note("%d turns", many)
		long, err := catTurns(many)
		if err != nil {
			return nil, err
		}
		checks = append(checks, Check{"growth from 500 to 10,000 turns", Series{long / alone.subject.Median()}, "x", 1.2, None, nanos(long) + " against " + nanos(alone.subject.Median())})
	}
	return checks, nil
}
