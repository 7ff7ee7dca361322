//go:build linux

package embedded_test

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/race"
	"github.com/bgagent/bgagent/internal/tempdir"
	"github.com/bgagent/bgagent/nats/embedded"
)

var faults = flag.Int("faults", 0, "number of faults of each kind that the tests with three server processes cause; 0 means 1 of some kinds, or none with the race detector")

const (
	childNode   = "BGAGENT_NATS_TEST_NODE"   // makes the process a server of a cluster; the value is a nodePlan
	childWorker = "BGAGENT_NATS_TEST_WORKER" // makes the process run tasks; the value is a workerPlan
	childIdle   = "BGAGENT_NATS_TEST_IDLE"   // makes the process only hold its network namespace
)

func init() {
	roles[childNode], roles[childWorker] = runNode, runWorker
	roles[childIdle] = func(string) error { _, err := io.Copy(io.Discard, os.Stdin); return err }
}

// faultsOf returns the number of faults that a test causes. It skips the test if this number is 0. If always
// is true, the test also runs without the flag -faults.
func faultsOf(t *testing.T, always bool) int {
	t.Helper()
	switch {
	case *faults > 0:
		return *faults
	case !always, testing.Short(), race.Enabled: // each fault lasts for a lease, so it takes long even with the shortest lease
		t.Skip("it waits for leases; run it with -args -faults 10")
	}
	return 1
}

// bound fails the test if the measured time is too long. Without the flag -faults, the bound is generous,
// because test machines can be busy.
func bound(t *testing.T, took, most time.Duration) {
	t.Helper()
	if *faults == 0 {
		most *= 3
	}
	require.Less(t, took, most)
}

// worldLease is a lease that is also allowed in production. With this lease, the allocator's key is valid for
// the time worldKey.
const (
	worldLease = 15 * time.Second
	worldKey   = worldLease / 6
)

// nodePlan describes a server process.
type nodePlan struct {
	Dir, Host    string
	Name         string
	Port, Routes int   // port for clients, and port for the other servers
	Others       []int // Routes of the other servers
}

// runNode runs a server until standard input ends.
func runNode(text string) error {
	var p nodePlan
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		return err
	}
	s, err := embedded.StartWith(embedded.Options{Dir: p.Dir, Listen: fmt.Sprint(p.Host, ":", p.Port)}, func(o *server.Options) {
		o.ServerName = p.Name
		o.Cluster = server.ClusterOpts{Name: "tasks", Host: p.Host, Port: p.Routes}
		for _, port := range p.Others {
			o.Routes = append(o.Routes, server.RoutesFromStr(fmt.Sprint("nats://", p.Host, ":", port))...)
		}
	})
	if err != nil {
		return err
	}
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin)
	return s.Close()
}

// world consists of three servers and some workers, each in its own process. It also collects what
// the workers report to the judge.
type world struct {
	t     *testing.T
	nodes [3]nodePlan
	alive [3]*life
	url   string
	plan  workerPlan
	lives map[string]*life // the newest process of each worker
	log   history
	// The function "within" returns a prefix for the command that starts the named process. The
	// prefix makes the process run in its network namespace.
	within func(name string) []string
}

// newWorld starts three servers. The caller must start the workers with the method "start".
func newWorld(t *testing.T, host string, within func(name string) []string, plan workerPlan) *world {
	t.Helper()
	w := &world{t: t, plan: plan, lives: map[string]*life{}, within: within}
	dir := tempdir.New(t)
	var held []net.Listener
	port := func() int {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		held = append(held, l)
		return l.Addr().(*net.TCPAddr).Port
	}
	var urls []string
	for i := range w.nodes {
		w.nodes[i] = nodePlan{Dir: filepath.Join(dir, fmt.Sprint("n", i)), Host: host, Name: fmt.Sprint("n", i), Port: port(), Routes: port()}
		urls = append(urls, fmt.Sprint("nats://", host, ":", w.nodes[i].Port))
	}
	for i := range w.nodes {
		for j := range w.nodes {
			if i != j {
				w.nodes[i].Others = append(w.nodes[i].Others, w.nodes[j].Routes)
			}
		}
	}
	w.url = strings.Join(urls, ",")
	for _, l := range held {
		require.NoError(t, l.Close())
	}
	for i := range w.nodes {
		w.startNode(i)
	}
	for i := range w.nodes {
		w.untilReady(i)
	}
	return w
}

// The function "here" is the value of world.within for processes in the network namespace of the test.
func here(string) []string { return nil }

func (w *world) startNode(i int) {
	w.alive[i] = w.spawn(w.nodes[i].Name, childNode, w.nodes[i])
}

func (w *world) untilReady(i int) {
	w.until("server "+w.nodes[i].Name+" is ready", func() bool { return w.log.said(w.alive[i], "ready") })
}

