package embedded_test

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/bgagent/bgagent"
	bgnats "github.com/bgagent/bgagent/nats"
	"github.com/bgagent/bgagent/nats/embedded"
	"github.com/bgagent/bgagent/nats/internal/alloc"
	"github.com/bgagent/bgagent/slottest"
)

// testLease is the slot lease in tests.
const testLease = 3 * time.Second

// line is a connection to a server. The connection can be cut.
type line struct {
	server nats.InProcessConnProvider
	mu     sync.Mutex
	cut    bool
	conns  []net.Conn
}

// InProcessConn implements [nats.InProcessConnProvider].
func (l *line) InProcessConn() (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut {
		return nil, errors.New("the line is cut")
	}
	conn, err := l.server.InProcessConn()
	l.conns = append(l.conns, conn)
	return conn, err
}

func (l *line) set(cut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = cut
	if cut {
		for _, c := range l.conns {
			_ = c.Close()
		}
		l.conns = nil
	}
}

// shorter counts the running tests that need short leases. The last of them to end restores
// the usual minimum.
var shorter struct {
	sync.Mutex
	tests int
	was   time.Duration
}

// shorterLease allows leases that are too short for real servers.
func shorterLease(t *testing.T) {
	shorter.Lock()
	defer shorter.Unlock()
	if shorter.tests++; shorter.tests == 1 {
		shorter.was, alloc.MinLease = alloc.MinLease, time.Second
	}
	t.Cleanup(func() {
		shorter.Lock()
		defer shorter.Unlock()
		if shorter.tests--; shorter.tests == 0 {
			alloc.MinLease = shorter.was
		}
	})
}

type tester interface {
	Helper()
	Fatalf(string, ...any)
	Cleanup(func())
	TempDir() string
}

// The function "joins" connects to the server and joins the group of processes that share slots.
func joins(t tester, server nats.InProcessConnProvider, o bgnats.SlotOptions) (*bgnats.Slots, *line) {
	t.Helper()
	l := &line{server: server}
	nc, err := nats.Connect("", nats.InProcessServer(l), nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond))
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(nc.Close)
	if o.Lease == 0 {
		o.Lease = testLease
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s, err := bgnats.NewSlots(ctx, nc, "agents", o)
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			t.Fatalf("%v", err)
		}
	})
	return s, l
}

func startServer(t tester) *embedded.Server {
	server, err := embedded.Start(embedded.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() { _ = server.Close() })
	return server
}

func TestSlotsPassTheConformanceSuite(t *testing.T) {
	shorterLease(t)
	var mu sync.Mutex
	lines := map[bgagent.SlotSource]*line{}
	slottest.Conformance(t, slottest.Harness{
		New: func(t slottest.TB, n int, l bgagent.Limits) (all []bgagent.SlotSource) {
			server := startServer(t)
			for range n {
				s, line := joins(t, server, bgnats.SlotOptions{Limits: l})
				all = append(all, s)
				mu.Lock()
				lines[s] = line
				mu.Unlock()
			}
			return all
		},
		Cut: func(s bgagent.SlotSource) (repair func()) {
			mu.Lock()
			defer mu.Unlock()
			l := lines[s]
			l.set(true)
			return func() { l.set(false) }
		},
		Within: 30 * time.Second,
	})
}
