package bgagenttest

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/bgagent/bgagent"
)

// The type "driven" is a turn that a check has begun.
type driven struct {
	c       *checkContext
	sc      bgagent.SessionClient // the client that runs the turn
	session string
	prompt  bgagent.Prompt
	before  map[string]bool // for a starter: the messages of earlier turns
	cancel  context.CancelFunc
	done    chan struct{} // for a runner: closed when RunTurn returns

	mu      sync.Mutex
	reports []bgagent.Report
	late    int // number of reports after RunTurn has returned
	end     bgagent.TurnEnd
	err     error
	over    bool
}

// outcome describes how a turn ended, in the same terms for both kinds of clients.
type outcome struct {
	text  string
	stop  bgagent.StopReason
	err   error
	tools []bgagent.MessageTool // every reported state, in order
}

// The method "failed" reports whether the turn ended with an error or for a reason other than its
// normal end.
func (o outcome) failed() bool {
	return o.err != nil || o.stop != bgagent.StopUntold && o.stop != bgagent.StopEndOfTurn
}

func (o outcome) String() string {
	if o.err != nil {
		return fmt.Sprintf("the error %q", o.err)
	}
	return fmt.Sprintf("%q (%s)", o.text, o.stop)
}

// promptFor returns a prompt with the next id.
func (c *checkContext) promptFor(text string) bgagent.Prompt {
	c.turns++
	return bgagent.Prompt{
		ID: "bgp_" + c.task + ".1." + strconv.Itoa(c.turns), Task: "bg_" + c.task, Attempt: 1, Turn: c.turns, Agent: c.h.Agent, Text: text,
		Instance: c.instance,
	}
}

// The method "begin" begins a turn. If the turn cannot begin, the check fails and stops. The turn
// is stopped when the check is over.
func (c *checkContext) begin(session, text string) *driven {
	c.Helper()
	return c.beginWith(session, c.promptFor(text))
}

func (c *checkContext) beginWith(session string, p bgagent.Prompt) *driven {
	c.Helper()
	d, err := c.tryBegin(session, p)
	if err != nil {
		c.endf("StartTurn in %q: %v", session, err)
	}
	return d
}

func (c *checkContext) tryBegin(session string, p bgagent.Prompt) (*driven, error) {
	c.Helper()
	d := &driven{c: c, sc: c.sc, session: session, prompt: p, done: make(chan struct{}), before: map[string]bool{}, cancel: func() {}}
	if c.runner == nil && c.starter == nil {
		c.endf("the client is neither a TurnRunner nor a TurnStarter")
	}
	c.Cleanup(d.clean)
	if c.runner != nil {
		var ctx context.Context
		ctx, d.cancel = context.WithCancel(c.Context())
		go d.run(ctx, c.runner)
		return d, nil
	}
	if known, ok := c.tryReadAll(session); ok {
		for _, msg := range known {
			d.before[msg.ID] = true
		}
	}
	return d, c.call("StartTurn", func(ctx context.Context) error { return c.starter.StartTurn(ctx, session, d.prompt) })
}

// tryReadAll reads all messages of a session that might not exist. It reports whether
// the session could be read.
func (c *checkContext) tryReadAll(session string) ([]bgagent.Message, bool) {
	err := c.call("Messages", func(ctx context.Context) error {
		_, err := c.reader.Messages(ctx, session, "", 1000)
		return err
	})
	if err != nil {
		return nil, false
	}
	return c.readAll(session), true
}

func (d *driven) run(ctx context.Context, runner bgagent.TurnRunner) {
	var end bgagent.TurnEnd
	err := guarded("RunTurn", func() (err error) {
		end, err = runner.RunTurn(ctx, d.session, d.prompt, bgagent.NewReporter(d.report))
		return err
	})
	d.mu.Lock()
	d.end, d.err, d.over = end, err, true
	d.mu.Unlock()
	close(d.done)
}

func (d *driven) report(r bgagent.Report) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.over {
		d.late++
		return
	}
	d.reports = append(d.reports, r)
}

// The method "clean" stops the turn if it is not over yet.
func (d *driven) clean() {
	d.cancel()
	d.mu.Lock()
	over := d.over
	d.mu.Unlock()
	if over {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), d.c.h.Soon)
	defer cancel()
	_ = guarded("Abort", func() error { return d.sc.Abort(ctx, d.session) })
	if d.c.runner != nil {
		select {
		case <-d.done:
		case <-ctx.Done():
		}
	}
}

// The method "messages" returns the messages of this turn. It is only for starters.
func (d *driven) messages() (out []bgagent.Message) {
	for _, msg := range d.c.readAll(d.session) {
		if !d.before[msg.ID] {
			out = append(out, msg)
		}
	}
	return out
}

