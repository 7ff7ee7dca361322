//go:build linux

package embedded_test

import (
	"encoding/json"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent/nats/internal/alloc"
)

// leaseDialer makes connections that report which messages of this process the allocator has answered. The
// lease of the process begins when it sends such a message.
type leaseDialer struct{}

// Dial implements [nats.CustomDialer].
func (leaseDialer) Dial(network, address string) (net.Conn, error) {
	conn, err := net.DialTimeout(network, address, nats.DefaultTimeout)
	if err != nil {
		return nil, err
	}
	return &leaseConn{Conn: conn, asked: map[string]asked{}}, nil
}

// leaseConn is a connection of a leaseDialer.
type leaseConn struct {
	net.Conn
	out, in []byte // beginning of an incomplete message: what was written so far, and what was read so far

	mu    sync.Mutex
	asked map[string]asked // by the subject for the answer
}

// The type "asked" is a message to the allocator.
type asked struct {
	up alloc.Up
	at time.Time
}

// answeredWithin is the time after which a process no longer accepts the answer to a message. It is a little
// longer than requestWithin in the package bgnats.
const answeredWithin = 1100 * time.Millisecond

func (c *leaseConn) Write(b []byte) (int, error) {
	now := time.Now()
	c.out = append(c.out, b...)
	for {
		n, words, body := split(c.out)
		if n == 0 {
			return c.Conn.Write(b)
		}
		var up alloc.Up
		if len(words) == 4 && string(words[0]) == "PUB" && strings.Contains(string(words[1]), ".up.") && json.Unmarshal(body, &up) == nil {
			c.mu.Lock()
			c.asked[string(words[2])] = asked{up, now}
			c.mu.Unlock()
		}
		c.out = c.out[n:]
	}
}

func (c *leaseConn) Read(b []byte) (int, error) {
	got, err := c.Conn.Read(b)
	c.in = append(c.in, b[:got]...)
	for {
		n, words, body := split(c.in)
		if n == 0 {
			return got, err
		}
		if string(words[0]) == "MSG" {
			c.answered(string(words[1]), body)
		}
		c.in = c.in[n:]
	}
}

// The method "answered" is called with each message that arrives. If this process accepts the message as the
// answer to one of its own messages, the method reports the answer to the test. It ignores all other
// messages.
func (c *leaseConn) answered(subject string, body []byte) {
	c.mu.Lock()
	q, ok := c.asked[subject]
	delete(c.asked, subject)
	c.mu.Unlock()
	var d alloc.Down
	now := time.Now()
	if ok && now.Sub(q.at) < answeredWithin && json.Unmarshal(body, &d) == nil && d.Term == q.up.Term && d.Registration == q.up.Registration && !d.Register {
		report("answered", q.at.UnixNano(), now.UnixNano())
	}
}

// renewal is a process's message that the allocator has answered.
type renewal struct{ sent, answered time.Time }

// renewals returns the renewals of the process's lease. The field "sent" never decreases.
func (h *history) renewals(l *life) (all []renewal) {
	for _, x := range h.all() {
		if x.by != l || x.words[0] != "answered" {
			continue
		}
		sent, _ := strconv.ParseInt(x.words[1], 10, 64) // cannot fail, because the worker has printed a number
		at, _ := strconv.ParseInt(x.words[2], 10, 64)   // cannot fail for the same reason
		r := renewal{time.Unix(0, sent), time.Unix(0, at)}
		if n := len(all); n > 0 && r.sent.Before(all[n-1].sent) {
			r.sent = all[n-1].sent
		}
		all = append(all, r)
	}
	return all
}

// stopsWithin is the time that a process may need to stop its bodies after two thirds of the lease have
// passed. It is less than the rest of the lease.
const stopsWithin = worldLease / 5

// The constant "unclear" is the longest time that a process should need to handle an answer that it has read.
const unclear = 200 * time.Millisecond

