package embedded_test

import (
	"bufio"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/inproc"
	"github.com/bgagent/bgagent/internal/tempdir"
	bgnats "github.com/bgagent/bgagent/nats"
	"github.com/bgagent/bgagent/nats/embedded"
	"github.com/bgagent/bgagent/nats/internal/alloc"
)

// childSlots is the environment variable that makes the executable run tasks with shared slots. Its
// value contains the addresses of the server and of the judge.
const childSlots = "BGAGENT_NATS_TEST_SLOTS"

// processLease is the lease of a test's processes.
const processLease = 1500 * time.Millisecond

// tasksEach is the number of tasks per process.
const tasksEach = 60

var processLimits = bgagent.Limits{Model: map[string]int{"a": 2, "b": 3}}

// runSlots runs tasks until all have ended, and writes how many tasks have completed and how many have lost
// their slots. For each line that it reads, it writes whether the process is the allocator.
func runSlots(args string) error {
	url, judge, _ := strings.Cut(args, " ")
	alloc.MinLease = time.Second
	nc, err := nats.Connect(url, nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond))
	if err != nil {
		return err
	}
	slots, err := bgnats.NewSlots(context.Background(), nc, "agents", bgnats.SlotOptions{Limits: processLimits, Lease: processLease})
	if err != nil {
		return err
	}
	conn, err := net.Dial("unix", judge)
	if err != nil {
		return err
	}
	answers := bufio.NewScanner(conn)
	var mu sync.Mutex
	tell := func(what, pool string, began int64) error { // returns when the judge has received the report
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintln(conn, what, os.Getpid(), pool, began)
		if !answers.Scan() {
			return fmt.Errorf("the connection to the judge is lost: %v", answers.Err())
		}
		return nil
	}
	client := inproc.New(map[string]inproc.Agent{"worker": func(ctx context.Context, turn *inproc.Turn) (string, error) {
		pool := turn.Prompt.Text
		began := ctx.Value(beganKey{}).(int64)
		if err := tell("begin", pool, began); err != nil {
			return "", err
		}
		select {
		case <-time.After(time.Duration(20+rand.IntN(100)) * time.Millisecond):
		case <-ctx.Done():
		}
		if err := tell("end", pool, began); err != nil {
			return "", err
		}
		return "done", ctx.Err()
	}})
	m, err := bgagent.New(&stamped{Client: client}, bgagent.Config{Slots: slots})
	if err != nil {
		return err
	}
	var ids []string
	for i := range tasksEach {
		pool := string("ab"[i%2])
		task, err := m.Launch(context.Background(), bgagent.Caller{}, bgagent.LaunchInput{Agent: "worker", Model: "x/" + pool, Prompt: pool, Description: "d"})
		if err != nil {
			return err
		}
		ids = append(ids, task.ID)
	}
	fmt.Println("launched")
	go func() {
		tasks, err := m.Wait(context.Background(), bgagent.Caller{}, bgagent.WaitAll, ids...)
		if err != nil {
			fmt.Println("failed", err)
		}
		completed, lost := 0, 0
		for _, task := range tasks {
			switch task.Cause {
			case bgagent.CauseTurnEnded:
				completed++
			case bgagent.CauseSlotLost:
				lost++
			default:
				fmt.Println("failed", task.Cause, task.Reason)
			}
		}
		fmt.Println("done", completed, lost)
	}()
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		fmt.Println("allocator", slots.IsAllocator())
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_ = m.Close(ctx) // returns an error, because no host takes the notices
	return slots.Close(ctx)
}

// The type "stamped" is a client that notes the time when a turn begins, before the turn waits for anything.
// No two turns in a process have the same time.
type stamped struct {
	*inproc.Client
	last atomic.Int64
}

// beganKey is the context key for the time at which the turn began.
type beganKey struct{}

func (c *stamped) RunTurn(ctx context.Context, id string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
	began := time.Now().UnixNano()
	for last := c.last.Load(); ; last = c.last.Load() {
		if c.last.CompareAndSwap(last, max(last+1, began)) {
			began = max(last+1, began)
			break
		}
	}
	return c.Client.RunTurn(context.WithValue(ctx, beganKey{}, began), id, p, r)
}

// judge receives a report whenever a body begins or ends. It knows nothing about slots. A body that began in
// a process before the process was frozen is treated as dead from the freeze on, even if its report arrives
// only after the thaw.
type judge struct {
	mu       sync.Mutex
	running  map[string]map[string]string // process of each body, by pool
	dead     map[string]bool              // frozen or killed processes
	thawed   map[string]int64             // when the process was thawed
	most     map[string]int
	begun    int
	problems []string
}

