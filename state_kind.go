package bgagent

import "slices"

// kind is what many tasks have in common, held once and counted.
type kind struct {
	key   kindKey
	own   []Permission // the agent's
	refs  int
	cl    *client
	rules []Permission
}

type kindKey struct {
	agent  string
	model  string
	client string
	depth  int
}

// kind returns what tasks of this sort have in common. It is the one
// place where permissions are computed: the manager's default, the host's, then
// the agent's own, of which the last that matches decides.
func (st *state) kind(key kindKey, cl *client, own []Permission) *kind {
	k := st.lastKind // mostly they come in a row
	if k == nil || k.key != key {
		k = st.kinds[key]
	}
	if k == nil || !slices.Equal(k.own, own) {
		k = &kind{key: key, cl: cl, own: own}
		if key.depth >= st.cfg.MaxDepth && st.cfg.delegate != "" {
			k.rules = append(k.rules, Permission{Name: st.cfg.delegate, Pattern: "*", Action: PermissionDeny})
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
