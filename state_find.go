package bgagent

import (
	"encoding/base32"
	"errors"
	"hash/maphash"

	"github.com/google/uuid"
)

// The code in this file makes ids, and finds tasks and sessions by their ids.

// idEncoding writes ids in lower case. It does not use the letters i, l and o, which look like
// digits, or the letter u.
var idEncoding = base32.NewEncoding(idLetters).WithPadding(base32.NoPadding)

const idLetters = "0123456789abcdefghjkmnpqrstvwxyz"

// idValues maps each letter of idLetters to its index plus 1, and all other bytes to 0.
var idValues = func() (v [256]uint8) {
	for i, c := range []byte(idLetters) {
		v[c] = uint8(i + 1)
	}
	return v
}()

const (
	idRandom = 16                    // characters after the prefix: the 80 random bits of a version 4 UUID
	idLen    = len("bg_") + idRandom // length of a task id
)

// newID returns a new id, which consists of the prefix, a random part and the suffix. num is the
// number that is encoded in the random part.
func (st *state) newID(prefix, suffix string) (id string, num uint64) {
	u, err := uuid.NewRandomFromReader(st.ids)
	if err != nil {
		panic("bgagent: no randomness: " + err.Error())
	}
	// Bytes 6 and 8 hold the version and the variant, so they are left out.
	raw := [10]byte{u[0], u[1], u[2], u[3], u[4], u[5], u[7], u[9], u[10], u[11]}
	var buf [32]byte
	n := copy(buf[:], prefix)
	idEncoding.Encode(buf[n:n+idRandom], raw[:])
	n += idRandom
	n += copy(buf[n:], suffix)
	return string(buf[:n]), idNumber(raw)
}

func idNumber(raw [10]byte) (n uint64) {
	for _, b := range raw[:8] {
		n = n<<8 | uint64(b)
	}
	return n
}

// parseID returns the number encoded in a task id. ok is false if id does not have the form of a
// task id.
func parseID(id string) (num uint64, ok bool) {
	if len(id) != idLen || id[:3] != "bg_" {
		return 0, false
	}
	for i := range idRandom {
		v := idValues[id[3+i]]
		switch {
		case v == 0:
			return 0, false
		case i < 12: // 12 letters give 60 bits, and the next letter gives the remaining 4 bits
			num = num<<5 | uint64(v-1)
		case i == 12:
			num = num<<4 | uint64(v-1)>>1
		}
	}
	return num, true
}

// find returns the task with the given id, or an error if the task is unknown or has expired.
func (st *state) find(id string) (*task, error) {
	num, ok := parseID(id)
	if !ok {
		return nil, unknownTask(id)
	}
	if t := st.tasks[num]; t != nil && t.id() == id && st.shows(t) {
		return t, nil
	}
	if tomb := st.keep.find(id); tomb != nil {
		return nil, &ExpiredError{ID: id, Status: tomb.status, Session: tomb.sessionID()}
	}
	return nil, taskError(id, ErrUnknownTask)
}

// findOwn is like find, but searches on behalf of a caller. A caller with a session gets
// ErrNotDescendant for a task that does not descend from the session.
func (st *state) findOwn(by Caller, id string) (*task, error) {
	t, err := st.find(id)
	if err != nil {
		var gone *ExpiredError
		if by.Session != "" && errors.As(err, &gone) && !st.keep.descends(id, by.Session) {
			return nil, taskError(id, ErrNotDescendant)
		}
		return nil, err
	}
	if !descends(t, by) {
		return nil, taskError(id, ErrNotDescendant)
	}
	return t, nil
}

// The function "descends" reports whether the task descends from the caller's session. It
// returns true for the host.
func descends(t *task, by Caller) bool {
	if by == (Caller{}) || by.Session == "" {
		return true
	}
	for n := t.up; n != nil; n = n.above() {
		if n.session == by.Session {
			return true
		}
	}
	return false
}

// session is the record of a task's session. It is kept until the task has neither a record nor a
// tombstone.
type session struct {
	// The fields that every event reads come first, in one cache line.
	id     string
	same   *session // next session with the same hash
	tomb   int32    // index of the task's tombstone plus 1; 0 while the task has a record
	active bool     // the host has reported activity since the session was last judged
	stuck  bool     // the session missed its stopping deadline and is not quiet yet
	gone   bool     // the host reported that the session was deleted

	foreign bool // an earlier process created the session, and the client has not restored the session yet

	task    *task      // nil once the task's record has expired
	own     *node      // node of the tasks that the session delegated; nil if there are none
	cursor  Cursor     // position up to which the messages were read
	past    *pastTurns // last messages of earlier turns; nil for a runner's session
	aborted int64      // when the last Abort call returned
}

// sessionIndex finds sessions by id. It maps hashes of ids to sessions. A map with such keys grows
// and shrinks in half the time that a map with string keys takes.
type sessionIndex struct {
	seed maphash.Seed
	all  map[uint64]*session
}

// sessionHash returns the hash of an id, which is its key in sessionIndex.all.
func sessionHash(seed maphash.Seed, id string) uint64 { return maphash.String(seed, id) }

// find returns the session with the given id, or nil. The session's task can have a record or only
// a tombstone.
func (x *sessionIndex) find(id string) *session { return x.findAt(sessionHash(x.seed, id), id) }

func (x *sessionIndex) findAt(hash uint64, id string) *session {
	for s := x.all[hash]; s != nil; s = s.same {
		if s.id == id {
			return s
		}
	}
	return nil
}

// The method "add" adds a session, unless another session has the same id. In that case, it changes
// nothing and returns the other session.
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

// The method "session" returns the session with the given id if its task has a record. Otherwise it
// returns nil.
func (st *state) session(id string) *session {
	if s := st.sessions.find(id); s != nil && s.tomb == 0 {
		return s
	}
	return nil
}
