package bgagent

// parked is the state of an attempt between two of its turns. It waits, holds no slot, and its time
// limits stand still. It counts as live and can be cancelled.
//
//	turnOver -> park -> what it waits for comes -> wantTurn -> a slot -> unpark: the next turn
//	                 -> nothing left to wait for -> finish
type parked struct {
	why      parking
	wantTurn bool  // what it waits for has come; it is in line for its next turn
	endCause Cause // how its last turn ended; the attempt ends so if no further turn comes
}

// parking says what a parked attempt waits for.
type parking uint8

const (
	notParked parking = iota
	forTasks          // for its own tasks and their notices
)

// park makes the attempt wait and gives its slot back.
func (st *state) park(a *attempt, why parking, cause Cause) {
	a.parked = parked{why: why, endCause: cause}
	st.phase(a, PhaseWaiting)
	st.release(a.t)
}

// unpark ends the wait of an attempt that has a slot again.
func (st *state) unpark(a *attempt) {
	a.parked = parked{}
	st.phase(a, PhaseStarting)
}

// leaveLine gives back the slot, or the place in line, that a parked attempt has for its next turn.
func (st *state) leaveLine(a *attempt) {
	if a.wantTurn {
		a.wantTurn = false
		st.release(a.t)
	}
}