// leaseProblem checks the bodies of a process against the renewals of its lease:
//
//   - No body begins later than two thirds of the lease, plus inFlight, after the last renewal was sent.
//   - If two thirds pass without another renewal, all bodies are stopped before the lease ends.
//   - Otherwise, no body is stopped.
//
// The process can get the answer to the next renewal at about the moment when two thirds have passed. If the
// two moments are less than unclear apart, its bodies may be stopped or continue. The method describes the
// first problem, or returns "". It also returns, for each body that was stopped, the time from the sending of
// the last renewal to the stop.
func (h *history) leaseProblem(l *life, now time.Time, unclear time.Duration) (problem string, stops []time.Duration) {
	renewals := h.renewals(l)
	const most = worldLease * 2 / 3
	for _, b := range h.bodies() {
		if b.by != l {
			continue
		}
		begins, stopped := false, false
		for i, r := range renewals {
			if !r.answered.After(b.begin) && b.begin.Sub(r.sent) < most+inFlight {
				begins = true
			}
			over := r.sent.Add(most)
			isLast := i == len(renewals)-1
			if !isLast && renewals[i+1].answered.Before(over.Add(-unclear)) {
				continue // the lease was renewed in time
			}
			runs := b.begin.Before(over) && (b.end.IsZero() || b.end.After(over))
			by := b.end
			if by.IsZero() {
				by = now
			}
			if runs && by.After(over.Add(stopsWithin)) && (isLast || renewals[i+1].answered.After(over.Add(unclear))) {
				return "a body of the process " + l.name + " ran for longer than two thirds of the lease after the last answered message was sent, for " + by.Sub(r.sent).String() + ":" + h.around(b.last), nil
			}
			if runs && b.stopped && !by.After(over.Add(stopsWithin)) {
				stopped = true
				stops = append(stops, b.end.Sub(r.sent))
				break
			}
		}
		switch {
		case !begins:
			return "a body began in the process " + l.name + ", whose last answered message was sent more than two thirds of the lease before:" + h.around(b.first), nil
		case b.stopped && !stopped:
			return "a body of the process " + l.name + " was stopped although its lease was renewed in time:" + h.around(b.last), nil
		}
	}
	return "", stops
}

func TestTheJudgeOfTheWorldKnowsTheLease(t *testing.T) {
	l := &life{name: "edge"}
	at := func(seconds float64) time.Time { return time.UnixMilli(1e12 + int64(seconds*1000)) }
	ns := func(seconds float64) string { return strconv.FormatInt(at(seconds).UnixNano(), 10) }
	for name, x := range map[string]struct {
		lines   string
		problem string
		stops   []time.Duration
	}{
		"renewed in time":                    {"answered 0 0.1; begin 1 1; answered 9 9.1; end 1 18", "", nil},
		"stopped after two thirds":           {"answered 0 0.1; begin 1 1; begin 2 1; stop 1 10.1; end 2 10.2; answered 11 11.1; begin 3 11.2", "", []time.Duration{10100 * time.Millisecond}},
		"an answer that comes at that time":  {"answered 0 0.1; begin 1 1; begin 2 1; answered 9.9 10.1; stop 1 10.2; end 2 16", "", []time.Duration{10200 * time.Millisecond}},
		"a body goes on":                     {"answered 0 0.1; begin 1 1; answered 11 11.1; end 1 14", "ran for longer than two thirds", nil},
		"a body has not ended":               {"answered 0 0.1; begin 1 1", "ran for longer than two thirds", nil},
		"a body begins before the answer":    {"answered 0 0.1; begin 1 11.5; answered 11 11.6", "whose last answered message was sent more than two thirds", nil},
		"a body begins without an answer":    {"begin 1 1", "whose last answered message was sent more than two thirds", nil},
		"stopped although renewed":           {"answered 0 0.1; begin 1 1; answered 9 9.1; stop 1 10.1", "although its lease was renewed in time", nil},
		"stopped before two thirds":          {"answered 0 0.1; begin 1 1; stop 1 9.1", "although its lease was renewed in time", nil},
		"an older message is answered later": {"answered 5 5.1; answered 4 5.2; begin 1 6; answered 14.4 14.5; end 1 18", "", nil},
	} {
		h := history{}
		for line := range strings.SplitSeq(x.lines, "; ") {
			w := strings.Fields(line)
			second, err := strconv.ParseFloat(w[2], 64)
			require.NoError(t, err)
			if w[0] == "answered" {
				first, err := strconv.ParseFloat(w[1], 64)
				require.NoError(t, err)
				h.add(l, "answered "+ns(first)+" "+ns(second))
				continue
			}
			h.add(l, w[0]+" a "+w[1]+" "+ns(second))
		}
		problem, stops := h.leaseProblem(l, at(20), unclear)
		require.Equal(t, x.stops, stops, name)
		if x.problem == "" {
			require.Empty(t, problem, name)
		}
		require.Contains(t, problem, x.problem, name)
	}
}
