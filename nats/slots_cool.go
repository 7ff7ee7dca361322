package bgnats

import (
	"crypto/rand"
	"encoding/json"
	"maps"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/bgagent/bgagent"
)

// A cools value shares cool-downs between the managers of all processes. Each process keeps the cool-downs
// that its managers have reported or received, and repeats them to every manager that joins later.
type cools struct {
	mu    sync.Mutex
	users map[*coolUser]struct{}
	known map[coolKey]coolEnd
}

// coolUser is a manager that shares cool-downs.
type coolUser struct {
	id   string // unique among all processes
	hear func(bgagent.CoolDown)
}

// coolKey names the pool that a cool-down concerns, as far as a process can tell.
type coolKey struct {
	model, agent string
	provider     bool
}

// coolEnd contains the time when a cool-down ends, and the time from which the provider accepts requests
// again (zero if unknown). Both times include a monotonic clock reading.
type coolEnd struct{ until, retryAt time.Time }

// maxCools is the maximum number of cool-downs that a process keeps. It ignores further ones. Managers have
// the same limit.
const maxCools = 1000

// coolMsg is a message about cool-downs on the subject coolSubject.
type coolMsg struct {
	From string    `json:"from"`           // the process
	Sent time.Time `json:"sent"`           // when the message was sent
	Join string    `json:"join,omitempty"` // id of a manager that has joined, to which the others must repeat their cool-downs
	To   string    `json:"to,omitempty"`   // id of the only manager that the message is for; empty if it is for all
	Cool []coolFor `json:"cool,omitempty"`
}

// coolFor describes a cool-down. Its times are relative to the time when the message was sent.
type coolFor struct {
	Model    string        `json:"model,omitempty"`
	Agent    string        `json:"agent,omitempty"`
	Provider bool          `json:"provider,omitempty"`
	For      time.Duration `json:"for"`
	RetryIn  time.Duration `json:"retry_in,omitempty"`
}

var _ bgagent.CoolDownSource = (*Slots)(nil)

// ShareCoolDowns implements [bgagent.CoolDownSource]. Messages about cool-downs can be lost, for example
// while a process has no connection. The managers of that process then learn about the cool-down when their
// own turns are refused.
func (s *Slots) ShareCoolDowns(hear func(bgagent.CoolDown)) (tell func(bgagent.CoolDown), stop func()) {
	u := &coolUser{rand.Text(), hear}
	c := &s.cools
	c.mu.Lock()
	c.users[u] = struct{}{}
	now := c.current(time.Now())
	c.mu.Unlock()
	for _, d := range now {
		hear(bgagent.CoolDown(d))
	}
	s.publishCool(coolMsg{Join: u.id})
	tell = func(d bgagent.CoolDown) {
		c.mu.Lock()
		c.keep(time.Now(), d)
		hearers := c.hearers(func(x *coolUser) bool { return x != u })
		c.mu.Unlock()
		s.publishCool(coolMsg{Cool: []coolFor{coolFor(d)}})
		for _, hear := range hearers {
			hear(d)
		}
	}
	stop = func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.users, u)
	}
	return tell, stop
}

// heardCool passes the cool-downs in a message on to the managers of this process. If the message says that a
// manager has joined, heardCool sends it the cool-downs that this process keeps.
func (s *Slots) heardCool(m *nats.Msg) {
	var x coolMsg
	if json.Unmarshal(m.Data, &x) != nil || x.From == s.me {
		return
	}
	// The age matters because a process that was frozen receives old messages. If the sender's clock is slow,
	// cool-downs end too early here, and a turn of this process is refused.
	now := time.Now()
	age := max(now.Sub(x.Sent), 0)
	for i := range x.Cool {
		d := &x.Cool[i]
		d.For, d.RetryIn = d.For-age, max(d.RetryIn-age, 0)
	}
	c := &s.cools
	c.mu.Lock()
	var repeat []coolFor
	if x.Join != "" {
		repeat = c.current(now)
	}
	hearers := c.hearers(func(u *coolUser) bool { return x.To == "" || u.id == x.To })
	if len(hearers) > 0 {
		for _, d := range x.Cool {
			c.keep(now, bgagent.CoolDown(d))
		}
	}
	c.mu.Unlock()
	if len(repeat) > 0 {
		s.publishCool(coolMsg{To: x.Join, Cool: repeat})
	}
	for _, d := range x.Cool {
		for _, hear := range hearers {
			hear(bgagent.CoolDown(d))
		}
	}
}

// publishCool sends a message about cool-downs. Without a connection, it drops the message: the other
// processes then cool down only when their own turns are refused.
func (s *Slots) publishCool(m coolMsg) {
	m.From, m.Sent = s.me, time.Now()
	if body, err := json.Marshal(m); err == nil && s.w.nc.IsConnected() {
		_ = s.w.nc.Publish(s.coolSubject(), body)
	}
}

func (s *Slots) coolSubject() string { return s.w.root + ".cool" }

// keep stores a cool-down, and removes the cool-downs that have ended. The caller must hold c.mu.
func (c *cools) keep(now time.Time, d bgagent.CoolDown) {
	maps.DeleteFunc(c.known, func(_ coolKey, e coolEnd) bool { return !e.until.After(now) })
	e := coolEnd{until: now.Add(d.For)}
	if d.RetryIn > 0 {
		e.retryAt = now.Add(d.RetryIn)
	}
	k := coolKey{d.Model, d.Agent, d.Provider}
	if old, ok := c.known[k]; d.For <= 0 || ok && !e.until.After(old.until) || !ok && len(c.known) >= maxCools {
		return
	}
	c.known[k] = e
}

// current returns the cool-downs that have not ended. The caller must hold c.mu.
func (c *cools) current(now time.Time) (list []coolFor) {
	for k, e := range c.known {
		d := coolFor{Model: k.model, Agent: k.agent, Provider: k.provider, For: e.until.Sub(now)}
		if d.For <= 0 {
			continue
		}
		if !e.retryAt.IsZero() {
			d.RetryIn = max(e.retryAt.Sub(now), 0)
		}
		list = append(list, d)
	}
	return list
}

// hearers returns the "hear" functions of the managers for which the function "of" returns true. The caller
// must hold c.mu.
func (c *cools) hearers(of func(*coolUser) bool) (list []func(bgagent.CoolDown)) {
	for x := range c.users {
		if of(x) {
			list = append(list, x.hear)
		}
	}
	return list
}
