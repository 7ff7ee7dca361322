package bgnats

import (
	"encoding/json"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/bgagent/bgagent"
)

// A cools value shares cool-downs between the managers of all processes. Each process keeps the
// cool-downs that its own managers have reported, and repeats them when another process joins.
type cools struct {
	mu    sync.Mutex
	users map[*coolUser]struct{}
	own   map[coolKey]coolEnd
}

// coolUser is a manager that shares cool-downs. Only its address matters.
type coolUser struct{ hear func(bgagent.CoolDown) }

// coolKey names the pool that a cool-down concerns, as far as a process can tell.
type coolKey struct {
	model, agent string
	provider     bool
}

// coolEnd is a cool-down that one of this process's managers has reported.
type coolEnd struct {
	by             *coolUser
	until, retryAt time.Time // with a reading of the monotonic clock; retryAt may be zero
	tries          int
}

// coolMsg is a message about cool-downs on the subject coolSubject.
type coolMsg struct {
	From string    `json:"from"`           // the process
	Sent time.Time `json:"sent"`           // when the message was sent
	Join bool      `json:"join,omitempty"` // the process has joined, so the others must repeat their cool-downs
	Cool []coolFor `json:"cool,omitempty"`
}

// coolFor describes a cool-down with times relative to the sending of the message.
type coolFor struct {
	Model    string        `json:"model,omitempty"`
	Agent    string        `json:"agent,omitempty"`
	Provider bool          `json:"provider,omitempty"`
	For      time.Duration `json:"for"`
	RetryIn  time.Duration `json:"retry_in,omitempty"`
	Tries    int           `json:"tries,omitempty"`
}

var _ bgagent.CoolDownSource = (*Slots)(nil)

// ShareCoolDowns implements [bgagent.CoolDownSource]. Messages about cool-downs can be lost, for example
// while a process has no connection. The managers of that process then learn about the cool-down when their
// own turns are refused.
func (s *Slots) ShareCoolDowns(hear func(bgagent.CoolDown)) (tell func(bgagent.CoolDown), stop func()) {
	u := &coolUser{hear}
	c := &s.cools
	c.mu.Lock()
	c.users[u] = struct{}{}
	now := c.current(time.Now(), func(e coolEnd) bool { return e.by != u })
	c.mu.Unlock()
	for _, d := range now { // also those of the other managers in this process
		hear(bgagent.CoolDown(d))
	}
	s.publishCool(coolMsg{From: s.me, Join: true})
	tell = func(d bgagent.CoolDown) {
		c.mu.Lock()
		c.keep(time.Now(), u, d)
		hearers := c.hearers(u)
		c.mu.Unlock()
		s.publishCool(coolMsg{From: s.me, Cool: []coolFor{coolFor(d)}})
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

// heardCool handles a message about cool-downs.
func (s *Slots) heardCool(m *nats.Msg) {
	var x coolMsg
	if json.Unmarshal(m.Data, &x) != nil || x.From == s.me {
		return
	}
	// The age matters because a process that was frozen receives old messages. If the sender's clock is slow,
	// cool-downs end too early here, and a turn of this process is refused.
	age := max(time.Since(x.Sent), 0)
	c := &s.cools
	c.mu.Lock()
	var own []coolFor
	if x.Join {
		own = c.current(time.Now(), func(coolEnd) bool { return true })
	}
	hearers := c.hearers(nil)
	c.mu.Unlock()
	if len(own) > 0 {
		s.publishCool(coolMsg{From: s.me, Cool: own})
	}
	for _, d := range x.Cool {
		d.For -= age
		d.RetryIn = max(d.RetryIn-age, 0)
		for _, hear := range hearers {
			hear(bgagent.CoolDown(d))
		}
	}
}

// publishCool sends a message about cool-downs. Without a connection, it drops the message: the other
// processes learn about the limit when their own turns are refused.
func (s *Slots) publishCool(m coolMsg) {
	m.Sent = time.Now()
	if body, err := json.Marshal(m); err == nil && s.w.nc.IsConnected() {
		_ = s.w.nc.Publish(s.coolSubject(), body)
	}
}

func (s *Slots) coolSubject() string { return s.w.root + ".cool" }

// keep stores a cool-down, and removes the cool-downs that have ended. c.mu is locked.
func (c *cools) keep(now time.Time, u *coolUser, d bgagent.CoolDown) {
	for k, e := range c.own {
		if !e.until.After(now) {
			delete(c.own, k)
		}
	}
	e := coolEnd{by: u, until: now.Add(d.For), tries: d.Tries}
	if d.RetryIn > 0 {
		e.retryAt = now.Add(d.RetryIn)
	}
	c.own[coolKey{d.Model, d.Agent, d.Provider}] = e
}

// current returns the cool-downs that last beyond the given time and for which the function returns
// true. c.mu is locked.
func (c *cools) current(now time.Time, of func(coolEnd) bool) (list []coolFor) {
	for k, e := range c.own {
		d := coolFor{Model: k.model, Agent: k.agent, Provider: k.provider, For: e.until.Sub(now), Tries: e.tries}
		if d.For <= 0 || !of(e) {
			continue
		}
		if !e.retryAt.IsZero() {
			d.RetryIn = max(e.retryAt.Sub(now), 0)
		}
		list = append(list, d)
	}
	return list
}

// hearers returns the functions of all managers except u. c.mu is locked.
func (c *cools) hearers(u *coolUser) (list []func(bgagent.CoolDown)) {
	for x := range c.users {
		if x != u {
			list = append(list, x.hear)
		}
	}
	return list
}
