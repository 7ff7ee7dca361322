package bgagent

// client is what the state knows of a session client. The client itself is in
// BackgroundManager.hosts, at index.
type client struct {
	name    string
	index   int
	runner  bool // its turns last as long as a call; otherwise events and polls find their end
	starter bool // the opposite
	reads   bool // its sessions can be read
	todos   bool // it tells todo lists
	forgets bool // it wants to know which sessions are forgotten

	followed map[*attempt]struct{} // attempts in a turn, or being stopped: what a sweep asks about
	parents  map[*node]struct{}    // busy parents that are owed a notice
	polling  bool                  // a goroutine polls
	toRead   []looked              // sessions that are to be read
	readers  int                   // goroutines that do so, at most Config.ReadConcurrency
	streamUp int64                 // since when events tell everything; 0 when they do not
	lastBeat int64
	gapAt    int64   // when events were last lost
	out      *outage // nil while its runtime can be reached, as far as is known
}
