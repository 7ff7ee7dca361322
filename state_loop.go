package bgagent

import "time"

// The code in this file ends attempts whose agents are caught in a loop.

const (
	repeatedShorter = int64(5 * time.Second)  // a tool call that takes this long or longer does not count as a repetition
	repeatedWithin  = int64(60 * time.Second) // all calls of a sequence must begin and end within this time
	compactionsMax  = 2                       // number of compactions in a row that show that the input is too long
)

// repeats holds the latest sequence of identical tool calls of an attempt.
type repeats struct {
	most   int // Config.RepeatedCalls; if it is negative, nothing is recorded
	name   string
	state  ToolState
	input  Digest
	result Digest
	began  int64   // earliest time at which the latest call might have begun
	older  []int64 // like the field "began", but for the earlier calls of the sequence, oldest first; calls that began too long ago are removed
}

// count returns the number of calls in the sequence.
func (r *repeats) count() int {
	if r.input == 0 {
		return 0
	}
	return len(r.older) + 1
}

// The method "reset" begins a new sequence.
func (r *repeats) reset() { r.input, r.older = 0, r.older[:0] }

// The method "ended" must be told of each tool call that has just ended.
func (r *repeats) ended(call *toolCall, t MessageTool, now int64) {
	switch {
	case r.most < 0:
		return
	case call.input == 0 || t.Result == 0 || now-call.began >= repeatedShorter:
		r.reset()
		return
	case r.input == call.input && r.result == t.Result && r.state == t.State && r.name == call.name:
		if r.older == nil {
			r.older = make([]int64, 0, min(r.most, DefaultRepeatedCalls))
		}
		r.older = append(r.older, r.began)
		early := 0
		for early < len(r.older) && (now-r.older[early] > repeatedWithin || len(r.older)-early >= r.most) {
			early++
		}
		if early > 0 {
			r.older = append(r.older[:0], r.older[early:]...)
		}
	default:
		r.name, r.state, r.input, r.result, r.older = call.name, t.State, call.input, t.Result, r.older[:0]
	}
	r.began = call.began
}

// stopLoop ends the attempt if its tool calls or compactions show that it is not making progress.
// An attempt whose agent has ended the turn itself is left alone, so that its answer counts.
func (st *state) stopLoop(a *attempt, now int64) {
	s := a.sight
	switch {
	case !a.live() || a.turnStart == 0 || s.marked():
	case st.cfg.RepeatedCalls > 0 && s.repeats.count() >= st.cfg.RepeatedCalls:
		st.end(a.t, CauseLoop, reasonRepeated(s.repeats.name, s.repeats.count()), now)
	case st.cfg.MaxToolCalls > 0 && s.prog.toolCalls > st.cfg.MaxToolCalls:
		st.end(a.t, CauseLoop, reasonManyCalls(st.cfg.MaxToolCalls), now)
	case s.compacts >= compactionsMax:
		st.end(a.t, CauseTooLong, reasonCompacted, now)
	}
}
