package bgagent

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// sleeper answers the prompt "now" immediately. On any other prompt, it works until it is stopped.
// The tests in this file cannot use package bgagenttest, because it imports this package.
type sleeper struct{}

func (sleeper) CreateSession(_ context.Context, s SessionSpec) (string, error) {
	return "of " + s.Task, nil
}
func (sleeper) Abort(context.Context, string) error { return nil }
func (sleeper) RunTurn(ctx context.Context, _ string, p Prompt, _ *Reporter) (TurnEnd, error) {
	if p.Text == "now" {
		return TurnEnd{Text: "done"}, nil
	}
	<-ctx.Done()
	return TurnEnd{}, ctx.Err()
}

// scene is a state with tasks in all important situations.
type scene struct {
	st               *state
	root             *node
	read, owed       *task // these tasks have ended
	running, another *task
	pending          *task
}

// The function "plant" sets a variable to a wrong value, and returns a function that restores the
// old value.
func plant[T any](at *T, wrong T) (undo func()) {
	was := *at
	*at = wrong
	return func() { *at = was }
}

// plantIn adds a wrong entry to a map that does not have the key, and returns a function
// that removes the entry.
func plantIn[K comparable, V any](in map[K]V, key K, wrong V) (undo func()) {
	in[key] = wrong
	return func() { delete(in, key) }
}

// plantAlarm sets an alarm for a record that does not need one, and returns a function that removes
// the alarm.
func plantAlarm[T any](in *alarms[T], who T) (undo func()) {
	al := &alarm{}
	in.set(al, who, 1<<62)
	return func() { in.set(al, who, 0) }
}

