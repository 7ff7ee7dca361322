// Package alloc contains the protocol with which several processes share slots. It makes no connection,
// reads no clock and starts no goroutine.
//
// One process is the allocator. It holds the key, whose value ([Key]) names it, its term and the processes
// that it knows. Every election raises the term. Each process, also that of the allocator, is a [Member]: it
// sends what it wants and frees to the [Allocator], which is an ordinary bgagent.ConcurrencyManager, and
// gets grants. These rules make the limits exact:
//
//   - A process takes grants only of the term and under the registration number that it has registered
//     with, and only while its last answered message, counted from when it was sent, is younger than two
//     thirds of a lease. At that age, it gives up all slots that it has. So grants that have lain in the
//     socket of a frozen process are refused.
//   - The allocator keeps the slots of a process for a lease after the last message from it that it has
//     answered. A message is answered after it was sent, so the process gives up its slots first.
//   - An allocator answers nothing once two thirds of the time of its key are gone, counted from when it
//     sent the last write that has succeeded. Another process takes the key only after it has seen the key
//     unchanged for all of that time.
//   - The allocator adds a process to the value of the key before it answers the process. A new allocator
//     replaces the value that it has read, so its list of processes is complete. It grants nothing until
//     each of them has said what it holds and waits for, or until a lease has passed.
//
// Messages may be lost, repeated or late. A process repeats its message until it is answered, and each
// answer repeats the grants that the process has not confirmed.
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
	OpFree  OpKind = "free"  // the process gives up its slot, or its place in line
	OpTake  OpKind = "take"  // the process has taken a grant
	OpDone  OpKind = "done"  // the end of a registration
	OpLeave OpKind = "leave" // the process ends, waits for nothing, and keeps its slots until it frees them
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

// Up is a message from a process to the allocator. Without ops, it is a beat.
type Up struct {
	Process      string `json:"process"`
	Term         uint64 `json:"term"`
	Registration uint64 `json:"registration"` // number of the registration; a process counts its registrations
	First        uint64 `json:"first"`        // number of the first op within the registration; the first op has the number 1
	Ops          []Op   `json:"ops,omitempty"`
	Figures      bool   `json:"figures,omitempty"` // the answer contains the figures of the pools
}

// Down is a message from the allocator to a process.
type Down struct {
	Term         uint64 `json:"term"`
	Registration uint64 `json:"registration"`
	Acked        uint64 `json:"acked,omitempty"`    // number of the last op that the allocator knows
	Register     bool   `json:"register,omitempty"` // the process must register

	// Grants are the numbers of the requests that have got slots and that the process has not confirmed.
	Grants []uint64 `json:"grants,omitempty"`

	Limits *bgagent.Limits     `json:"limits,omitempty"` // with the figures
	Pools  []bgagent.PoolStats `json:"pools,omitempty"`
}

// Key is the value of the key that the allocator holds.
type Key struct {
	Version int            `json:"version"`
	Term    uint64         `json:"term"`
	Holder  string         `json:"holder"` // process of the allocator; empty if it has given the key up
	Members []string       `json:"members"`
	Limits  bgagent.Limits `json:"limits"`
	Lease   time.Duration  `json:"lease"`
}

// KeyVersion is the version of the protocol.
const KeyVersion = 1

// MinLease is the shortest lease. Only tests change it.
var MinLease = 15 * time.Second

// Watch observes the key for a process that would become the allocator.
type Watch struct {
	Time time.Duration // time of the key
	rev  uint64
	from time.Time // when the revision was first seen
}

// See records the revision that was read. It reports whether the process may take the key now. The time
// must be read after the answer has arrived.
func (w *Watch) See(now time.Time, rev uint64, k *Key) bool {
	if rev != w.rev || w.from.IsZero() {
		w.rev, w.from = rev, now
	}
	return k.Holder == "" || now.Sub(w.from) >= w.Time
}

// Forget makes the time count anew, because the key could not be read. Its holder may have been unable to
// write it.
func (w *Watch) Forget() { w.from = time.Time{} }

// twoThirds returns two thirds of the duration.
func twoThirds(d time.Duration) time.Duration { return d * 2 / 3 }

// since returns how much time has passed according to the clock that says more. The monotonic clock can
// stand still while a machine is suspended.
func since(now, t time.Time) time.Duration {
	return max(now.Sub(t), now.Round(0).Sub(t.Round(0)))
}
