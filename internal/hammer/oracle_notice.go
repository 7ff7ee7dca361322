package hammer

import (
	"strings"

	"github.com/bgagent/bgagent"
)

// The code in this file checks the ids of notices.

func (o *oracle) shownLocked(n bgagent.Notice) {
	for _, it := range n.Items {
		key := attemptKey{it.Task, it.Attempt}
		if o.seen[key] == nil {
			o.seen[key] = map[string]bool{}
		}
		o.seen[key][n.ID] = true
		if _, ended := o.ends[key]; it.Status == bgagent.Pending && ended {
			o.faultLocked("notice %s does not say how %s.%d ended", n.ID, it.Task, it.Attempt)
		}
	}
}

// The method "told" records the delivery of a notice, and checks that no other notice has already
// reported the ends of the same attempts.
func (o *oracle) told(n bgagent.Notice, how string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.logLocked("notice %s to %s %s: %d items", n.ID, n.Session, how, len(n.Items))
	o.shownLocked(n)
	if len(n.Items) == 0 {
		o.faultLocked("notice %s has no items", n.ID)
	}
	for _, it := range n.Items {
		key := attemptKey{it.Task, it.Attempt}
		if id, ok := o.delivered[key]; ok && id != n.ID && !o.pulled[key] && !o.unheard[id] && !o.mayRename(key, n) {
			o.faultLocked("%s.%d was reported twice: %s and %s (%s)", it.Task, it.Attempt, id, n.ID, how)
		}
		o.delivered[key], o.carrier[key] = n.ID, o.life
		o.pulls[key] = strings.Contains(how, "NextNotice") || strings.Contains(how, "TakeNotice") || strings.Contains(how, "at the end")
	}
}

// mayRename reports whether the notice n about an attempt may have a new id. If the parent session is
// deleted, a process gives up the notice, unless it knows that an earlier process has delivered it. A host
// that calls TakeNotice later gets a new notice about the attempt. The item in the new notice has the same
// id as the item in the old notice.
func (o *oracle) mayRename(key attemptKey, n bgagent.Notice) bool {
	return o.carrier[key] != o.life && !o.found[key] && o.noParent[n.Session]
}

// sessionDeleted records that the manager will be told that the session was deleted. It must be called before
// the manager is told.
func (o *oracle) sessionDeleted(session string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.noParent[session] = true
}