// spawn starts a process that runs the test's executable. The process is killed at the end of the test, or
// when the test dies.
func (w *world) spawn(name, role string, plan any) *life {
	w.t.Helper()
	exe, err := os.Executable()
	require.NoError(w.t, err)
	text, err := json.Marshal(plan)
	require.NoError(w.t, err)
	args := append(w.within(name), exe)
	l := &life{name: name, cmd: exec.Command(args[0], args[1:]...), over: make(chan struct{})}
	l.cmd.Env = append(os.Environ(), role+"="+string(text))
	l.cmd.Stderr = os.Stderr
	l.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := l.cmd.StdoutPipe()
	require.NoError(w.t, err)
	l.in, err = l.cmd.StdinPipe()
	require.NoError(w.t, err)
	require.NoError(w.t, l.cmd.Start())
	go func() {
		defer close(l.over)
		for s := bufio.NewScanner(out); s.Scan(); {
			w.log.add(l, s.Text())
		}
	}()
	w.t.Cleanup(func() { l.kill() })
	return l
}

func (w *world) start(names ...string) {
	for _, name := range names {
		p := w.plan
		p.URL, p.Name = w.url, name
		w.lives[name] = w.spawn(name, childWorker, p)
	}
}

func (w *world) until(what string, f func() bool) {
	w.t.Helper()
	over := time.Now().Add(90 * time.Second)
	for tick := time.NewTicker(20 * time.Millisecond); !f(); <-tick.C {
		if time.Now().After(over) {
			w.t.Fatalf("gave up waiting until %s; the last lines are %s", what, w.log.tail(30))
		}
	}
}

// allocator waits until exactly one of the workers is the allocator, and returns it.
func (w *world) allocator() (found *life) {
	w.t.Helper()
	w.until("one process is the allocator", func() bool {
		n := 0
		for _, l := range w.lives {
			if w.log.last(l, "allocator") == "true" {
				found = l
				n++
			}
		}
		return n == 1
	})
	return found
}

// another returns a worker that is not l.
func (w *world) another(l *life) *life {
	for _, other := range w.lives {
		if other != l {
			return other
		}
	}
	return nil
}

// leader waits until all servers have all messages of all streams. It returns the number of the server that
// leads the stream with the slots.
func (w *world) leader() (leads int) {
	w.t.Helper()
	nc, err := nats.Connect(w.url, nats.MaxReconnects(-1))
	require.NoError(w.t, err)
	defer nc.Close()
	js, err := jetstream.New(nc)
	require.NoError(w.t, err)
	w.until("all servers have all messages", func() bool {
		leads = -1
		names := js.StreamNames(w.t.Context())
		for name := range names.Name() {
			s, err := js.Stream(w.t.Context(), name)
			if err != nil || s.CachedInfo().Cluster.Leader == "" || len(s.CachedInfo().Cluster.Replicas) != 2 {
				return false
			}
			for _, r := range s.CachedInfo().Cluster.Replicas {
				if !r.Current || r.Offline {
					return false
				}
			}
			if strings.HasPrefix(name, "BGSLOTS_") {
				leads = int(s.CachedInfo().Cluster.Leader[1] - '0')
			}
		}
		return names.Err() == nil && leads >= 0
	})
	return leads
}

// life is one process that runs a worker or a server, from its start to its end.
type life struct {
	name string
	cmd  *exec.Cmd
	in   io.WriteCloser
	over chan struct{} // closed when all its lines have been read

	killed time.Time // time at which the process was known to be dead
	frozen [][2]time.Time
}

// kill kills the process with SIGKILL and returns when it is dead. It returns the time just before the kill.
func (l *life) kill() (at time.Time) {
	at = time.Now()
	_ = l.cmd.Process.Kill() // fails if the process was killed before
	<-l.over
	_ = l.cmd.Wait()
	if l.killed.IsZero() {
		l.killed = time.Now()
	}
	return at
}

// freeze stops the process with SIGSTOP and returns the time when the system reported the process as
// stopped.
func (l *life) freeze(t *testing.T) time.Time {
	t.Helper()
	require.NoError(t, l.cmd.Process.Signal(syscall.SIGSTOP))
	until(t, func() bool {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", l.cmd.Process.Pid))
		require.NoError(t, err)
		_, state, _ := strings.Cut(string(text), ") ")
		return strings.HasPrefix(state, "T")
	})
	l.frozen = append(l.frozen, [2]time.Time{time.Now()})
	return l.frozen[len(l.frozen)-1][0]
}

// thaw lets the process run again and returns the time just before it runs.
func (l *life) thaw(t *testing.T) time.Time {
	t.Helper()
	at := time.Now()
	l.frozen[len(l.frozen)-1][1] = at
	require.NoError(t, l.cmd.Process.Signal(syscall.SIGCONT))
	return at
}

// passes waits for the duration. The tests need real pauses, because the processes have leases of real time.
func passes(d time.Duration) { <-time.NewTimer(d).C }

// worldLimits returns the limits of the pools a and b for all workers together.
func worldLimits(a, b int) bgagent.Limits {
	return bgagent.Limits{Model: map[string]int{"a": a, "b": b}}
}
