package bgagent

import (
	"slices"

	"github.com/bgagent/bgagent/internal/slots"
)

// kind holds what many tasks have in common. It is stored once and counted.
type kind struct {
	key   kindKey
	own   []Permission // the agent's own rules
	refs  int
	cl    *client
	rules []Permission
	slot  slots.Handle // what it takes a slot as
}

type kindKey struct {
	agent  string
	model  string
	client string
	depth  int
}

// kind returns the shared kind of such tasks. It is the only place where permissions are computed:
// delegation beyond MaxDepth is denied first, then come the host's rules, then the agent's own. The
// last rule that matches decides.
func (st *state) kind(key kindKey, cl *client, own []Permission) *kind {
	k := st.lastKind // tasks of one kind mostly come in a row
	if k == nil || k.key != key {
		k = st.kinds[key]
	}
	if k == nil || !slices.Equal(k.own, own) {
		k = &kind{key: key, cl: cl, own: own}
		space, name := countedAs(key.model, key.agent)
		k.slot = st.slots.For(space, name, key.agent)
		if key.depth >= st.cfg.MaxDepth && st.cfg.delegate != "" {
			k.rules = append(k.rules, Permission{Name: st.cfg.delegate, Pattern: "*", Action: PermissionDeny, Kept: true})
		}
		k.rules = slices.Clip(append(append(k.rules, st.cfg.Permissions...), own...))
		st.kinds[key] = k
	}
	k.refs++
	st.lastKind = k
	return k
}

func (st *state) releaseKind(k *kind) {
	if k.refs--; k.refs > 0 {
		return
	}
	if st.lastKind == k {
		st.lastKind = nil
	}
	if st.kinds[k.key] == k {
		delete(st.kinds, k.key)
	}
}

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
