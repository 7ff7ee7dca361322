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

// kindLocked returns what tasks of this sort have in common. It is the one
// place where permissions are computed: the manager's default, the host's, then
// the agent's own, of which the last that matches decides.
func (m *BackgroundManager) kindLocked(key kindKey, cl *client, own []Permission) *kind {
	k := m.lastKind // mostly they come in a row
	if k == nil || k.key != key {
		k = m.kinds[key]
	}
	if k == nil || !slices.Equal(k.own, own) {
		k = &kind{key: key, cl: cl, own: own}
		if key.depth >= m.cfg.MaxDepth && m.words.delegate != "" {
			k.rules = append(k.rules, Permission{Name: m.words.delegate, Pattern: "*", Action: PermissionDeny, Kept: true})
		}
		k.rules = slices.Clip(append(append(k.rules, m.cfg.Permissions...), own...))
		m.kinds[key] = k
	}
	k.refs++
	m.lastKind = k
	return k
}

func (m *BackgroundManager) releaseKindLocked(k *kind) {
	if k.refs--; k.refs > 0 {
		return
	}
	if m.lastKind == k {
		m.lastKind = nil
	}
	if m.kinds[k.key] == k {
		delete(m.kinds, k.key)
	}
}
