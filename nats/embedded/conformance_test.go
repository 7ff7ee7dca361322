package embedded_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/race"
	bgnats "github.com/bgagent/bgagent/nats"
	"github.com/bgagent/bgagent/nats/embedded"
	"github.com/bgagent/bgagent/storetest"
)

func TestAStoreOnJetStreamKeepsThePromisesOfAStore(t *testing.T) {
	server := start(t)
	storetest.Conformance(t, storetest.Harness{New: func(t storetest.TB) storetest.Content { return newContent(t, server) }})
}

func start(t storetest.TB) *embedded.Server {
	t.Helper()
	return startIn(t, t.TempDir())
}

func startIn(t storetest.TB, dir string) *embedded.Server {
	t.Helper()
	s, err := embedded.StartWith(embedded.Options{Dir: dir}, func(o *server.Options) {
		o.JetStreamLimits.MaxBatchInflightPerStream = 900 // more than the default, because the server counts the open batches of a simulated process for ten seconds after the process dies
	})
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("%v", err)
		}
	})
	return s
}

var stores atomic.Int64

// content is a store on a server, and the simulated processes that use it.
type content struct {
	t      storetest.TB
	server *embedded.Server
	name   string
	admin  *nats.Conn

	mu        sync.Mutex
	processes map[bgagent.Store]*process
}

func newStores(t storetest.TB, server *embedded.Server) *content {
	t.Helper()
	admin, err := nats.Connect("", server.Connection())
	if err != nil {
		t.Fatalf("%v", err)
	}
	c := &content{t: t, server: server, name: fmt.Sprint("store", stores.Add(1)), admin: admin, processes: map[bgagent.Store]*process{}}
	t.Cleanup(func() {
		for _, p := range c.processes {
			p.crash()
		}
		admin.Close()
	})
	return c
}

// store returns the store in a new simulated process.
func (c *content) store(o bgnats.StoreOptions) (*bgnats.Store, *process) {
	c.t.Helper()
	p := newProcess(c.t, c.server)
	o.Grace = -1
	s := bgnats.NewStore(p.nc, c.name, o)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.processes[s] = p
	return s, p
}

// settle waits until all living processes are connected. The stores have no grace period, so another
// process could take over a store while its owner reconnects.
func (c *content) settle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.processes {
		p.settle()
	}
}

func (c *content) of(s bgagent.Store) *process {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.processes[s]
}

// newContent returns a store's content, with all the functions that the suite can use.
func newContent(t storetest.TB, server *embedded.Server) storetest.Content {
	c := contentOf(newStores(t, server), bgnats.StoreOptions{})
	if race.Enabled {
		const step = 4
		crashAt, first := c.CrashAt, rand.IntN(step) // CrashAt uses every step-th place, beginning with the place "first"
		c.CrashAt = func(s bgagent.Store, place int) { crashAt(s, first+step*place) }
	}
	return c
}

// contentOf returns the content of stores with the given options. The places of CrashAt are those of
// process.crashAt.
func contentOf(c *content, o bgnats.StoreOptions) storetest.Content {
	losses := 0
	return storetest.Content{
		Process: func() bgagent.Store {
			c.settle()
			s, _ := c.store(o)
			return s
		},
		Crash:   func(s bgagent.Store) { c.of(s).crash() },
		CrashAt: func(s bgagent.Store, place int) { c.of(s).crashAt(place) },
		LoseAnswer: func(s bgagent.Store) {
			losses++
			c.of(s).loseAnswer([]verdict{cutBefore, cutAfter}[losses%2])
		},
		Damage:     func(key string) { c.spoil("r." + token(key)) },
		DamageText: func(record, name string) { c.spoil("x." + token(record) + ".t" + token(name) + ".0") },
	}
}

func token(s string) string { return "k" + base64.RawURLEncoding.EncodeToString([]byte(s)) }

// spoil changes the first byte of a message, as a faulty disk might.
func (c *content) spoil(subject string) {
	c.t.Helper()
	c.change(subject, func(m *nats.Msg) { m.Data[0] ^= 1 })
	c.change("m", func(*nats.Msg) {}) // a batch must end with the message about the store
}

// The method "change" publishes a changed copy of the last message on the subject.
func (c *content) change(subject string, f func(*nats.Msg)) {
	c.t.Helper()
	m := c.last(subject)
	f(m)
	js, err := c.admin.JetStream()
	if err == nil {
		_, err = js.PublishMsg(m)
	}
	if err != nil {
		c.t.Fatalf("%v", err)
	}
}

// last returns the last message on the subject, without the headers for the server.
func (c *content) last(subject string) *nats.Msg {
	c.t.Helper()
	js, err := c.admin.JetStream()
	if err != nil {
		c.t.Fatalf("%v", err)
	}
	subject = "bgagent." + c.name + "." + subject
	raw, err := js.GetLastMsg("BGAGENT_"+c.name, subject)
	if err != nil {
		c.t.Fatalf("%s: %v", subject, err)
	}
	m := &nats.Msg{Subject: subject, Header: nats.Header{}, Data: raw.Data}
	for k, v := range raw.Header {
		if !strings.HasPrefix(k, "Nats-") {
			m.Header[k] = v
		}
	}
	return m
}

// meta returns the content of the message about the store.
func (c *content) meta() (m struct {
	Epoch, Batch, Swept uint64
	Token               string
	Journal             any
}) {
	c.t.Helper()
	if err := json.Unmarshal(c.last("m").Data, &m); err != nil {
		c.t.Fatalf("%v", err)
	}
	return m
}
