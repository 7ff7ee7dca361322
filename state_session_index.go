package bgagent

import "hash/maphash"

// session is the child session of a task. It lives until the record and the tombstone of the task
// are gone.
type session struct {
	// The fields that every event reads come first, in one cache line.
	id     string
	same   *session // next session with the same hash
	tomb   int32    // 1 + place of its tombstone; 0 while its task has a record
	active bool     // something changed since it was last judged
	stuck  bool     // it missed the stopping deadline and is not quiet yet
	gone   bool     // the host said that it was deleted

	task    *task         // nil once the task's record has expired
	own     *node         // the node of its own tasks; nil if it has not delegated
	cursor  Cursor        // everything before it was read
	past    *pastMessages // last messages of its earlier attempts; nil for a runner's session
	aborted int64         // when the last abort returned
}

// sessionIndex finds sessions by id. It hashes ids itself, because a map with 64-bit keys grows and
// shrinks in half the time of one with string keys.
type sessionIndex struct {
	seed maphash.Seed
	all  map[uint64]*session
}

// sessionHash returns the key of an id.
func sessionHash(seed maphash.Seed, id string) uint64 { return maphash.String(seed, id) }

// find returns the session with the id, or nil. Its task may have a record or only a tombstone.
func (x *sessionIndex) find(id string) *session { return x.findAt(sessionHash(x.seed, id), id) }

func (x *sessionIndex) findAt(hash uint64, id string) *session {
	for s := x.all[hash]; s != nil; s = s.same {
		if s.id == id {
			return s
		}
	}
	return nil
}

// add adds a session. If another session has the same id, add changes nothing and returns that one.
func (x *sessionIndex) add(s *session) (other *session) {
	h := sessionHash(x.seed, s.id)
	first := x.all[h]
	for other := first; other != nil; other = other.same {
		if other.id == s.id {
			return other
		}
	}
	s.same = first
	x.all[h] = s
	return nil
}

func (x *sessionIndex) remove(s *session) {
	h := sessionHash(x.seed, s.id)
	first := x.all[h]
	switch {
	case first == s && s.same == nil:
		delete(x.all, h)
	case first == s:
		x.all[h] = s.same
	default:
		for at := first; at != nil; at = at.same {
			if at.same == s {
				at.same = s.same
			}
		}
	}
	s.same = nil
}

// session returns the session with the id if its task has a record, else nil.
func (st *state) session(id string) *session {
	if s := st.sessions.find(id); s != nil && s.tomb == 0 {
		return s
	}
	return nil
}
