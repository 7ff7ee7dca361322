package bgagent

// client is what the state knows about a session client. The client itself is
// BackgroundManager.hosts[index].
type client struct {
	name    string
	index   int
	runner  bool // a TurnRunner: the call lasts as long as the turn
	starter bool // a TurnStarter: events and polls find the end of a turn
	reads   bool // can read the messages of its sessions
	todos   bool // can read todo lists
	forgets bool // wants to know which sessions are forgotten

	followed map[*attempt]struct{} // attempts in a turn or being stopped; sweeps ask about them
	parents  map[*node]struct{}    // busy parents that are owed a notice
	polling  bool                  // a polling goroutine runs
	toRead   []looked              // sessions that wait for a reader
	readers  int                   // number of reader goroutines, at most Config.ReadConcurrency
	streamUp int64                 // since when the event stream is complete; 0 if it is not
	lastBeat int64
	gapAt    int64   // when events were last lost
	out      *outage // nil unless its runtime is known to be unreachable
}