// The variable "planted" holds violations of the invariants, each with a part of the error that
// checkInvariants must return.
var planted = map[string]struct {
	says  string
	plant func(x scene) (undo func())
}{
	"questions to tell":    {`node "root" is still to be notified of 1 questions, counted 0`, func(x scene) func() { return plant(&x.root.asks, []*asked{{}}) }},
	"live tasks":           {"live is 4, counted 3", func(x scene) func() { return plant(&x.st.live, 4) }},
	"live tasks of a node": {`node "root" has 2 live tasks, counted 3`, func(x scene) func() { return plant(&x.root.live, 2) }},
	"live tasks of a tree": {`node "root" has the counts {live:2}, counted {live:3}`, func(x scene) func() { return plant(&x.root.counts.live, 2) }},
	"an account":           {`node "root" has an account, but nothing is counted`, func(x scene) func() { return plant(&x.root.spending, &spending{}) }},
	"a period":             {"is set for a *bgagent.node that is over", func(x scene) func() { return plantAlarm(&x.st.deadlines.accounts, x.root) }},
	"tasks of a node":      {`node "root" has 6 tasks, counted 5`, func(x scene) func() { return plant(&x.root.kids, 6) }},
	"what is not quiet":    {"unquiet is 1, counted 0", func(x scene) func() { return plant(&x.st.unquiet, 1) }},
	"what is stopping":     {"inStopTime is 1, counted 0", func(x scene) func() { return plant(&x.st.inStopTime, 1) }},
	"texts":                {"text is 9, counted 8", func(x scene) func() { return plant(&x.st.keep.text, 9) }},
	"what is owed":         {`node "root" owes 0, counted 1`, func(x scene) func() { return plant(&x.root.nOwed, 0) }},
	"what is lost":         {`node "root" has 1 reclaimable notices, counted 0`, func(x scene) func() { return plant(&x.root.reclaimable, 1) }},
	"the oldest debt":      {"oldest is 0 with 1 owed", func(x scene) func() { return plant(&x.root.oldest, 0) }},

	"a status":              {"is cancelled for turn ended", func(x scene) func() { return plant(&x.read.status, Cancelled) }},
	"a cause":               {"is completed for ", func(x scene) func() { return plant(&x.read.cause, CauseNone) }},
	"an end of what runs":   {"is completed and has an outcome: false", func(x scene) func() { return plant(&x.running.status, Completed) }},
	"a notice of what runs": {"is running with notice", func(x scene) func() { return plant(&x.running.notice, NoticeOwed) }},
	"no attempt":            {"has no live attempt", func(x scene) func() { return plant(&x.running.run, nil) }},
	"an attempt too many":   {"has an attempt", func(x scene) func() { return plant(&x.pending.run, x.running.run) }},
	"an attempt that ended": {"has a live attempt", func(x scene) func() { return plant(&x.read.run, x.running.run) }},
	"a slot of nobody": {"is marked as having a slot", func(x scene) func() {
		return plant(&x.pending.flags, x.pending.flags|flagSlot)
	}},
	"a place in line": {"is in line before its session is quiet", func(x scene) func() {
		return plant(&x.pending.flags, x.pending.flags|flagAwaitsQuiet)
	}},
	"a wait for nothing": {"does not wait for anything", func(x scene) func() {
		undo := plant(&x.running.run.phase, PhaseWaiting)
		why := plant(&x.running.run.parkedFor, forTasks)
		own := plant(&x.running.sess.own, nil)
		return func() { own(); why(); undo() }
	}},

	"a message of nowhere": {"answers a message that it does not have", func(x scene) func() {
		return plant(&x.running.extra().mail, &mailbox{current: &letter{}})
	}},
	"messages that wait": {"1 messages of task", func(x scene) func() { return plant(&x.running.extra().mail, &mailbox{waiting: 1}) }},
	"a message that nobody will get": {"has ended, and 1 messages wait", func(x scene) func() {
		return plant(&x.read.extra().mail, &mailbox{letters: []*letter{{state: MessageAccepted, attempt: 1, text: "m"}}, waiting: 1})
	}},
	"a message for another attempt": {"waits for attempt 7", func(x scene) func() {
		return plant(&x.running.extra().mail, &mailbox{letters: []*letter{{state: MessageAccepted, attempt: 7, text: "m"}}, waiting: 1})
	}},
	"a message without a turn": {"has a message, but does not ask for a turn", func(x scene) func() {
		undo := plant(&x.running.run.phase, PhaseWaiting)
		why := plant(&x.running.run.parkedFor, forTasks)
		mail := plant(&x.running.extra().mail, &mailbox{letters: []*letter{{state: MessageAccepted, attempt: 1, text: "m"}}, waiting: 1})
		return func() { mail(); why(); undo() }
	}},
	"a refusal that is missing": {"waits for its provider", func(x scene) func() {
		undo := plant(&x.running.run.phase, PhaseParked)
		why := plant(&x.running.run.parkedFor, forProvider)
		limit := plant(&x.running.run.refused, &refused{})
		turn := plant(&x.running.run.turnStart, 7)
		return func() { turn(); limit(); why(); undo() }
	}},

	"a phase without a wait":  {"is not parked, but is in phase", func(x scene) func() { return plant(&x.running.run.phase, PhaseWaiting) }},
	"a wait in another phase": {"parked task", func(x scene) func() { return plant(&x.running.run.parkedFor, forTasks) }},

	"a task in another place": {"is indexed wrongly", func(x scene) func() {
		num, _ := parseID(x.owed.id())
		delete(x.st.tasks, num)
		undo := plantIn(x.st.tasks, 1, x.owed)
		return func() { undo(); x.st.tasks[num] = x.owed }
	}},
	"a parent of nowhere":  {"has a parent that is not indexed", func(x scene) func() { return plant(&x.read.up, &node{session: "b"}) }},
	"a node in two places": {`node "root" is indexed as "b"`, func(x scene) func() { return plantIn(x.st.nodes, "b", x.root) }},
	"a node of nobody":     {`nothing needs node "b"`, func(x scene) func() { return plantIn(x.st.nodes, "b", &node{session: "b"}) }},
	"a node of another": {`node "b" is not the node of its session`, func(x scene) func() {
		return plantIn(x.st.nodes, "b", &node{session: "b", of: x.read.sess})
	}},
	"a session's name":     {"is indexed wrongly", func(x scene) func() { return plant(&x.running.sess.id, "b") }},
	"a session of another": {"has no task", func(x scene) func() { return plant(&x.running.sess.task, x.owed) }},
	"another's debt":       {"points elsewhere", func(x scene) func() { return plant(&x.root.owed[x.owed.debt()].no, 7) }},
	"who is followed":      {"is followed: true", func(x scene) func() { return plantIn(x.running.run.cl.followed, x.running.run, struct{}{}) }},

	"a record for ever":    {"would never be forgotten", func(x scene) func() { return plant(&x.read.fin.line, nil) }},
	"a line without start": {"settled: last is not the last task in the line", func(x scene) func() { return plant(&x.st.keep.settled.first, nil) }},
	"a line without end":   {"unsettled: last is not the last task in the line", func(x scene) func() { return plant(&x.st.keep.unsettled.last, nil) }},
	"the wrong line":       {"unsettled: the notice of task", func(x scene) func() { return plant(&x.owed.notice, NoticeRead) }},
	"a link":               {"is linked wrongly", func(x scene) func() { return plant(&x.read.fin.prev, x.owed) }},
	"a text that is kept":  {"is before the first text", func(x scene) func() { return plant(&x.st.keep.settled.text, nil) }},

	"a limit without alarm": {"passes at 1 without an alarm", func(x scene) func() { return plant(&x.running.run.callEnd, 1) }},

	"a deadline's place": {"alarm 0 has index 9", func(x scene) func() { return plant(&x.st.deadlines.attempts[0].alarm.index, 9) }},
	"an attempt's alarm": {"is set for a *bgagent.attempt that is over", func(x scene) func() {
		return plantAlarm(&x.st.deadlines.attempts, &attempt{t: x.read})
	}},
	"a queue's alarm": {"is set for a *bgagent.task that is over", func(x scene) func() { return plantAlarm(&x.st.deadlines.queued, x.running) }},
	"a node's alarm":  {"is set for a *bgagent.node that is over", func(x scene) func() { return plantAlarm(&x.st.deadlines.nodes, &node{session: "b"}) }},
	"an outage's alarm": {"is set for a *bgagent.outage that is over", func(x scene) func() {
		return plantAlarm(&x.st.deadlines.outages, &outage{cl: x.running.run.cl})
	}},
	"a deadline's order": {"alarm 1 is before its parent", func(x scene) func() { return plant(&x.st.deadlines.attempts[1].alarm.at, 1) }},
}

