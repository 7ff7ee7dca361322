//go:build linux

package killed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/fleet"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/settings"
	"github.com/bgagent/bgagent/internal/kills"
	"github.com/bgagent/bgagent/sqlite"
)

const (
	limit    = 4                // number of sessions that may run at the same time
	patience = 10 * time.Minute // time limit for one step; on a busy machine, a program takes a minute to start
)

func TestMain(m *testing.M) {
	if o, ok := kills.Ordered(); ok {
		if err := process(o); err != nil {
			fmt.Fprintln(os.Stderr, "failed:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// process is the main function of the process that is killed. Its agent is o.More, and the names of
// its conversations begin with o.Kind.
func process(o kills.Order) error {
	var agent settings.Agent
	if err := json.Unmarshal(o.More, &agent); err != nil {
		return err
	}
	h, lines, err := o.Host()
	if err != nil {
		return err
	}
	h.Launch = func(n int) bgagent.LaunchInput {
		return bgagent.LaunchInput{Agent: agent.Name, Prompt: prompt(o.Kind, kills.Name(n))}
	}
	h.Cancels = func(n int) bool { return n%10 == 9 || n%50 == 0 }
	h.Leaves = func(n int) bool { return n%10 != 3 }
	h.Ends = patience
	// The instance contains the folder, which differs between tests that run at the same time. With
	// equal instances, one test's process would kill another test's programs.
	instance := fmt.Sprintf("%s-%s-%d", filepath.Base(filepath.Dir(o.Dir)), filepath.Base(o.Dir), o.Life)
	f, err := fleet.New(&settings.Settings{Agents: []settings.Agent{agent}}, fleet.Options{Instance: instance})
	if err != nil {
		return err
	}
	m, err := f.Manager(bgagent.Config{
		Instance:        instance,
		Store:           sqlite.New(filepath.Join(o.Dir, "store"), sqlite.Options{KeepFor: -1, KeepTasks: -1, KeepBytes: -1}),
		Limits:          bgagent.Limits{Default: limit},
		MaxTasksPerRoot: bgagent.Unlimited,
		Wake:            bgagent.WakeEach,
		NoticeWindow:    bgagent.Disabled,
		CreateTimeout:   patience,
		StopTimeout:     patience,
		Notify:          h.Notify,
	})
	if err != nil {
		return err
	}
	return errors.Join(h.Run(m, lines), f.Close(context.Background()))
}

// key returns the name of a task's conversation.
func key(of, name string) string { return of + "-" + strings.TrimPrefix(name, "task ") }

// prompt returns the prompt of a task.
func prompt(of, name string) string { return "@key " + key(of, name) + "\nDo it." }

// runsCommand reports whether the model runs a command before it answers.
func runsCommand(name string) bool { return kills.Number(name)%3 == 1 }

// The function "needed" returns the number of model requests that the task needs.
func needed(name string) int {
	if runsCommand(name) {
		return 2
	}
	return 1
}

// answer returns the right result of a task. Its length differs between tasks.
func answer(name string) string {
	line := "Answer of " + name + ": é, 世界, \t\"quoted\" <&> \\u0000\n"
	return strings.Repeat(line, 1+kills.Number(name)*7%13*5) + "the end of " + name
}
