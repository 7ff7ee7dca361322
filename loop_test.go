package bgagent_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// agentCall is a tool call of a test's agent.
type agentCall struct {
	tool          string
	input, result bgagent.Digest
	state         bgagent.ToolState // state of the call when it has ended; if zero, ToolDone
	think, take   time.Duration     // pause before the call, and length of the call
	late          bool              // the call is reported only after it has ended
}

// The function "same" returns a call that is always the same and takes 100 ms.
func same() agentCall {
	return agentCall{tool: "bash", input: bgagent.DigestOf("ls"), result: bgagent.DigestOf("a.go"), take: 100 * time.Millisecond}
}

// The function "makes" returns a runner that makes the calls and then answers. Before the calls,
// it writes some text.
func makes(calls ...agentCall) *goRunner {
	return &goRunner{run: func(ctx context.Context, _ string, _ bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
		r.Text("I begin with the tests.")
		for i, c := range calls {
			time.Sleep(c.think)
			t := bgagent.MessageTool{ID: strconv.Itoa(i), Name: c.tool, State: bgagent.ToolRunning, Input: c.input}
			if !c.late {
				r.Tool(t)
			}
			time.Sleep(c.take)
			t.State, t.Result = max(c.state, bgagent.ToolDone), c.result
			r.Tool(t)
			if ctx.Err() != nil {
				return bgagent.TurnEnd{}, ctx.Err()
			}
		}
		return bgagent.TurnEnd{Stop: bgagent.StopEndOfTurn, Text: "done"}, nil
	}}
}

// The function "repeated" returns n copies of the same call. If change is not nil, it can modify
// each copy; i is the index of the copy.
func repeated(n int, change func(i int, c *agentCall)) (calls []agentCall) {
	for i := range n {
		c := same()
		if change != nil {
			change(i, &c)
		}
		calls = append(calls, c)
	}
	return calls
}

func TestTwentyEqualCallsInARowEndTheAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := manage(t, makes(repeated(1000, nil)...), limit(1))
		began := time.Now()
		task := ended(t, m, launch(t, m, "p").ID)[0]
		require.Equal(t, 2*time.Second, time.Since(began), "the twentieth call ends the attempt")
		require.Equal(t, bgagent.Cancelled, task.Status)
		require.Equal(t, bgagent.CauseLoop, task.Cause)
		require.Equal(t, `the tool "bash" was called 20 times in a row with the same input and the same result; `+
			`Config.RepeatedCalls (circuitBreaker.consecutiveThreshold) decides how many are too many`, task.Reason)
		require.Equal(t, "I begin with the tests.", task.Result)
		require.True(t, task.Partial)
		require.Equal(t, 20, task.Progress.ToolCalls)
		require.NoError(t, m.Quiet(t.Context(), task.ID))
		fullBatch(t, m, 1)
	})
}

