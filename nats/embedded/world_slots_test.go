//go:build linux

package embedded_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/bgagent/bgagent"
	bgnats "github.com/bgagent/bgagent/nats"
	"github.com/bgagent/bgagent/nats/embedded"
	"github.com/bgagent/bgagent/nats/internal/alloc"
	"github.com/bgagent/bgagent/slottest"
)

const childSource = "BGAGENT_NATS_TEST_SOURCE" // makes the process serve its slots to the test; the value is a sourcePlan

func init() { roles[childSource] = runSource }

type sourcePlan struct {
	URL    string
	Limits bgagent.Limits
}

// order is a message from the test to the process.
type order struct {
	Do      string // stands for a method of the source or of a claim, or is "cut" or "mend"
	ID      int    // number of the claim, or of the call
	Claim   int    `json:",omitempty"`
	Request bgagent.SlotRequest
}

// news is a message from the process to the test.
type news struct {
	Do     string // value of Do in the order that the message answers, or "granted" or "lost"
	ID     int
	OK     bool                `json:",omitempty"`
	Until  time.Time           `json:",omitzero"`
	Why    string              `json:",omitempty"`
	Limits bgagent.Limits      `json:",omitzero"`
	Pools  []bgagent.PoolStats `json:",omitempty"`
}

// dialer connects to the server, unless it is cut off.
type dialer struct {
	mu    sync.Mutex
	cut   bool
	conns []net.Conn
}

// Dial implements [nats.CustomDialer].
func (d *dialer) Dial(network, address string) (net.Conn, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cut {
		return nil, errors.New("the line is cut")
	}
	conn, err := net.Dial(network, address)
	if err == nil {
		d.conns = append(d.conns, conn)
	}
	return conn, err
}

func (d *dialer) set(cut bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cut = cut; cut {
		for _, c := range d.conns {
			_ = c.Close()
		}
		d.conns = nil
	}
}

// The type "told" is a holder that passes its calls on to the test.
type told struct {
	id   int
	tell func(news)
}

func (h told) SlotGranted() { h.tell(news{Do: "granted", ID: h.id}) }
func (h told) SlotLost(until time.Time, why error) {
	h.tell(news{Do: "lost", ID: h.id, Until: until, Why: why.Error()})
}

// runSource executes the orders that it reads from standard input. It shares its slots with other processes.
func runSource(text string) error {
	var p sourcePlan
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		return err
	}
	alloc.MinLease = time.Second
	line := &dialer{}
	nc, err := nats.Connect(p.URL, nats.SetCustomDialer(line), nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond))
	if err != nil {
		return err
	}
	defer nc.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s, err := bgnats.NewSlots(ctx, nc, "agents", bgnats.SlotOptions{Limits: p.Limits, Lease: testLease})
	if err != nil {
		return err
	}
	var mu sync.Mutex
	out := json.NewEncoder(os.Stdout)
	tell := func(n news) {
		mu.Lock()
		defer mu.Unlock()
		_ = out.Encode(n) // fails if the test is over
	}
	claims := map[int]bgagent.SlotClaim{}
	tell(news{Do: "joined"})
	for in := json.NewDecoder(os.Stdin); ; {
		var o order
		if in.Decode(&o) != nil {
			break
		}
		switch o.Do {
		case "request":
			claims[o.ID] = s.Request(o.Request, told{o.ID, tell})
		case "release":
			claims[o.ID].Release()
		case "begin":
			tell(news{Do: o.Do, ID: o.ID, OK: claims[o.Claim].MayBegin()})
		case "limits":
			tell(news{Do: o.Do, ID: o.ID, Limits: s.Limits()})
		case "pools":
			tell(news{Do: o.Do, ID: o.ID, Pools: s.Pools()})
		case "cut", "mend":
			line.set(o.Do == "cut")
			tell(news{Do: o.Do, ID: o.ID})
		}
	}
	closing, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return s.Close(closing)
}

// remote is a source of slots in another process.
type remote struct {
	cmd *exec.Cmd

	mu      sync.Mutex
	out     *json.Encoder
	last    int
	holders map[int]bgagent.SlotHolder
	calls   map[int]chan news
}

