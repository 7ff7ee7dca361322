package embedded_test

import (
	"bufio"
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/inproc"
	bgnats "github.com/bgagent/bgagent/nats"
	"github.com/bgagent/bgagent/nats/internal/alloc"
)

// childMember is the environment variable that makes the executable a process of a cluster. Its value
// contains the address of the server, the name of the process, its home and the lease.
const childMember = "BGAGENT_NATS_TEST_MEMBER"

// memberLease is the lease of the processes in most tests. With a shorter lease, processes lose their
// slots on a busy machine.
const memberLease = 4 * time.Second

// suspendedFor is the value of ClusterOptions.TakeOverSuspended in the processes.
const suspendedFor = 8 * time.Second

var says = func() func(...any) {
	var mu sync.Mutex
	return func(words ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Println(words...)
	}
}()

// runMember runs a process of a cluster that takes over the tasks of others. It reads commands from
// its standard input, and prints what happens. Its sessions live as long as their turns.
func runMember(args string) error {
	words := strings.Fields(args)
	url, process, home := words[0], words[1], words[2]
	lease, err := time.ParseDuration(words[3])
	if err != nil {
		return err
	}
	alloc.MinLease = time.Second
	ctx := context.Background()
	c, err := bgnats.Join(ctx, url, bgnats.ClusterOptions{
		Process: process, Home: home, TakeOverSuspended: suspendedFor, Lease: lease, Limits: bgagent.Limits{Default: 4},
		Store: bgnats.StoreOptions{Grace: time.Second}, Connect: []nats.Option{nats.ReconnectWait(10 * time.Millisecond)},
		Warn: func(err error) { fmt.Fprintln(os.Stderr, process, "warns:", err) },
	})
	if err != nil {
		return err
	}
	client := inproc.New(map[string]inproc.Agent{"worker": func(ctx context.Context, turn *inproc.Turn) (string, error) {
		name, rest, _ := strings.Cut(turn.Prompt.Text, " ")
		took, err := time.ParseDuration(rest)
		if err != nil {
			return "", err
		}
		says("begin", name)
		select {
		case <-time.After(took):
			says("end", name)
			return name + " by " + process, nil
		case <-ctx.Done():
			says("stopped", name)
			return "", ctx.Err()
		}
	}})
	client.Restore = func(context.Context, bgagent.SessionRestore) (inproc.Restored, error) {
		return inproc.Restored{Prompt: bgagent.PromptMissing}, nil // the manager may repeat the work
	}
	manage := func(store *bgnats.Store) (*bgagent.BackgroundManager, error) {
		return bgagent.New(client, bgagent.Config{
			Slots: c.Slots, Store: store, Wake: bgagent.WakeEach,
			Notify: func(_ context.Context, parent string, n bgagent.Notice) error {
				for _, item := range n.Items {
					says("told", item.Task, item.ID, parent)
				}
				return nil
			},
		})
	}
	m, err := manage(c.Store)
	if err != nil {
		return err
	}
	if err := c.Serve(m); err != nil {
		return err
	}
	err = c.TakeOver(func(p bgnats.Process, store *bgnats.Store) (*bgagent.BackgroundManager, error) {
		m, err := manage(store)
		if err == nil {
			says("took", p.Name)
		}
		return m, err
	})
	if err != nil {
		return err
	}
	m.Start()
	says("joined", process)
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		words := strings.Fields(in.Text())
		switch words[0] {
		case "launch": // its arguments are the name of the task and the duration of its work
			t, err := m.Launch(ctx, bgagent.Caller{Session: "parent-" + words[1]}, bgagent.LaunchInput{Agent: "worker", Description: words[1], Prompt: words[1] + " " + words[2]})
			if err != nil {
				says("refused", err)
				continue
			}
			says("accepted", t.ID, words[1])
		case "allocator":
			says("allocator", c.Slots.IsAllocator())
		}
	}
	if err := m.Suspend(ctx); err != nil {
		return err
	}
	return c.Close(ctx)
}

// The type "heard" is a line that a process has printed.
type heard struct {
	process string
	words   []string
	at      time.Time
}

// group is a cluster of processes, with their output.
type group struct {
	t   *testing.T
	url string

	lease time.Duration

	mu   sync.Mutex
	told []heard
}