func TestOnlyQuickCallsThatAreEqualAreALoop(t *testing.T) {
	for name, c := range map[string]struct {
		calls []agentCall
		cfg   bgagent.Config
		loop  bool
	}{
		"nineteen":                      {calls: repeated(19, nil)},
		"failed calls":                  {calls: repeated(20, func(_ int, c *agentCall) { c.state = bgagent.ToolFailed }), loop: true},
		"reported when they have ended": {calls: repeated(20, func(_ int, c *agentCall) { c.late = true }), loop: true},
		"another tool in between":       {calls: repeated(200, func(i int, c *agentCall) { c.tool = []string{"bash", "read"}[i%20/19] })},
		"another input in between":      {calls: repeated(200, func(i int, c *agentCall) { c.input += bgagent.Digest(i % 20 / 19) })},
		"another state in between": {calls: repeated(200, func(i int, c *agentCall) {
			c.state = []bgagent.ToolState{bgagent.ToolDone, bgagent.ToolFailed}[i%20/19]
		})},
		"a file that changes":           {calls: repeated(200, func(i int, c *agentCall) { c.result = bgagent.DigestOf("version", strconv.Itoa(i/15)) })},
		"unknown input":                 {calls: repeated(200, func(_ int, c *agentCall) { c.input = 0 })},
		"unknown result":                {calls: repeated(200, func(_ int, c *agentCall) { c.result = 0 })},
		"an unknown result in between":  {calls: repeated(200, func(i int, c *agentCall) { c.result *= bgagent.Digest(min(1, i%20)) })},
		"a longer call in between":      {calls: repeated(200, func(i int, c *agentCall) { c.take += time.Duration(i%20/19) * 5 * time.Second })},
		"a longer pause in between":     {calls: repeated(20, func(i int, c *agentCall) { c.think = time.Duration(i/19) * 20 * time.Second }), loop: true},
		"a longer call, reported late":  {calls: repeated(200, func(i int, c *agentCall) { c.late, c.take = true, c.take+time.Duration(i%20/19)*5*time.Second })},
		"calls that take almost 5 s":    {calls: repeated(200, func(_ int, c *agentCall) { c.take = 4999 * time.Millisecond })},
		"within a minute":               {calls: repeated(20, func(i int, c *agentCall) { c.take, c.think = 2*time.Second, time.Duration(min(i, 1))*20*time.Second/19 }), loop: true},
		"within more than a minute":     {calls: repeated(200, func(_ int, c *agentCall) { c.take, c.think = 2*time.Second, 1100*time.Millisecond })},
		"slow at first":                 {calls: append(repeated(30, func(_ int, c *agentCall) { c.think = 4 * time.Second }), repeated(20, nil)...), loop: true},
		"a poller that sleeps and asks": {calls: repeated(200, func(i int, c *agentCall) { c.think, c.take = 2*time.Second, 4*time.Second })},
		"a poller with two calls": {calls: repeated(100, func(i int, c *agentCall) {
			if i%2 == 0 {
				c.input, c.take = bgagent.DigestOf("sleep 10"), 10*time.Second
			}
		})},
		"switched off":     {calls: repeated(200, nil), cfg: bgagent.Config{RepeatedCalls: bgagent.Unlimited}},
		"a limit of three": {calls: repeated(3, nil), cfg: bgagent.Config{RepeatedCalls: 3}, loop: true},
		"fewer than it":    {calls: repeated(200, func(i int, c *agentCall) { c.input += bgagent.Digest(i / 2 % 2) }), cfg: bgagent.Config{RepeatedCalls: 3}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, makes(c.calls...), c.cfg, func(t *testing.T, m *bgagent.BackgroundManager) {
				task := ended(t, m, launch(t, m, "p").ID)[0]
				if c.loop {
					require.Equal(t, bgagent.CauseLoop, task.Cause, task.Reason)
					return
				}
				require.Equal(t, bgagent.Completed, task.Status, task.Reason)
				require.Equal(t, len(c.calls), task.Progress.ToolCalls)
			})
		})
	}
}

func TestMoreCallsThanAllowedEndTheAttempt(t *testing.T) {
	different := func(i int, c *agentCall) { c.input, c.take = bgagent.DigestOf(strconv.Itoa(i)), time.Millisecond }
	for _, c := range []struct{ calls, set, most int }{{4000, 0, 4000}, {4001, 0, 4000}, {7, 7, 7}, {8, 7, 7}, {5000, bgagent.Unlimited, 5000}} {
		bubble(t, makes(repeated(c.calls, different)...), bgagent.Config{MaxToolCalls: c.set}, func(t *testing.T, m *bgagent.BackgroundManager) {
			task := ended(t, m, launch(t, m, "p").ID)[0]
			if c.calls <= c.most {
				require.Equal(t, bgagent.Completed, task.Status, task.Reason)
				return
			}
			require.Equal(t, bgagent.Cancelled, task.Status)
			require.Equal(t, bgagent.CauseLoop, task.Cause)
			require.Equal(t, fmt.Sprintf("the attempt made more than %d tool calls; Config.MaxToolCalls (maxToolCalls or circuitBreaker.maxToolCalls) decides how many are too many", c.most), task.Reason)
			require.Equal(t, "I begin with the tests.", task.Result)
			again, err := m.Resume(t.Context(), root, task.ID, bgagent.ResumeInput{Prompt: "again"})
			require.NoError(t, err)
			require.Equal(t, c.most+1, ended(t, m, again.ID)[0].Progress.ToolCalls, "the count starts again in each attempt")
		})
	}
}

