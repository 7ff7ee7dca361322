package bgagent

import "time"

// storeBeat is the maximum time between two writes of the manager's own record while a task is live
// or being stopped. From this record, the next manager calculates how long no process was running.
const storeBeat = time.Minute

// The method "beats" reports whether the manager's own record must be written. This is the case if a
// task is live or being stopped and the last record is old.
func (st *state) beats() bool {
	return st.live+st.unquiet > 0 && st.now-st.storing.seen >= int64(storeBeat)
}

// beatLater makes sure that the manager's own record is written within storeBeat while a task is live
// or being stopped.
func (st *state) beatLater() {
	if st.deadlines.beat = 0; st.live+st.unquiet > 0 {
		st.deadlines.beat = st.storing.seen + int64(storeBeat)
	}
}
