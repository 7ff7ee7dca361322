//go:build linux

package embedded_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var partition = flag.Duration("partition", 10*time.Second, "how long the tests keep a process apart from the servers")

// partitioned is the address of the servers when they are in a separate network namespace. The address is on
// the loopback interface, so it remains valid when the link to the other namespace is down.
const partitioned = "10.77.1.1"

// link is two network namespaces with a link between them. Tests change nothing outside of the namespaces. A
// namespace disappears with the process that holds it.
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

// hold starts a process in a new network namespace, and returns its id.
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

// inside returns a prefix of a command that runs in the namespace.
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

// cutOff cuts the process "edge" off from the servers and from the other processes. The argument "allocator"
// names the process that is the allocator.
func cutOff(t *testing.T, allocator string, always bool) {
	n := faultsOf(t, always)
	t.Parallel()
	l := newLink(t)
	w := newWorld(t, partitioned, func(name string) []string {
		if name == "edge" {
			return inside(l.edge)
		}
		return inside(l.hub)
	}, workerPlan{Limits: worldLimits(3, 4), Lanes: 3, Least: 3 * time.Second, Most: 20 * time.Second})
	w.start(allocator)
	w.allocator()
	for _, name := range []string{"one", "two", "edge"} {
		if name != allocator {
			w.start(name)
		}
	}
	edge := w.lives["edge"]
	var stops, back []time.Duration
	for range n {
		w.until("the process runs bodies", func() bool { return w.isFull() && w.log.runs(edge) > 0 })
		isAllocator := w.allocator() == edge
		cut := time.Now()
		l.set("down")
		down := time.Now()
		passes(*partition)
		heal := time.Now()
		l.set("up")
		w.until("the process runs bodies again", func() bool { return len(w.log.began(edge, heal)) > 0 })
		back = append(back, w.log.began(edge, heal)[0].begin.Sub(heal))
		for _, b := range w.log.bodies() {
			switch {
			case b.by != edge:
			case b.begin.After(down) && b.begin.Before(heal):
				require.Less(t, b.begin.Sub(down), inFlight, "a body began in a process that was cut off")
			case b.begin.Before(cut) && (b.end.IsZero() || b.end.After(cut)) && *partition > worldLease*2/3:
				require.False(t, b.end.IsZero(), "a body has not ended")
				require.Less(t, b.end.Sub(cut), worldLease-worldLease/6, "the lease can be over then")
			}
			if b.by == edge && b.stopped && b.end.After(cut) {
				stops = append(stops, b.end.Sub(cut))
			}
		}
		t.Logf("the process was the allocator: %v; bodies of the others in the meantime: %d", isAllocator, len(w.log.began(nil, down))-len(w.log.began(edge, down)))
		w.allWork(heal)
	}
	if len(stops) > 0 {
		t.Log("from the cut to the stop of a body:", longest(stops))
	}
	t.Log("from the repair to the next begin of a body:", longest(back))
	w.judge(edge)
}
