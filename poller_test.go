package bgagent

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var usual = thresholds{
	minIdle: int64(DefaultMinIdleTime), minStable: int64(DefaultMinStabilityTime), stablePolls: DefaultStablePolls,
	todoHold: int64(DefaultTodoHold), stale: int64(DefaultStaleTimeout), gone: int64(DefaultSessionGone),
	unreachable: int64(DefaultHostUnreachable), park: int64(DefaultMaxPark),
}

// answerView returns the view of a turn with a complete answer.
func answerView() turn {
	return turn{begun: true, output: true, finished: true, stop: StopEndOfTurn, text: "x", finger: 7}
}

func sec(s float64) int64 { return 1 + int64(s*float64(time.Second)) }

func TestJudge(t *testing.T) {
	idle, busy, untold, gone := SessionStatus{State: SessionIdle}, SessionStatus{State: SessionBusy}, SessionStatus{State: SessionUntold}, SessionStatus{State: SessionGone}
	none := turn{}
	half := turn{begun: true, output: true, text: "x", finger: 3}
	plain := turn{begun: true, output: true, finished: true, text: "x", finger: 3}
	cases := []struct {
		name  string
		o     observation
		polls []float64 // times of the observations, in seconds since the turn began
		cause Cause     // cause of the end after the last observation; no earlier observation ends the turn
	}{
		{"idle with an answer", observation{status: idle, answered: true, read: true, view: answerView()}, []float64{0.1}, CauseIdle},
		{"idle with an answer without a mark, early", observation{status: idle, answered: true, read: true, view: plain}, []float64{1, 3, 4.9}, CauseNone},
		{"idle with an answer without a mark", observation{status: idle, answered: true, read: true, view: plain}, []float64{1, 5}, CauseIdle},
		{"idle that could not be read", observation{status: idle, answered: true, poll: true, view: answerView()}, []float64{20, 40, 60}, CauseNone},
		{"idle with nothing", observation{status: idle, answered: true, read: true, poll: true, view: none}, []float64{2, 6, 9, 10, 12, 14}, CauseNoOutput},
		{"idle with nothing, after the process has ended", observation{status: idle, answered: true, read: true, poll: true, view: none, foreign: true}, []float64{2, 6, 9, 10, 12, 14}, CauseInterrupted},
		{"idle with an empty message, after the process has ended", observation{status: idle, answered: true, read: true, poll: true, view: turn{begun: true}, foreign: true}, []float64{2, 6, 9, 10, 12, 14}, CauseInterrupted},
		{"idle with an empty answer, after the process has ended", observation{status: idle, answered: true, read: true, poll: true, view: turn{begun: true, finished: true, stop: StopEndOfTurn}, foreign: true}, []float64{2, 6, 9, 10, 12, 14}, CauseNoOutput},
		{"idle with nothing, by events alone", observation{status: idle, answered: true, read: true, view: none}, []float64{10, 12, 14, 16}, CauseNone},
		{"idle in the middle of a message", observation{status: idle, answered: true, read: true, poll: true, view: half}, []float64{3, 6, 8}, CauseInterrupted},
		{"idle with a tool in flight", observation{status: idle, answered: true, read: true, poll: true, view: plain, flying: 1}, []float64{6, 8}, CauseInterrupted},
		{"busy with an answer", observation{status: busy, answered: true, read: true, poll: true, view: answerView()}, []float64{2, 60, 170}, CauseNone},
		{"busy without a change", observation{status: busy, answered: true, read: true, poll: true, view: half}, []float64{2, 60, 181, 183}, CauseStale},
		{"busy with a tool in flight", observation{status: busy, answered: true, read: true, poll: true, view: half, flying: 1}, []float64{2, 60, 181, 1000}, CauseNone},
		{"asking", observation{status: SessionStatus{State: SessionAsking}, answered: true, read: true, poll: true, view: half}, []float64{2, 1000}, CauseNone},
		{"retrying later", observation{status: SessionStatus{State: SessionRetrying}, answered: true, read: true, poll: true, retryAt: sec(5000)}, []float64{2, 1000}, CauseNone},
		{"retrying for good", observation{status: SessionStatus{State: SessionRetrying}, answered: true, read: true, poll: true}, []float64{2, 182}, CauseStale},
		{"unknown", observation{poll: true}, []float64{10, 100, 1000}, CauseNone},
		{"untold and stable", observation{status: untold, answered: true, read: true, poll: true, view: plain}, []float64{6, 8, 10, 12, 14}, CauseStable},
		{"untold and unfinished", observation{status: untold, answered: true, read: true, poll: true, view: half}, []float64{8, 10, 12, 14, 16}, CauseNone},
		{"untold with a tool in flight", observation{status: untold, answered: true, read: true, poll: true, view: plain, flying: 1}, []float64{8, 10, 12, 14, 500}, CauseNone},
		{"gone", observation{status: gone, answered: true, poll: true}, []float64{2, 4, 6, 60, 62}, CauseSessionGone},
		{"open todos", observation{status: idle, answered: true, read: true, poll: true, view: answerView(), todos: 2}, []float64{2, 10, 31, 32}, CauseIdle},
		{"todos that were not read", observation{status: idle, answered: true, read: true, poll: true, view: answerView(), todos: -1}, []float64{2, 10, 31, 32}, CauseIdle},
		{"messages that cannot be read", observation{status: idle, answered: true, failed: true, afresh: true, poll: true, todos: -1}, []float64{2, 10, 301, 302}, CauseHostUnreachable},
		{"messages that were not tried afresh", observation{status: idle, answered: true, failed: true, poll: true}, []float64{2, 302, 1000}, CauseNone},
		{"messages that cannot be read of a busy session", observation{status: busy, answered: true, failed: true, afresh: true, poll: true}, []float64{2, 302, 1000}, CauseNone},
		{"a late echo of an abort", observation{status: busy, answered: true, read: true, poll: true, hint: &hint{stop: StopAborted}}, []float64{1, 100}, CauseNone},
		{"an error before any message", observation{status: idle, answered: true, read: true, hint: &hint{stop: StopError, err: "no such agent"}, trust: true}, []float64{0.1}, CauseSessionError},
		{"an error that may be an echo", observation{status: idle, answered: true, read: true, hint: &hint{stop: StopAborted}}, []float64{0.1, 4.9, 5}, CauseAgentWindow},
	}
	for _, x := range cases {
		t.Run(x.name, func(t *testing.T) {
			c := counters{began: 1, changed: 1}
			for i, s := range x.polls {
				var v verdict
				c, v = judge(c, x.o, usual, sec(s))
				want := CauseNone
				if i == len(x.polls)-1 {
					want = x.cause
				}
				require.Equal(t, want, v.cause, "at %v s", s)
				require.Equal(t, want != CauseNone, v.end, "at %v s", s)
			}
		})
	}
}

