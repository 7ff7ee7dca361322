package embedded_test

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/tempdir"
	bgnats "github.com/bgagent/bgagent/nats"
	"github.com/bgagent/bgagent/nats/embedded"
	"github.com/bgagent/bgagent/storetest"
)

var kills = flag.Int("kills", 5, "number of servers that TestAKilledServerLosesNothing kills")

const (
	childServer = "BGAGENT_NATS_TEST_SERVER" // folder of the server that the process runs
	childOwner  = "BGAGENT_NATS_TEST_OWNER"  // address of the server whose store the process owns
)

// script returns the script that all processes of a test use.
func script() *storetest.Script {
	return storetest.NewScript(31, 800, time.Now().Truncate(24*time.Hour))
}

var keepAll = bgnats.StoreOptions{Grace: -1, KeepFor: -1, KeepTasks: -1, KeepBytes: -1}

// roles maps environment variables to functions. If one of the variables is set, a process of the
// test's executable calls the variable's function with its value, and runs no tests.
var roles = map[string]func(string) error{}

func TestMain(m *testing.M) {
	var err error
	for name, run := range roles {
		if text := os.Getenv(name); text != "" {
			if err = run(text); err != nil {
				fmt.Fprintln(os.Stderr, "failed:", err)
				os.Exit(1)
			}
			return
		}
	}
	switch dir, url := os.Getenv(childServer), os.Getenv(childOwner); {
	case os.Getenv(childSlots) != "":
		err = runSlots(os.Getenv(childSlots))
	case os.Getenv(childMember) != "":
		err = runMember(os.Getenv(childMember))
	case dir != "":
		err = runServer(dir)
	case url != "":
		err = runOwner(url)
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "failed:", err)
		os.Exit(1)
	}
}

// runServer runs a server until standard input ends, and writes the server's address.
func runServer(dir string) error {
	s, err := embedded.Start(embedded.Options{Dir: dir, Listen: "127.0.0.1:0"})
	if err != nil {
		return err
	}
	fmt.Println(s.URL())
	_, _ = io.Copy(io.Discard, os.Stdin)
	return s.Close()
}

// ahead is the number of batches that the child may write before the parent has read the reports about them.
const ahead = 5

// runOwner writes the missing batches of the script and reports each batch after it is written.
func runOwner(url string) error {
	nc, err := nats.Connect(url, nats.MaxReconnects(-1))
	if err != nil {
		return err
	}
	s, all := bgnats.NewStore(nc, "tasks", keepAll), script()
	c, err := s.Open(context.Background(), owner(os.Getpid()))
	if err != nil {
		return err
	}
	heard := bufio.NewScanner(os.Stdin)
	for n := int(c.Batch) + 1; n <= all.Len(); n++ {
		if n > int(c.Batch)+ahead {
			heard.Scan()
		}
		if err := s.Write(context.Background(), all.Batch(n)); err != nil {
			return err
		}
		fmt.Println(n)
	}
	return s.Close()
}

// child is a process that runs the test's executable.
type child struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func spawn(t *testing.T, env string) *child {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	c := &child{cmd: exec.Command(exe)}
	c.cmd.Env = append(os.Environ(), env)
	c.cmd.Stderr = os.Stderr
	out, err := c.cmd.StdoutPipe()
	require.NoError(t, err)
	c.out = bufio.NewScanner(out)
	c.in, err = c.cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, c.cmd.Start())
	t.Cleanup(c.kill)
	return c
}

// kill kills the process with SIGKILL. Later calls do nothing.
func (c *child) kill() {
	_ = c.cmd.Process.Kill() // fails if the process has already exited
	_ = c.cmd.Wait()         // an error means that the process was killed, or that an earlier call waited for it
}

func TestAKilledOwnerLosesNothingAndIsReplaced(t *testing.T) {
	server, err := embedded.Start(embedded.Options{Dir: tempdir.New(t), Listen: "127.0.0.1:0"})
	require.NoError(t, err)
	defer func() { require.NoError(t, server.Close()) }()
	nc, err := nats.Connect(server.URL())
	require.NoError(t, err)
	defer nc.Close()
	s, all, acked := bgnats.NewStore(nc, "tasks", keepAll), script(), 0
	for range 6 {
		c := spawn(t, childOwner+"="+server.URL())
		begun, heard := acked, 0
		for c.out.Scan() {
			_, err := fmt.Sscan(c.out.Text(), &acked)
			require.NoError(t, err)
			heard++
			if acked == begun+10 { // while the child owns the store, another process cannot open it
				_, err := s.Open(t.Context(), owner(1))
				requireOwner(t, err, c.cmd.Process.Pid)
			}
			if acked == begun+20 {
				_ = c.cmd.Process.Kill() // an error does not matter, because Wait reports how the child ended
			}
			_, _ = fmt.Fprintln(c.in) // fails if the child has been killed
		}
		c.kill()
		require.GreaterOrEqual(t, heard, 20)
		contents, err := s.Open(t.Context(), owner(1))
		require.NoError(t, err)
		require.NoError(t, all.Check(t.Context(), s, contents, acked, acked+ahead+1))
		acked = int(contents.Batch)
		require.NoError(t, s.Close())
	}
}

// serverProcess is a server in a separate process. The process can be killed and restarted.
type serverProcess struct {
	t   *testing.T
	dir string

	mu      sync.Mutex
	c       *child
	address string
}

func (s *serverProcess) start() {
	c := spawn(s.t, childServer+"="+s.dir)
	if !c.out.Scan() {
		s.t.Fatal("the server does not start")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.c, s.address = c, c.out.Text()[len("nats://"):]
}

// Dial implements [nats.CustomDialer]. It connects to the server's current address.
func (s *serverProcess) Dial(network, _ string) (net.Conn, error) {
	s.mu.Lock()
	address := s.address
	s.mu.Unlock()
	return net.Dial(network, address)
}

func TestAKilledServerLosesNothing(t *testing.T) {
	server := &serverProcess{t: t, dir: tempdir.New(t)}
	server.start()
	nc, err := nats.Connect("nats://here", nats.SetCustomDialer(server), nats.MaxReconnects(-1), nats.ReconnectWait(time.Millisecond), nats.ReconnectJitter(0, 0))
	require.NoError(t, err)
	defer nc.Close()
	all := script()
	s := bgnats.NewStore(nc, "tasks", keepAll)
	open(t, s, 1)
	uncertain, n := 0, 1
	for life := range *kills {
		victim := server.c
		for left := rand.IntN(20); ; left-- {
			if left == 0 { // kills the server at some moment during the next batches
				time.AfterFunc(rand.N(8*time.Millisecond), func() { _ = victim.cmd.Process.Kill() }) // an error does not matter, because Wait reports how the server ended
			}
			if err = s.Write(t.Context(), all.Batch(n)); err != nil {
				break
			}
			n++
		}
		if errors.Is(err, bgagent.ErrUncertain) {
			uncertain++
		}
		victim.kill()
		server.start()
		contents, err := s.Reopen(t.Context())
		require.NoError(t, err)
		require.NoError(t, all.Check(t.Context(), s, contents, n-1, n), "after the kill of server %d", life)
		n = int(contents.Batch) + 1
	}
	t.Logf("%d servers killed during %d batches, %d of them uncertain", *kills, n-1, uncertain)
	require.NoError(t, s.Close())
	contents := open(t, s, 2)
	require.NoError(t, all.Check(t.Context(), s, contents, n-1, n-1))
}
