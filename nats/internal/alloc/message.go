// Package alloc contains the protocol with which several processes share slots. It does not open
// connections, read clocks or start goroutines.
//
// One process is the allocator. It holds the key, whose value ([Key]) contains the allocator's name, its term
// and the processes that it knows. Every election raises the term. Each process, including the allocator's
// own, is a [Member]: it sends its requests and releases to the [Allocator], and gets grants. The allocator
// uses an ordinary bgagent.ConcurrencyManager. These rules make the limits exact:
//
//   - A process takes a grant only if the grant contains the term and the number of the process's current
//     registration. In addition, less than two thirds of a lease must have passed since the process sent its
//     last answered message. After two thirds, the process gives up all slots that it has. Therefore, a
//     frozen process that wakes up refuses the grants that are still in its socket.
//   - The allocator reserves a process's slots for one lease after the last message that it
//     answered. A message is answered after it was sent, so the process gives up its slots first.
//   - An allocator stops answering when two thirds of its key's time have passed, counted from when
//     it sent the last successful write. Another process takes the key only after it has seen the
//     key unchanged for the whole of the key's time.
//   - The allocator adds a process to the value of the key before it answers the process. A new allocator
//     replaces the value that it has read, so its list of processes is complete. The new allocator does not
//     grant slots until each process in the list has reported what it holds and waits for, or until a lease
//     has passed.
//
// Messages can be lost, repeated or late. A process repeats its message until it is answered, and
// each answer repeats the grants that the process has not confirmed.
package alloc

import (
	"time"

	"github.com/bgagent/bgagent"
)

// OpKind is the kind of an [Op].
type OpKind string

// The kinds of ops.
const (
	OpWant  OpKind = "want"  // the process waits for a slot
	OpHold  OpKind = "hold"  // the process has a slot, or runs something that needs one
	OpFree  OpKind = "free"  // the process gives up its slot or its place in line
	OpTake  OpKind = "take"  // the process has taken a grant
	OpDone  OpKind = "done"  // the registration is complete
	OpLeave OpKind = "leave" // the process is exiting, no longer waits for slots, and keeps its slots until it frees them
)

// Op is a change that a process reports.
type Op struct {
	Kind   OpKind    `json:"k"`
	ID     uint64    `json:"i,omitempty"` // number of the request within the process
	Model  string    `json:"m,omitempty"`
	Agent  string    `json:"a,omitempty"`
	Root   string    `json:"r,omitempty"`
	Head   bool      `json:"h,omitempty"`
	Queued time.Time `json:"q,omitzero"`
}

// Up is a message from a process to the allocator. A message that asks for the figures is a heartbeat; it can
// have no ops.
type Up struct {
	Process      string `json:"process"`
	Term         uint64 `json:"term"`
	Registration uint64 `json:"registration"` // number of this registration among the process's registrations
	First        uint64 `json:"first"`        // number of the first op within the registration; the first op has the number 1
	Ops          []Op   `json:"ops,omitempty"`
	Figures      bool   `json:"figures,omitempty"` // the answer must contain the pools' figures
}

// Down is a message from the allocator to a process.
type Down struct {
	Term         uint64 `json:"term"`
	Registration uint64 `json:"registration"`
	Acked        uint64 `json:"acked,omitempty"`    // number of the last op that the allocator knows
	Register     bool   `json:"register,omitempty"` // the process must register

	// Grants are the numbers of the requests that have been granted slots but that the process has
	// not confirmed.
	Grants []uint64 `json:"grants,omitempty"`

	Limits *bgagent.Limits     `json:"limits,omitempty"` // sent with the figures
	Pools  []bgagent.PoolStats `json:"pools,omitempty"`
}

// Key is the value of the key that the allocator holds.
type Key struct {
	Version int            `json:"version"`
	Term    uint64         `json:"term"`
	Holder  string         `json:"holder"` // process of the allocator; empty if it has given up the key
	Members []string       `json:"members"`
	Limits  bgagent.Limits `json:"limits"`
	Lease   time.Duration  `json:"lease"`
}

// KeyVersion is the version of the protocol.
const KeyVersion = 1

// MinLease is the shortest lease allowed. Only tests change it.
var MinLease = 15 * time.Second

// Watch observes the key for a process that might become the allocator.
type Watch struct {
	Time time.Duration // how long the key must stay unchanged before another process may take it
	rev  uint64
	from time.Time // when the revision was first seen
}

// See stores the revision that was read. It reports whether the process may take the key now. The time "now"
// must be read from the clock after the answer has arrived.
func (w *Watch) See(now time.Time, rev uint64, k *Key) bool {
	if rev != w.rev || w.from.IsZero() {
		w.rev, w.from = rev, now
	}
	return k.Holder == "" || now.Sub(w.from) >= w.Time
}

// Forget restarts the waiting time. It is called when the key could not be read, because the same problem
// might have prevented the holder from writing the key.
func (w *Watch) Forget() { w.from = time.Time{} }

func twoThirds(d time.Duration) time.Duration { return d * 2 / 3 }

// The function "since" returns the time that has passed, according to the monotonic clock or the wall
// clock, whichever is longer. The monotonic clock can stop while a machine is suspended.
func since(now, t time.Time) time.Duration {
	return max(now.Sub(t), now.Round(0).Sub(t.Round(0)))
}