func TestJudgeForgetsCountsWhenSomethingElseIsSeen(t *testing.T) {
	empty := observation{status: SessionStatus{State: SessionIdle}, answered: true, read: true, poll: true}
	busy := observation{status: SessionStatus{State: SessionBusy}, answered: true, read: true, poll: true}
	c := counters{began: 1, changed: 1}
	var v verdict
	for i, o := range []observation{empty, empty, busy, empty, empty} {
		c, v = judge(c, o, usual, sec(10+2*float64(i)))
		require.False(t, v.end)
	}
	_, v = judge(c, empty, usual, sec(20))
	require.Equal(t, CauseNoOutput, v.cause)
}

// FuzzJudge checks properties that the function "judge" must have for all observations, whatever a
// host reports.
func FuzzJudge(f *testing.F) {
	f.Add(uint8(1), true, true, true, uint8(7), uint8(0), int8(0), int64(6e9), int64(0), false)
	f.Add(uint8(6), true, true, true, uint8(3), uint8(1), int8(-1), int64(200e9), int64(3e9), true)
	f.Fuzz(func(t *testing.T, state uint8, answered, poll, read bool, view, flying uint8, todos int8, now, blind int64, hinted bool) {
		if now <= 0 || now > 1<<60 || view&3 == 2 { // view&3 == 2 would be output without a message, which is impossible
			return
		}
		o := observation{status: SessionStatus{State: SessionState(state)}, answered: answered, poll: poll, read: read, flying: int(flying % 3), todos: int32(todos)}
		o.view = turn{begun: view&1 > 0, output: view&2 > 0, finished: view&4 > 0, stop: StopReason(view >> 3), finger: uint64(view)}
		if hinted {
			o.hint = &hint{stop: StopError}
		}
		c := counters{began: 1, changed: 1, blind: max(blind, 0) % now}
		after, v := judge(c, o, usual, now)
		if v.end {
			require.NotEqual(t, CauseNone, v.cause)
			require.True(t, answered, "an unanswered observation must not decide anything")
			require.NotEqual(t, SessionUnknown, o.status.State)
			require.LessOrEqual(t, o.status.State, SessionUntold)
			if v.cause.Status() == Completed {
				require.True(t, read && o.view.output && o.view.begun && o.view.finished && o.flying == 0, "completed: %+v", o)
				require.Contains(t, []StopReason{StopUntold, StopEndOfTurn}, o.view.stop)
				require.GreaterOrEqual(t, todos, int8(0))
			}
		} else {
			require.Equal(t, CauseNone, v.cause)
		}
		if !answered {
			after.blind, c.blind = 0, 0
			require.Equal(t, c, after, "no counter may change")
		}
	})
}
