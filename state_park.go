package bgagent

// parked is what an attempt is between two of its turns: it waits, holds no slot,
// and its time limits stand still. It can be cancelled, and counts as live.
//
//	turnOver -> park -> what it waits for comes -> wantTurn -> a slot -> unpark: the next turn
//	                 -> it waits for nothing any more -> finish
type parked struct {
	why      parking
	wantTurn bool  // what it waits for has come: it stands in line for its next turn
	endCause Cause // how its last turn ended, and the attempt with it if nothing comes
}

// parking says what a parked attempt waits for.
type parking uint8

const (
	notParked parking = iota
	forTasks          // its own tasks, and what it is owed for them
)

// park has the attempt wait. Its slot goes back.
func (st *state) park(a *attempt, why parking, cause Cause) {
	a.parked = parked{why: why, endCause: cause}
	st.phase(a, PhaseWaiting)
	st.release(a.t)
}

// unpark ends the waiting of an attempt that has a slot again.
func (st *state) unpark(a *attempt) {
	a.parked = parked{}
	st.phase(a, PhaseStarting)
}

// leaveLine gives up the place in line, or the slot, that a parked attempt has for
// its next turn.
func (st *state) leaveLine(a *attempt) {
	if a.wantTurn {
		a.wantTurn = false
		st.release(a.t)
	}
}
