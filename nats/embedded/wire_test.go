package embedded_test

import (
	"bytes"
	"errors"
	"net"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent/nats/embedded"
	"github.com/bgagent/bgagent/storetest"
)

// process is a simulated process's connection. It can be cut between any two messages.
type process struct {
	server *embedded.Server
	nc     *nats.Conn

	mu   sync.Mutex
	dead bool // no connection can be made
	live net.Conn
	plan func(f frame) verdict
}

// frame is a message that the client sends to the server.
type frame struct {
	subject string
	write   bool // the message belongs to a batch, or is a batch of one message
	commit  bool // the message is the last one of its batch
}

// verdict says what happens to the connection when the client sends a message.
type verdict int

const (
	pass      verdict = iota
	cutBefore         // the server does not get the message
	cutAfter          // the server gets the message, but the client does not get the answer
)

// newProcess connects to the server. The caller must close the connection.
func newProcess(t storetest.TB, server *embedded.Server) *process {
	t.Helper()
	p := &process{server: server}
	nc, err := nats.Connect("", nats.InProcessServer(p), nats.MaxReconnects(-1), nats.ReconnectWait(time.Millisecond), nats.ReconnectJitter(0, 0),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		t.Fatalf("%v", err)
	}
	p.nc = nc
	return p
}

// crash ends the process.
func (p *process) crash() {
	p.mu.Lock()
	p.dead = true
	live := p.live
	p.mu.Unlock()
	_ = live.Close() // fails if the connection is already cut
	p.nc.Close()
}

func (p *process) isDead() bool {
	p.mu.Lock()
	dead := p.dead
	p.mu.Unlock()
	return dead || p.nc.IsClosed() // must not be called while p.mu is held: IsClosed takes the client's lock, and the client holds that lock when it calls InProcessConn, which takes p.mu
}

// settle waits until the process is connected or dead. It does not call Flush, because Flush hangs on a
// connection that was interrupted while it was reconnecting.
func (p *process) settle() {
	for !p.isDead() {
		if p.nc.Status() == nats.CONNECTED {
			if _, err := p.nc.Request("$JS.API.INFO", nil, 200*time.Millisecond); err == nil {
				return
			}
		}
		runtime.Gosched()
	}
}

// The method "part" cuts the connection and prevents the client from opening a new one until the returned
// function is called.
func (p *process) part() (heal func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dead = true
	_ = p.live.Close() // fails if the connection is already cut
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.dead = false
	}
}

// The method "at" sets the function that decides what happens to the connection at each message that the
// client sends.
func (p *process) at(plan func(frame) verdict) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.plan = plan
}

// crashAt makes the process die at the given place in the next batch. There is a place before each
// message, and one after the last message, before the answer.
func (p *process) crashAt(place int) {
	sent := 0
	die := func(how verdict) verdict {
		p.dead = true
		go p.nc.Close() // ends the calls in progress; the client holds its lock now
		return how
	}
	p.at(func(f frame) verdict {
		switch {
		case !f.write:
			return pass
		case sent == place:
			return die(cutBefore)
		case f.commit && sent+1 == place:
			return die(cutAfter)
		}
		sent++
		return pass
	})
}

// loseAnswer cuts the connection at the last message of the next batch, once. After that, it cuts the
// connection at later messages of any kind; the numbers say how many messages pass before each cut.
func (p *process) loseAnswer(how verdict, later ...int) {
	done := false
	p.at(func(f frame) verdict {
		switch {
		case !done && f.commit:
			done = true
			return how
		case done && len(later) > 0 && later[0] == 0:
			later = later[1:]
			return cutBefore
		case done && len(later) > 0:
			later[0]--
		}
		return pass
	})
}

// InProcessConn implements [nats.InProcessConnProvider].
func (p *process) InProcessConn() (net.Conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dead {
		return nil, errors.New("the process is dead")
	}
	c, err := p.server.InProcessConn()
	if err != nil {
		return nil, err
	}
	p.live = c
	return &watchedConn{Conn: c, p: p}, nil
}

// watchedConn splits what the client writes into protocol messages.
type watchedConn struct {
	net.Conn
	p    *process
	rest []byte
}

func (c *watchedConn) Write(b []byte) (int, error) {
	c.rest = append(c.rest, b...)
	for {
		n, f := parse(c.rest)
		if n == 0 {
			return len(b), nil
		}
		c.p.mu.Lock()
		v := pass
		if c.p.plan != nil {
			v = c.p.plan(f)
		}
		c.p.mu.Unlock()
		if v != cutBefore {
			if _, err := c.Conn.Write(c.rest[:n]); err != nil {
				return 0, err
			}
		}
		if v != pass {
			return 0, errors.Join(net.ErrClosed, c.Conn.Close())
		}
		c.rest = c.rest[n:]
	}
}

// split returns the length of the first protocol message in b, the words of its first line, and its body with
// the headers. If the message is incomplete, the length is 0.
func split(b []byte) (n int, words [][]byte, body []byte) {
	end := bytes.Index(b, []byte("\r\n"))
	if end < 0 {
		return 0, nil, nil
	}
	words = bytes.Fields(b[:end])
	n = end + 2
	if len(words) == 0 {
		return n, [][]byte{nil}, nil
	}
	switch string(words[0]) {
	case "PUB", "HPUB", "MSG", "HMSG":
	default:
		return n, words, nil
	}
	size, err := strconv.Atoi(string(words[len(words)-1]))
	if err != nil {
		panic(err)
	}
	if len(b) < n+size+2 {
		return 0, nil, nil
	}
	return n + size + 2, words, b[n : n+size]
}

// parse returns the length of the first message in b, or 0 if the message is incomplete.
func parse(b []byte) (n int, f frame) {
	n, line, body := split(b)
	if n == 0 || !bytes.Equal(line[0], []byte("PUB")) && !bytes.Equal(line[0], []byte("HPUB")) {
		return n, f
	}
	f.subject = string(line[1])
	if len(line[0]) == 4 {
		header, err := strconv.Atoi(string(line[len(line)-2]))
		if err != nil {
			panic(err)
		}
		head := body[:header]
		batch := bytes.Contains(head, []byte("Nats-Batch-Id:"))
		f.write = batch || bytes.Contains(head, []byte("Nats-Expected-Last-Subject-Sequence:"))
		f.commit = f.write && !batch || bytes.Contains(head, []byte("Nats-Batch-Commit:"))
	}
	return n, f
}

func TestTheMessagesOfTheProtocolAreDivided(t *testing.T) {
	for _, x := range []struct {
		text string
		n    int
		f    frame
	}{
		{"PING\r\nPONG\r\n", 6, frame{}},
		{"PING\r", 0, frame{}},
		{"PUB a 3\r\nxyz\r\nrest", 14, frame{subject: "a"}},
		{"PUB a r 3\r\nxyz\r", 0, frame{}},
		{"HPUB a 30 32\r\nNATS/1.0\r\nNats-Batch-Id: x\r\n\r\nab\r\n", 48, frame{subject: "a", write: true}},
		{"HPUB a 34 34\r\nNATS/1.0\r\nNats-Batch-Commit: 1\r\n\r\n\r\n", 50, frame{subject: "a", commit: true}},
	} {
		n, f := parse([]byte(x.text))
		require.Equal(t, x.n, n, x.text)
		require.Equal(t, x.f, f, x.text)
	}
}
