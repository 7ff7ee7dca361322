package bgagent

import "hash/maphash"

// session is the child session of a task. It outlives the record of its task by
// as long as the tombstone stands.
type session struct {
	// What an event looks at stands first, in one line of the processor's cache.
	id     string
	same   *session // next one with the same hash
	tomb   int32    // 1 + the place of its tombstone; 0 while its task has a record
	active bool     // something changed since it was last judged
	stuck  bool     // it did not stop in time and is not quiet yet
	gone   bool     // the host said that it was deleted

	task    *task         // nil when its record has expired, unless it has delegated
	own     *node         // what it has delegated; nil when it has not
	cursor  Cursor        // everything before it has been read
	past    *pastMessages // of its earlier attempts; nil for a runner's
	aborted int64         // when the last abort returned
}

// sessionIndex finds sessions by their ids. Ids are hashed once: a map with
// 64-bit keys grows and forgets in half the time of one with strings.
type sessionIndex struct {
	seed maphash.Seed
	all  map[uint64]*session
}

// sessionHash returns where to look for an id.
func sessionHash(seed maphash.Seed, id string) uint64 { return maphash.String(seed, id) }

// find returns the session with the id, whether its task has a record or only a
// tombstone, or nil.
func (x *sessionIndex) find(id string) *session { return x.findAt(sessionHash(x.seed, id), id) }

func (x *sessionIndex) findAt(hash uint64, id string) *session {
	for s := x.all[hash]; s != nil; s = s.same {
		if s.id == id {
			return s
		}
	}
	return nil
}

// add puts a session into the index, unless another one has its id: that one is
// returned then.
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

// session returns the session of a task that has a record, or nil.
func (st *state) session(id string) *session {
	if s := st.sessions.find(id); s != nil && s.tomb == 0 {
		return s
	}
	return nil
}