func TestCallsOfAServerThatAreEqualEndTheAttempt(t *testing.T) {
	for _, events := range []bool{false, true} {
		f := newServer()
		bubble(t, f, bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
			if events {
				m.Observe(bgagent.HostEvent{Kind: bgagent.HostStreamUp})
			}
			id, session := turnOn(t, m, "p")
			f.put(session, bgagent.Message{ID: "text", Text: "I begin."})
			for i := 0; i < 30 && get(t, m, id).Status == bgagent.Running; i++ {
				msg := bgagent.Message{ID: "m" + strconv.Itoa(i), Role: bgagent.RoleAgent, Finished: true, Stop: bgagent.StopToolCalls}
				msg.Tools = []bgagent.MessageTool{{ID: "c", Name: "bash", State: bgagent.ToolDone, Input: 1, Result: 2}}
				f.put(session, msg)
				if events {
					m.Observe(bgagent.HostEvent{Kind: bgagent.HostMessage, Session: session, Message: &msg})
				}
				time.Sleep(time.Second)
			}
			task := get(t, m, id)
			require.Equal(t, bgagent.CauseLoop, task.Cause, task.Reason)
			require.InDelta(t, 20, task.Progress.ToolCalls, 1, "a poll can read two calls")
			require.NoError(t, m.Quiet(t.Context(), id))
			require.Positive(t, f.session(session).aborts)
		})
	}
}

// putCalls adds identical calls to a session.
func putCalls(f *server, session string, n int) {
	for i := range n {
		f.put(session, bgagent.Message{ID: "call" + strconv.Itoa(i), Finished: true, Stop: bgagent.StopToolCalls,
			Tools: []bgagent.MessageTool{{ID: "c", Name: "bash", State: bgagent.ToolDone, Input: 1, Result: 2}}})
	}
}

// If several calls are read together after an outage, it is unknown when they were made, so they
// might be far apart.
func TestCallsThatAreReadLongAfterTheyEndedAreNoLoop(t *testing.T) {
	f := newServer()
	bubble(t, f, bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
		id, session := turnOn(t, m, "p")
		time.Sleep(3 * time.Second)
		f.do(func() { f.statusErr = errors.New("down") })
		time.Sleep(time.Minute)
		putCalls(f, session, 30)
		f.do(func() { f.statusErr = nil })
		time.Sleep(10 * time.Second)
		require.Equal(t, 30, get(t, m, id).Progress.ToolCalls)
		f.say(session, "done")
		require.Equal(t, bgagent.Completed, ended(t, m, id)[0].Status)
	})
}

func TestAnAnswerThatComesWithTheLastOfTooManyCallsCounts(t *testing.T) {
	f := newServer()
	bubble(t, f, bgagent.Config{MaxToolCalls: 10}, func(t *testing.T, m *bgagent.BackgroundManager) {
		id, session := turnOn(t, m, "p")
		putCalls(f, session, 30)
		f.say(session, "done")
		task := ended(t, m, id)[0]
		require.Equal(t, bgagent.Completed, task.Status, task.Reason)
		require.Equal(t, "done", task.Result)
	})
	bubble(t, f, bgagent.Config{MaxToolCalls: 10}, func(t *testing.T, m *bgagent.BackgroundManager) {
		id, session := turnOn(t, m, "p")
		putCalls(f, session, 30)
		f.put(session, bgagent.Message{ID: "answer", Role: bgagent.RoleAgent, Text: "done", Finished: true, Stop: bgagent.StopEndOfTurn})
		time.Sleep(10 * time.Second) // the server still reports the session as busy
		require.Equal(t, 30, get(t, m, id).Progress.ToolCalls)
		f.set(session, bgagent.SessionIdle)
		task := ended(t, m, id)[0]
		require.Equal(t, bgagent.Completed, task.Status, task.Reason)
		require.Equal(t, "done", task.Result)
	})
}

