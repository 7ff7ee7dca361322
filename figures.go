package bgagent

// Figures are what a manager counts, as they are at one moment. They marshal to
// JSON, so that expvar can publish them:
//
//	expvar.Publish("bgagent", expvar.Func(func() any { return m.Figures() }))
//
// The counts of ends are of attempts, and grow from [New] on; what is still
// there and what has expired count alike.
type Figures struct {
	Live     int   `json:"live"`      // tasks that are pending or running
	Stopping int   `json:"stopping"`  // ended attempts of which something still runs
	Owed     int   `json:"owed"`      // ends that a parent has not been told of
	Kept     int   `json:"kept"`      // records in memory: live tasks, and ended ones until they expire
	KeptText int64 `json:"kept_text"` // bytes of their results

	Attempts  uint64           `json:"attempts"`   // launched and resumed, ever
	Completed uint64           `json:"completed"`  // ended so, ever
	Failed    uint64           `json:"error"`      // the same
	Cancelled uint64           `json:"cancelled"`  // the same
	Causes    map[Cause]uint64 `json:"causes"`     // why they ended; causes that have come up
	OverLimit uint64           `json:"over_limit"` // sessions that did not stop in time, ever

	// Pools are those with slots out or somebody waiting, sorted by name. With
	// Config.Concurrency they count the slots of all who share it.
	Pools []PoolStats `json:"pools"`
}

// endCounts counts the attempts that have ended, by cause.
type endCounts [len(causeNames)]uint64

// Figures returns what the manager counts, all of it read in one step. That
// takes time in proportion to the pools and to the sessions that have delegated,
// not to the tasks.
func (m *BackgroundManager) Figures() Figures {
	f := Figures{Causes: map[Cause]uint64{}}
	var ends endCounts
	m.view(func(st *state) {
		f.Live, f.Stopping, f.Kept, f.KeptText = st.live, st.unquiet, len(st.tasks), st.keep.text
		f.OverLimit, f.Pools, ends = uint64(st.over), m.cm.Pools(), st.ends
		for _, n := range st.nodes {
			f.Owed += n.outstanding()
		}
	})
	if f.Pools == nil {
		f.Pools = []PoolStats{} // an empty list in JSON, not null
	}
	for i, n := range ends {
		if n == 0 {
			continue
		}
		c := Cause(i)
		f.Causes[c] = n
		switch c.Status() {
		case Completed:
			f.Completed += n
		case Failed:
			f.Failed += n
		case Cancelled:
			f.Cancelled += n
		default:
			panic("bgagent: bug: an attempt ended for no cause")
		}
	}
	f.Attempts = uint64(f.Live) + f.Completed + f.Failed + f.Cancelled
	return f
}