// If checkInvariants never found anything, every test that relies on it would pass.
func TestTheInvariantsFindWhatIsPlanted(t *testing.T) {
	for name, c := range planted {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, x := newScene(t)
				m.view(func(st *state) {
					require.NoError(t, st.checkInvariants())
					undo := c.plant(x)
					err := st.checkInvariants()
					undo()
					require.ErrorContains(t, err, c.says)
					require.NoError(t, st.checkInvariants())
				})
			})
		})
	}
}

// The method "armed" must return false if the timer is set too late or not at all.
func TestAnUnarmedTimerIsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, _ := newScene(t)
		m.view(func(st *state) {
			require.True(t, m.armed())
			undo := plant(&m.timerAt, st.deadlines.first()+1)
			require.False(t, m.armed(), "too late")
			undo()
			undo = plant(&m.timerAt, 0)
			require.False(t, m.armed(), "not at all")
			undo()
		})
	})
}

func newScene(t *testing.T) (*BackgroundManager, scene) {
	t.Helper()
	slots, err := NewConcurrencyManager(Limits{Default: 2})
	require.NoError(t, err)
	m, err := New(sleeper{}, Config{Concurrency: slots, Wake: WakeNever}) // because Concurrency is set, the flag -slots has no effect
	require.NoError(t, err)
	t.Cleanup(func() { _ = m.Close(context.Background()) })
	by := Caller{Session: "root"}
	launch := func(prompt string) *task {
		t.Helper()
		made, err := m.Launch(t.Context(), by, LaunchInput{Agent: "a", Prompt: prompt})
		require.NoError(t, err)
		time.Sleep(time.Second)
		num, _ := parseID(made.ID)
		return m.st.tasks[num]
	}
	x := scene{st: &m.st, read: launch("now"), owed: launch("now"), running: launch("long"), another: launch("long"), pending: launch("long")}
	_, err = m.Read(by, x.read.id())
	require.NoError(t, err)
	x.root = m.st.nodes["root"]
	return m, x
}