func TestCompactionsInARowEndTheAttempt(t *testing.T) {
	for name, c := range map[string]struct {
		report  func(r *bgagent.Reporter)
		tooLong bool
	}{
		"one": {func(r *bgagent.Reporter) { r.Compaction() }, false},
		"two": {func(r *bgagent.Reporter) {
			r.Compaction()
			r.Reasoning("hm")
			r.Text(" \n")
			r.Activity()
			r.Compaction()
		}, true},
		"text": {func(r *bgagent.Reporter) { r.Compaction(); r.Text("I go on."); r.Compaction() }, false},
		"tool": {func(r *bgagent.Reporter) { r.Compaction(); r.Tool(sharedCall(bgagent.ToolDone)); r.Compaction() }, false},
	} {
		f := &goRunner{run: func(ctx context.Context, _ string, _ bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
			c.report(r)
			time.Sleep(time.Second)
			return bgagent.TurnEnd{Text: "done"}, ctx.Err()
		}}
		bubble(t, f, bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
			task := ended(t, m, launch(t, m, "p").ID)[0]
			if !c.tooLong {
				require.Equal(t, bgagent.Completed, task.Status, name)
				return
			}
			require.Equal(t, bgagent.Failed, task.Status)
			require.Equal(t, bgagent.CauseTooLong, task.Cause)
			require.Equal(t, "the input is too long for the model: it was compacted twice in a row without an answer or a tool call", task.Reason)
		})
	}
}

func TestATurnOfAServerWhoseInputIsTooLongIsAnError(t *testing.T) {
	f := newServer()
	bubble(t, f, bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
		id, session := turnOn(t, m, "p")
		f.put(session, bgagent.Message{ID: "m", Finished: true, Stop: bgagent.StopTooLong, Error: "compacted twice"})
		f.set(session, bgagent.SessionIdle)
		task := ended(t, m, id)[0]
		require.Equal(t, bgagent.CauseTooLong, task.Cause)
		require.Equal(t, "the input is too long for the model: compacted twice", task.Reason)
	})
}

func TestTheToolCallsOfAnAttemptAreCountedAcrossARestart(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.cfg.MaxDepth, w.cfg.MaxToolCalls = 2, 40
		w.work = 10 * time.Second
		w.reports = func(session string, p bgagent.Prompt, r *bgagent.Reporter) {
			switch {
			case session == "ses_1":
			case p.Attempt == 1: // the child's turn, which the restart interrupts
				time.Sleep(5 * time.Minute)
				return
			default:
				return
			}
			for i := range 30 {
				r.Tool(bgagent.MessageTool{ID: strconv.Itoa(i), Name: "read", State: bgagent.ToolDone})
			}
			if p.Turn == 1 {
				_, err := w.life.m.Launch(t.Context(), bgagent.Caller{Session: session}, bgagent.LaunchInput{Agent: "worker", Prompt: "child"})
				require.NoError(t, err)
			}
		}
		m := w.begin()
		id := launch(t, m, "delegate").ID
		time.Sleep(90 * time.Second)
		require.Equal(t, bgagent.PhaseWaiting, get(t, m, id).Phase)
		w.crash()
		m = w.begin()
		m.Start()
		require.Equal(t, 30, get(t, m, id).Progress.ToolCalls)
		task := ended(t, m, id)[0]
		require.Equal(t, bgagent.CauseLoop, task.Cause, task.Reason)
		require.Equal(t, 41, task.Progress.ToolCalls)
		require.Equal(t, 2, task.Progress.Turns)
	})
}

func TestDigestsTellContentsApart(t *testing.T) {
	seen := map[bgagent.Digest][]string{}
	for _, parts := range [][]string{nil, {""}, {"", ""}, {"a"}, {"a", ""}, {"", "a"}, {"ab"}, {"a", "b"}, {"b", "a"}, {string(make([]byte, 300))}, {string(make([]byte, 301))}} {
		d := bgagent.DigestOf(parts...)
		require.NotZero(t, d)
		require.Nil(t, seen[d], "%q", parts)
		require.Equal(t, d, bgagent.DigestOf(parts...))
		seen[d] = append([]string{}, parts...)
	}
}