func newRemote(t slottest.TB, url string, l bgagent.Limits) *remote {
	t.Helper()
	r := &remote{holders: map[int]bgagent.SlotHolder{}, calls: map[int]chan news{}}
	exe, err := os.Executable()
	if err != nil {
		t.Fatalf("%v", err)
	}
	plan, err := json.Marshal(sourcePlan{url, l})
	if err != nil {
		t.Fatalf("%v", err)
	}
	r.cmd = exec.Command(exe)
	r.cmd.Env = append(os.Environ(), childSource+"="+string(plan))
	r.cmd.Stderr = os.Stderr
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := r.cmd.StdinPipe()
	if err != nil {
		t.Fatalf("%v", err)
	}
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		t.Fatalf("%v", err)
	}
	if err := r.cmd.Start(); err != nil {
		t.Fatalf("%v", err)
	}
	r.out = json.NewEncoder(in)
	joined, read := make(chan struct{}), make(chan struct{})
	toHolders := make(chan news, 10000) // a separate queue, because a holder can call methods, and their answers must be read while the holder waits for them
	go func() {
		defer close(read)
		defer close(toHolders)
		for from := json.NewDecoder(bufio.NewReader(out)); ; {
			var n news
			if from.Decode(&n) != nil {
				return
			}
			switch n.Do {
			case "joined":
				close(joined)
			case "granted", "lost":
				toHolders <- n
			default:
				r.mu.Lock()
				answer := r.calls[n.ID]
				delete(r.calls, n.ID)
				r.mu.Unlock()
				answer <- n
			}
		}
	}()
	go func() {
		for n := range toHolders {
			r.mu.Lock()
			h := r.holders[n.ID]
			r.mu.Unlock()
			switch {
			case h == nil: // released
			case n.Do == "granted":
				h.SlotGranted()
			default:
				h.SlotLost(n.Until, fmt.Errorf("%w: %s", bgagent.ErrSlotLost, n.Why))
			}
		}
	}()
	t.Cleanup(func() {
		_ = r.cmd.Process.Kill()
		<-read
		_ = r.cmd.Wait() // returns an error, because the process was killed
	})
	select {
	case <-joined:
	case <-read:
		t.Fatalf("the process has not joined")
	}
	return r
}

// order sends an order, with a new number if it has none. It returns the number.
func (r *remote) order(o order, before func(id int)) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if o.ID == 0 {
		r.last++
		o.ID = r.last
	}
	if before != nil {
		before(o.ID)
	}
	_ = r.out.Encode(o) // cannot fail during the test, because the process ends only with the test
	return o.ID
}

// call sends an order and returns the answer.
func (r *remote) call(o order) news {
	answer := make(chan news, 1)
	r.order(o, func(id int) { r.calls[id] = answer })
	return <-answer
}

func (r *remote) Request(q bgagent.SlotRequest, h bgagent.SlotHolder) bgagent.SlotClaim {
	return &remoteClaim{r, r.order(order{Do: "request", Request: q}, func(id int) { r.holders[id] = h })}
}

func (r *remote) Limits() bgagent.Limits     { return r.call(order{Do: "limits"}).Limits }
func (r *remote) Pools() []bgagent.PoolStats { return r.call(order{Do: "pools"}).Pools }

type remoteClaim struct {
	r  *remote
	id int
}

func (k *remoteClaim) Release() {
	k.r.order(order{Do: "release", ID: k.id}, func(id int) { delete(k.r.holders, id) })
}

func (k *remoteClaim) MayBegin() bool { return k.r.call(order{Do: "begin", Claim: k.id}).OK }

// TestSlotsOfThreeOSProcessesPassTheConformanceSuite runs each source of the suite in an operating-system
// process of its own.
func TestSlotsOfThreeOSProcessesPassTheConformanceSuite(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts many processes")
	}
	t.Parallel()
	slottest.Conformance(t, slottest.Harness{
		New: func(t slottest.TB, n int, l bgagent.Limits) (all []bgagent.SlotSource) {
			server, err := embedded.Start(embedded.Options{Dir: t.TempDir(), Listen: "127.0.0.1:0"})
			if err != nil {
				t.Fatalf("%v", err)
			}
			t.Cleanup(func() { _ = server.Close() })
			for range n {
				all = append(all, newRemote(t, server.URL(), l))
			}
			return all
		},
		Cut: func(s bgagent.SlotSource) (repair func()) {
			s.(*remote).call(order{Do: "cut"})
			return func() { s.(*remote).call(order{Do: "mend"}) }
		},
		Within: 30 * time.Second,
	})
}