func newJudge(t *testing.T) (j *judge, socket string) {
	j = &judge{running: map[string]map[string]string{"a": {}, "b": {}}, dead: map[string]bool{}, thawed: map[string]int64{}, most: map[string]int{}}
	socket = filepath.Join(tempdir.New(t), "s")
	l, err := net.Listen("unix", socket)
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				for in := bufio.NewScanner(conn); in.Scan(); {
					j.hear(strings.Fields(in.Text()))
					fmt.Fprintln(conn, "ok")
				}
			}()
		}
	}()
	return j, socket
}

func (j *judge) hear(said []string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	what, pid, pool, body := said[0], said[1], said[2], said[1]+" "+said[3]
	if j.dead[pid] {
		return
	}
	if what == "end" {
		delete(j.running[pool], body)
		return
	}
	began, err := strconv.ParseInt(said[3], 10, 64)
	if err != nil {
		j.problems = append(j.problems, err.Error())
	}
	if began <= j.thawed[pid] {
		return
	}
	j.begun++
	j.running[pool][body] = pid
	n := len(j.running[pool])
	if j.most[pool] = max(j.most[pool], n); n > processLimits.Model[pool] {
		j.problems = append(j.problems, fmt.Sprintf("%d bodies of %s run: %v; thawed: %v", n, pool, j.running[pool], j.thawed))
	}
}

// The method "die" makes the judge treat the process's bodies as dead. If dead is false, the process is about
// to be thawed.
func (j *judge) die(pid string, dead bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.dead[pid] = dead; !dead {
		j.thawed[pid] = time.Now().UnixNano()
	}
	for _, pool := range j.running {
		maps.DeleteFunc(pool, func(_, of string) bool { return of == pid })
	}
}

// member is one of the test's processes.
type member struct {
	*child
	pid   string
	lines chan string
}

// next returns the rest of the next line that begins with the word.
func (m *member) next(t *testing.T, word string) string {
	t.Helper()
	over := time.After(time.Minute)
	for {
		select {
		case line, ok := <-m.lines:
			require.True(t, ok, "process %s ended before %q", m.pid, word)
			require.False(t, strings.HasPrefix(line, "failed"), line)
			if rest, found := strings.CutPrefix(line, word+" "); found || line == word {
				return rest
			}
		case <-over:
			t.Fatalf("process %s has not said %q for a minute", m.pid, word)
		}
	}
}

func (m *member) isAllocator(t *testing.T) bool {
	t.Helper()
	fmt.Fprintln(m.in, "?")
	return m.next(t, "allocator") == "true"
}

// members returns three new processes that share slots.
func members(t *testing.T, url, socket string) (all []*member) {
	for range 3 {
		c := spawn(t, childSlots+"="+url+" "+socket)
		m := &member{child: c, pid: strconv.Itoa(c.cmd.Process.Pid), lines: make(chan string, 1000)}
		go func() {
			defer close(m.lines)
			for m.out.Scan() {
				m.lines <- m.out.Text()
			}
		}()
		all = append(all, m)
	}
	for _, m := range all {
		m.next(t, "launched")
	}
	return all
}

// The function "faulty" starts three processes, waits until some bodies have run, and calls the function
// "hurt" for the allocator or for another process. All tasks of the other processes must complete. If
// survives is true, the tasks of the hurt process must end, too.
func faulty(t *testing.T, hurtsAllocator bool, hurt func(t *testing.T, j *judge, m *member), survives bool) {
	server, err := embedded.Start(embedded.Options{Dir: tempdir.New(t), Listen: "127.0.0.1:0"})
	require.NoError(t, err)
	defer server.Close()
	j, socket := newJudge(t)
	all := members(t, server.URL(), socket)
	until(t, func() bool {
		j.mu.Lock()
		defer j.mu.Unlock()
		return j.begun > 20
	})
	var victim *member
	until(t, func() bool {
		victim = nil
		for _, m := range all {
			if m.isAllocator(t) == hurtsAllocator {
				victim = m
			}
		}
		return victim != nil
	})
	hurt(t, j, victim)
	for _, m := range all {
		if m == victim && !survives {
			continue
		}
		var completed, lost int
		_, err := fmt.Sscan(m.next(t, "done"), &completed, &lost)
		require.NoError(t, err)
		require.Equal(t, tasksEach, completed+lost, "every task ends once")
		if m != victim {
			require.Zero(t, lost, "work in other processes is not stopped")
		}
		require.NoError(t, m.in.Close())
		require.NoError(t, m.cmd.Wait())
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	require.Empty(t, j.problems)
	require.Equal(t, map[string]int{"a": 2, "b": 3}, j.most, "all slots were used")
}

func until(t *testing.T, f func() bool) {
	t.Helper()
	require.Eventually(t, f, time.Minute, 5*time.Millisecond)
}

func killIt(t *testing.T, j *judge, m *member) {
	m.kill()
	j.die(m.pid, true)
}

func TestNeverMoreThanTheLimitIfAProcessIsKilled(t *testing.T)     { faulty(t, false, killIt, false) }
func TestNeverMoreThanTheLimitIfTheAllocatorIsKilled(t *testing.T) { faulty(t, true, killIt, false) }