// start starts a process, and waits until it has joined.
func (g *group) start(process, home string) *child {
	c := spawn(g.t, childMember+"="+fmt.Sprint(g.url, " ", process, " ", home, " ", g.lease))
	joined := make(chan bool, 1)
	go func() {
		for c.out.Scan() {
			words := strings.Fields(c.out.Text())
			if len(words) == 0 {
				continue
			}
			g.mu.Lock()
			g.told = append(g.told, heard{process, words, time.Now()})
			g.mu.Unlock()
			if words[0] == "joined" {
				joined <- true
			}
		}
	}()
	within(g.t, joined)
	return c
}

// all returns the lines that begin with the given words, in the given order.
func (g *group) all(words ...string) (out []heard) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, h := range g.told {
		if len(h.words) >= len(words) && slices.Equal(h.words[:len(words)], words) {
			out = append(out, h)
		}
	}
	return out
}

func (g *group) kill(c *child, process string) {
	c.kill()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.told = append(g.told, heard{process, []string{"killed"}, time.Now()})
}

// requireOneBodyEach requires that two bodies of a task never ran at the same time.
func (g *group) requireOneBodyEach() {
	g.t.Helper()
	runs := map[string]string{} // process that runs a body of the task, by task
	for _, h := range g.all() {
		switch h.words[0] {
		case "begin":
			require.Empty(g.t, runs[h.words[1]], "%s began in %s while it ran", h.words[1], h.process)
			runs[h.words[1]] = h.process
		case "end", "stopped":
			delete(runs, h.words[1])
		case "killed":
			maps.DeleteFunc(runs, func(_, process string) bool { return process == h.process })
		}
	}
}

// begun returns how many of the named tasks have begun to run their bodies in a process.
func (g *group) begun(process string, names []string) (n int) {
	for _, name := range names {
		if slices.ContainsFunc(g.all("begin", name), func(h heard) bool { return h.process == process }) {
			n++
		}
	}
	return n
}

// await waits until there is a line that begins with the words, and returns it.
func (g *group) await(words ...string) heard {
	g.t.Helper()
	until(g.t, func() bool { return len(g.all(words...)) > 0 })
	return g.all(words...)[0]
}

// launch launches tasks in the process. The tasks' names begin with the given name.
func (g *group) launch(c *child, name string, count int, takes time.Duration) (names []string) {
	g.t.Helper()
	for i := range count {
		names = append(names, name+strconv.Itoa(i))
		_, err := fmt.Fprintln(c.in, "launch", names[i], takes)
		require.NoError(g.t, err)
	}
	until(g.t, func() bool {
		return !slices.ContainsFunc(names, func(name string) bool { return g.task(name) == "" })
	})
	return names
}

// task returns the id of the task with the name, or "".
func (g *group) task(name string) string {
	for _, h := range g.all("accepted") {
		if h.words[2] == name {
			return h.words[1]
		}
	}
	return ""
}

// requireEnds waits until the parents of the tasks have been notified. It requires that each end was
// reported under a single notice id, and that each task has ended once. If the lease is shorter than
// memberLease, a task may instead have lost its slot, which can happen on a busy machine.
func (g *group) requireEnds(reader *bgnats.Cluster, names []string) {
	g.t.Helper()
	for _, name := range names {
		id := g.task(name)
		first := g.await("told", id)
		for _, h := range g.all("told", id) {
			require.Equal(g.t, first.words[2:], h.words[2:], "%s was told under two ids", name)
		}
		require.Equal(g.t, "parent-"+name, first.words[3])
		t, _, err := reader.Read(g.t.Context(), id)
		require.NoError(g.t, err)
		require.Equal(g.t, 1, t.Attempt, name)
		if t.Cause != bgagent.CauseSlotLost || g.lease >= memberLease {
			require.Equal(g.t, bgagent.Completed, t.Status, "%s: %s", name, t.Reason)
			require.True(g.t, strings.HasPrefix(t.Result, name+" by "), t.Result)
		}
	}
}

// reader joins the cluster as a process that has no home and only reads the other processes' tasks.
func (g *group) reader(name string) *bgnats.Cluster {
	return joined(g.t, g.url, bgnats.ClusterOptions{Process: name, Lease: g.lease, Limits: bgagent.Limits{Default: 4}})
}

// newGroup returns a cluster, and a process in it that only reads.
func newGroup(t *testing.T, lease time.Duration) (*group, *bgnats.Cluster) {
	t.Helper()
	shorterLease(t)
	g := &group{t: t, url: serverOf(t), lease: lease}
	return g, g.reader("reader")
}
