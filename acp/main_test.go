//go:build unix

package acp

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/tempdir"
	"github.com/stretchr/testify/require"
)

// TestMain runs the test binary as a fake agent if FAKE_AGENT is set, and as a host if
// hostVariable is set.
func TestMain(m *testing.M) {
	if fault, ok := os.LookupEnv("FAKE_AGENT"); ok {
		runFake(fault)
		return
	}
	if order, ok := os.LookupEnv(hostVariable); ok {
		runHost(order)
		return
	}
	os.Exit(m.Run())
}

// runFake runs the fake agent as a program with the given fault.
func runFake(fault string) {
	switch fault {
	case "exit":
		fmt.Fprintln(os.Stderr, "cannot find my configuration")
		os.Exit(3)
	case "prose":
		fmt.Println("Welcome! Press any key.")
	case "noise":
		for {
			if _, err := fmt.Println("tick"); err != nil {
				return
			}
		}
	case "endless":
		for {
			if _, err := os.Stdout.Write(bytes.Repeat([]byte("x"), 1<<16)); err != nil {
				return
			}
		}
	case "mute": // neither reads nor prints
		select {}
	case "stubborn": // ignores signals that ask it to exit
		ignoreTermination()
	}
	serveFake(&fakeAgent{fault: fault, store: os.Getenv("FAKE_STORE")}, os.Stdin, os.Stdout)
	if fault == "stubborn" {
		select {}
	}
}

// The function "program" returns a configuration that runs the fake agent as a program.
func program(t testing.TB, fault string, more ...string) Config {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	return Config{Command: []string{self}, Dir: tempdir.New(t), Env: slices.Concat([]string{"FAKE_AGENT=" + fault}, more, []string{"GORACE=atexit_sleep_ms=0"})}
}

// The function "open" returns a client that is closed when the test ends.
func open(t testing.TB, cfg Config) *Client {
	t.Helper()
	c, err := New(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

// The function "piped" returns a client whose agent runs in the test's own process, so that the
// client works in a bubble of testing/synctest.
func piped(t testing.TB, cfg Config, fake func() *fakeAgent) *Client {
	t.Helper()
	cfg.Command = []string{"fake"}
	c := open(t, cfg)
	c.launch = func(string) (*running, error) { return runPiped(fake()), nil }
	return c
}

// runPiped runs the agent over pipes in memory.
func runPiped(a *fakeAgent) *running {
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	exited := make(chan struct{})
	a.ears = exited // ends "deaf" turns, because all goroutines of a bubble must end
	var once sync.Once
	end := func() { once.Do(func() { close(exited) }) }
	go func() {
		serveFake(a, inR, outW)
		_ = outW.Close()
		end()
	}()
	return &running{
		in: inW, out: outR, stderr: &tail{max: keptStderr}, exited: exited,
		how:  func() string { return "the pipe was closed" },
		stop: func(time.Duration) { _ = inR.Close(); _ = outW.Close(); end() },
		rest: func() {},
	}
}

// ended holds the outcome of a turn and all its reports.
type ended struct {
	bgagent.TurnEnd
	err     error
	reports []bgagent.Report
}

// text returns the reported text.
func (e ended) text() (s string) {
	for _, r := range e.reports {
		if r.Kind == bgagent.ReportText {
			s += r.Text
		}
	}
	return s
}

// The method "of" returns the reports of the given kind.
func (e ended) of(kind bgagent.ReportKind) (list []bgagent.Report) {
	for _, r := range e.reports {
		if r.Kind == kind {
			list = append(list, r)
		}
	}
	return list
}

// live is a running turn.
type live struct {
	done   chan ended
	said   chan struct{} // closed when the first report arrives
	cancel context.CancelFunc
}

// The function "run" begins a turn.
func run(t testing.TB, c *Client, session string, p bgagent.Prompt) *live {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	l := &live{done: make(chan ended, 1), said: make(chan struct{}), cancel: cancel}
	go func() {
		var mu sync.Mutex
		var e ended
		var first sync.Once
		end, err := c.RunTurn(ctx, session, p, bgagent.NewReporter(func(r bgagent.Report) {
			mu.Lock()
			defer mu.Unlock()
			e.reports = append(e.reports, r)
			first.Do(func() { close(l.said) })
		}))
		mu.Lock()
		defer mu.Unlock()
		e.TurnEnd, e.err = end, err
		l.done <- e
	}()
	return l
}

// The method "wait" waits until the turn has ended and returns its end.
func (l *live) wait() ended { return <-l.done }

// The function "prompt" runs a turn to its end.
func prompt(t testing.TB, c *Client, session, text string) ended {
	t.Helper()
	return run(t, c, session, bgagent.Prompt{ID: "p", Task: "bg_1", Agent: "fake", Text: text}).wait()
}

// The function "create" creates a session.
func create(t testing.TB, c *Client) string {
	t.Helper()
	id, err := c.CreateSession(t.Context(), bgagent.SessionSpec{Task: "bg_1", Agent: "fake"})
	require.NoError(t, err)
	return id
}

// The method "processes" counts the agent processes that have not ended.
func (c *Client) processes() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.all)
}

// The method "known" returns the number of the client's sessions.
func (c *Client) known() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.sessions)
}

// journal collects log lines.
type journal struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.String()
}

func (j *journal) logger() *slog.Logger { return slog.New(slog.NewTextHandler(j, nil)) }
