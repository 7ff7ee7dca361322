//go:build linux

package embedded_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
)

var partition = flag.Duration("partition", 10*time.Second, "how long the tests keep a process apart from the servers")

// The constant "partitioned" is the address of the servers when they are in a separate network namespace. The
// address is on the loopback interface, so it remains valid when the link to the other namespace is down.
const partitioned = "10.77.1.1"

// link is a pair of network namespaces that are linked to each other. Tests change nothing outside of the
// namespaces. A namespace disappears with the process that holds it.
type link struct {
	t         *testing.T
	hub, edge int // processes that hold the namespaces
}

// newLink returns a new link, or skips the test if namespaces cannot be made here.
func newLink(t *testing.T) *link {
	t.Helper()
	for _, tool := range []string{"ip", "nsenter"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("it needs", tool)
		}
	}
	l := &link{t: t}
	l.hub, l.edge = l.hold(), l.hold()
	l.run(l.hub, "ip link set lo up")
	l.run(l.hub, fmt.Sprint("ip addr add ", partitioned, "/32 dev lo"))
	l.run(l.hub, fmt.Sprint("ip link add hub type veth peer name edge netns ", l.edge))
	l.run(l.hub, "ip addr add 10.77.0.1/24 dev hub")
	l.run(l.hub, "ip link set hub up")
	l.run(l.edge, "ip link set lo up")
	l.run(l.edge, "ip addr add 10.77.0.2/24 dev edge")
	l.run(l.edge, "ip link set edge up")
	l.run(l.edge, fmt.Sprint("ip route add ", partitioned, " via 10.77.0.1"))
	return l
}

// hold starts a process in a new network namespace, and returns the id of the process.
func (l *link) hold() int {
	l.t.Helper()
	exe, err := os.Executable()
	require.NoError(l.t, err)
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), childIdle+"=yes")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	_, err = cmd.StdinPipe() // the process exits when this pipe is closed
	require.NoError(l.t, err)
	if err := cmd.Start(); errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSYS) || errors.Is(err, syscall.EINVAL) {
		l.t.Skip("network namespaces cannot be made here:", err)
	} else {
		require.NoError(l.t, err)
	}
	l.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // returns an error, because the process was killed
	})
	return cmd.Process.Pid
}

// The function "inside" returns the prefix that makes a command run in the namespace.
func inside(holder int) []string { return []string{"nsenter", "-t", strconv.Itoa(holder), "-n"} }

func (l *link) run(holder int, command string) {
	l.t.Helper()
	args := append(inside(holder), strings.Fields(command)...)
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	require.NoError(l.t, err, "%s: %s", command, out)
}

// set connects the namespaces, or cuts them off from each other. While they are cut off, packets are dropped
// silently.
func (l *link) set(state string) { l.run(l.hub, "ip link set hub "+state) }

func TestAPartitionStopsOnlyTheProcessThatIsCutOff(t *testing.T)   { cutOff(t, "one", false) }
func TestAPartitionOfTheAllocatorStopsOnlyItsOwnWork(t *testing.T) { cutOff(t, "edge", true) }

// longCut is longer than the lease, so other processes get the slots of the process that is cut off.
const longCut = worldLease * 6 / 5

// The constant "lasting" says how much longer the work of a body must take when the connection is cut, so
// that the test can see whether the body is stopped.
const lasting = worldLease*2/3 + stopsWithin + time.Second

// cutKind is a kind of partition. A process with a store cannot begin a body without the servers. If a
// process without a store is cut off, only its lease keeps it from beginning bodies.
type cutKind struct {
	name    string
	lasts   time.Duration
	forgets bool // the workers have no store
}

func (k cutKind) String() string { return k.lasts.String() + k.name }

// cutOff cuts the process "edge" off from the servers and from the other processes. allocator is the name of
// the process that is the allocator before the cut. The flag always is passed to faultsOf.
func cutOff(t *testing.T, allocator string, always bool) {
	n := faultsOf(t, always)
	t.Parallel()
	kinds := []cutKind{{"", *partition, false}}
	if *partition < longCut {
		kinds = append(kinds, cutKind{" without a store", longCut, true})
	}
	for _, k := range kinds {
		worlds, rounds := 1, n
		if allocator == "edge" {
			worlds, rounds = n, 1 // after a cut, another process is the allocator, so each cut needs a new world
		}
		var stops, renewed, back []time.Duration
		for range worlds {
			t.Run(k.String(), func(t *testing.T) {
				w := newCutWorld(t, allocator, k.forgets)
				for range rounds {
					w.cut(k.lasts)
				}
				w.end()
				stops, renewed, back = append(stops, w.stops...), append(renewed, w.renewed...), append(back, w.back...)
			})
		}
		if len(stops) > 0 {
			t.Logf("%v: from the last answered message to the stop of a body: %s", k, longest(stops))
		}
		if len(back) > 0 {
			t.Logf("%v: from the repair to the next renewal of the lease: %s; to the next begin of a body: %s", k, longest(renewed), longest(back))
		}
	}
}

