package bgagent

// Figures are the counts of a manager at one moment. They marshal to JSON, so that expvar can
// publish them:
//
//	expvar.Publish("bgagent", expvar.Func(func() any { return m.Figures() }))
//
// Ends are counted per attempt since [New], whether or not the task has expired.
type Figures struct {
	Live     int   `json:"live"`      // pending and running tasks
	Stopping int   `json:"stopping"`  // ended attempts that are not quiet yet
	Owed     int   `json:"owed"`      // ends that no parent has been told of yet
	Kept     int   `json:"kept"`      // records in memory: live tasks, and ended ones that have not expired
	KeptText int64 `json:"kept_text"` // bytes of the results in memory

	Attempts  uint64           `json:"attempts"`   // launched and resumed since New
	Completed uint64           `json:"completed"`  // completed since New
	Failed    uint64           `json:"error"`      // failed since New
	Cancelled uint64           `json:"cancelled"`  // cancelled since New
	Causes    map[Cause]uint64 `json:"causes"`     // attempts ended since New, by cause; only causes that occurred
	OverLimit uint64           `json:"over_limit"` // sessions that did not stop in time since New

	// Pools are the pools with slots in use or tasks waiting, sorted by name. If Config.Concurrency
	// is shared, they count the slots of all its users.
	Pools []PoolStats `json:"pools"`
}

// endCounts counts the ended attempts by cause.
type endCounts [len(causeNames)]uint64

// Figures returns the counts, all read in one step. It takes time in proportion to the pools and to
// the sessions that have delegated, not to the tasks.
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