// The method "ended" reports whether the turn ends within the limit.
func (d *driven) ended(limit time.Duration) bool {
	if d.c.runner == nil {
		return d.endedByLooks(limit)
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-d.done:
		return true
	case <-timer.C:
		return false
	}
}

// endedByLooks polls a starter's session until its turn counts as over, or until the limit has passed. It
// reports whether the turn is over. As in the manager, a turn counts as over if the session is idle and
// either the last message has ended or nothing has changed for Harness.Settle.
func (d *driven) endedByLooks(limit time.Duration) bool {
	var since time.Time // start of the idle time without changes; zero if the session is not idle
	seen := ""
	over := d.c.until(limit+d.c.h.Settle, func() bool {
		state := d.c.statuses(d.session)[d.session].State
		if state != bgagent.SessionIdle && state != bgagent.SessionUntold && state != bgagent.SessionGone {
			since = time.Time{}
			return false
		}
		msgs := d.messages()
		if last := lastOfAgent(msgs); last != nil && last.Finished && last.Stop != bgagent.StopUntold && last.Stop != bgagent.StopToolCalls {
			return true
		}
		if now := fmt.Sprint(msgs); since.IsZero() || now != seen {
			since, seen = time.Now(), now
		}
		return time.Since(since) >= d.c.h.Settle
	})
	d.mu.Lock()
	defer d.mu.Unlock()
	d.over = d.over || over
	return over
}

func lastOfAgent(msgs []bgagent.Message) *bgagent.Message {
	for i := len(msgs) - 1; i >= 0; i-- {
		if msgs[i].Role == bgagent.RoleAgent {
			return &msgs[i]
		}
	}
	return nil
}

// The method "await" waits for the end of a turn that is not aborted.
func (d *driven) await() outcome {
	d.c.Helper()
	return d.awaitFor(d.c.h.TurnTime, "its start")
}

func (d *driven) awaitFor(limit time.Duration, since string) outcome {
	d.c.Helper()
	if !d.ended(limit) {
		d.c.endf("the turn with %q is not over %v after %s", d.prompt.Text, limit, since)
	}
	return d.outcome()
}

func (d *driven) outcome() (o outcome) {
	if d.c.runner == nil {
		msgs := d.messages()
		for _, msg := range msgs {
			if msg.Role == bgagent.RoleAgent && msg.Text != "" {
				o.text = msg.Text
			}
			o.tools = append(o.tools, msg.Tools...)
		}
		if last := lastOfAgent(msgs); last != nil && last.Finished {
			o.stop = last.Stop
		}
		return o
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	o.text, o.stop, o.err = d.end.Text, d.end.Stop, d.err
	said := ""
	for _, r := range d.reports {
		switch r.Kind {
		case bgagent.ReportText:
			said += r.Text
		case bgagent.ReportTool:
			if !slices.ContainsFunc(o.tools, func(t bgagent.MessageTool) bool { return t.ID == r.Tool.ID }) {
				said = ""
			}
			o.tools = append(o.tools, r.Tool)
		}
	}
	if o.text == "" {
		o.text = said
	}
	return o
}

// The method "say" makes the agent answer with the word. The check fails and stops if the agent
// gives another answer.
func (c *checkContext) say(session, word string) {
	c.Helper()
	c.answered(c.begin(session, c.h.Say(word)), word)
}

// The method "answered" waits for the end of a turn whose prompt asks for the word. If the answer
// does not contain the word, the check fails and stops.
func (c *checkContext) answered(d *driven, word string) {
	c.Helper()
	if o := d.await(); o.failed() || !strings.Contains(o.text, word) {
		c.endf("the turn with %q ended as %v; the answer should contain %q", d.prompt.Text, o, word)
	}
}

// The method "slow" begins a turn that runs until it is aborted. It returns when the turn is
// running.
func (c *checkContext) slow(session string) *driven {
	c.Helper()
	d := c.begin(session, c.h.Slow())
	if c.runner != nil {
		if d.ended(5 * c.h.Poll) {
			c.endf("the turn with the prompt of Harness.Slow ended on its own as %v", d.outcome())
		}
		return d
	}
	if !c.until(c.h.TurnTime, func() bool { return inTurn(c.statuses(session)[session].State) }) {
		c.endf("the status never showed the session in a turn while the turn of Harness.Slow ran")
	}
	c.pause(5 * c.h.Poll)
	return d
}

// inTurn reports whether a session in this state can be in a turn.
func inTurn(s bgagent.SessionState) bool {
	switch s {
	case bgagent.SessionBusy, bgagent.SessionRetrying, bgagent.SessionAsking, bgagent.SessionUntold:
		return true
	}
	return false
}

// The method "stop" aborts the turn and waits for its end.
func (d *driven) stop() outcome {
	d.c.Helper()
	d.c.abort(d.session)
	return d.awaitFor(d.c.h.Soon, "Abort")
}