// cutWorld is a world whose process "edge" can be cut off.
type cutWorld struct {
	*world
	link  *link
	edge  *life
	leads bool // the process is the allocator before the first cut

	stops   []time.Duration // from the sending of the last answered message to the stop of a body
	renewed []time.Duration // from the repair to the next renewal of the lease
	back    []time.Duration // from the repair to the beginning of the next body
}

func newCutWorld(t *testing.T, allocator string, forgets bool) *cutWorld {
	t.Helper()
	l := newLink(t)
	limits := worldLimits(3, 4)
	limits.Model["c"] = 3 // with short bodies, grants are on the way when the process is cut off
	w := newWorld(t, partitioned, func(name string) []string {
		if name == "edge" {
			return inside(l.edge)
		}
		return inside(l.hub)
	}, workerPlan{Limits: limits, Lanes: 3, Least: 12 * time.Second, Most: 20 * time.Second, Renewals: true, Forgets: forgets})
	w.start(allocator)
	w.allocator()
	for _, name := range []string{"one", "two", "edge"} {
		if name != allocator {
			w.start(name)
		}
	}
	return &cutWorld{world: w, link: l, edge: w.lives["edge"], leads: allocator == "edge"}
}

// cut cuts the process off for the duration, or for longer if other processes must first get its slots.
func (w *cutWorld) cut(d time.Duration) {
	t := w.t
	t.Helper()
	w.until("all slots are in use, and the process runs a body that lasts", func() bool {
		return w.isFull() && slices.ContainsFunc(w.log.bodies(), func(b body) bool {
			return b.by == w.edge && b.end.IsZero() && time.Until(b.due) > lasting
		})
	})
	isAllocator := w.allocator() == w.edge
	if w.leads && *faults > 0 { // on a busy machine, the process might have lost the key
		require.True(t, isAllocator, "the process is not the allocator")
	}
	w.link.set("down")
	down := time.Now()
	passes(d)
	w.checkLease()
	if d > worldLease {
		w.until("the other processes use all slots", func() bool { return w.isFull() && w.log.runs(w.edge) == 0 })
	}
	heal := time.Now()
	w.link.set("up")
	w.until("the lease is renewed, and the process runs bodies again", func() bool {
		all := w.log.renewals(w.edge)
		return all[len(all)-1].sent.After(heal) && len(w.log.began(w.edge, heal)) > 0
	})
	w.allWork(heal)
	for _, b := range w.log.began(w.edge, down) {
		if b.begin.Before(heal) {
			bound(t, b.begin.Sub(down), inFlight)
		}
	}
	if isAllocator {
		require.NotEqual(t, w.edge, w.allocator(), "another process is the allocator")
	}
	stops := w.checkLease()
	if d > worldLease {
		require.Greater(t, len(stops), len(w.stops), "at least one body was stopped during the cut")
	}
	t.Logf("the process was the allocator: %v; bodies that were stopped: %d; bodies of the others in the meantime: %d", isAllocator, len(stops)-len(w.stops), len(w.log.began(nil, down))-len(w.log.began(w.edge, down)))
	w.stops = stops
	for _, r := range w.log.renewals(w.edge) {
		if r.sent.After(heal) {
			w.renewed = append(w.renewed, r.answered.Sub(heal))
			break
		}
	}
	w.back = append(w.back, w.log.began(w.edge, heal)[0].begin.Sub(heal))
}

// checkLease fails the test if the process did not keep to its lease. It returns, for each body that was
// stopped, the time from the last renewal to the stop.
func (w *cutWorld) checkLease() (stops []time.Duration) {
	w.t.Helper()
	most := unclear
	if *faults == 0 {
		most = time.Second // test machines can be busy
	}
	problem, stops := w.log.leaseProblem(w.edge, time.Now(), most)
	if problem != "" {
		w.t.Fatal(problem)
	}
	return stops
}

// end checks the whole history.
func (w *cutWorld) end() {
	w.t.Helper()
	w.until("the tasks whose bodies were stopped have ended", func() bool {
		lost := 0
		for i, x := range w.log.all() {
			if x.by == w.edge && x.words[0] == "ended" && x.words[2] != causeWord(bgagent.CauseTurnEnded) {
				require.Equal(w.t, causeWord(bgagent.CauseSlotLost), x.words[2], "the cause of an end in a process that was cut off:%s", w.log.around(i))
				lost++
			}
		}
		return lost >= len(w.stops)
	})
	w.judge(w.edge)
}
