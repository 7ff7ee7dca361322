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
