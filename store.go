package bgagent

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Store keeps tasks, so that they outlive the process. Only the manager calls its methods. The
// manager calls Open first and Close last. It calls Write for one batch at a time. It can call Text
// and History at any time between Open and Close, even during a Write. If one of these two calls
// takes longer than [Config].StoreTimeout, the manager abandons it. The manager waits until Write
// returns, and reports a Write that takes longer than StoreTimeout.
//
// A store keeps three kinds of data. A record describes one task, one session that delegates, or
// the manager itself. The manager always writes a whole record, and a later record with the same
// key replaces the earlier one. A text is a prompt or a result. It belongs to the record of a task,
// is written once, and is deleted together with the record. The batch number is the number of the
// last batch that the store contains. Keys, names and texts can contain any bytes.
//
// The manager relies on the following rules. Package storetest checks them.
//
//   - A batch is atomic. After a crash at any moment, the store contains either the whole batch or
//     no part of it.
//   - A batch is durable once Write has returned nil, whatever happens to the process and the
//     machine.
//   - Batches keep their order: if the store contains a batch, it contains all earlier batches.
//   - The store returns what was written, byte for byte. If it cannot read something, it
//     reports a [StoreDamage] or an error, and never returns other data instead.
//   - At most one manager has the store open.
//
// A store may have its own limits on the amount of data that it keeps. To keep these limits, it may
// delete ended tasks that are not Due, in the order they ended. It must not delete anything else.
type Store interface {
	// Open opens the store for the owner and returns the data that the manager needs to continue.
	// If a live manager has the store open, the error is a [*StoreOwnedError]. If the manager that
	// had the store open is dead, Open succeeds immediately. After Close, Open may be called again.
	Open(ctx context.Context, owner StoreOwner) (StoreContents, error)

	// Write writes the batch. If the error matches [ErrUncertain], the store may or may not contain
	// the batch. From then on, every Write fails until the store has been opened again, with Close
	// and Open or with the method Reopen of a [StoreReopener]. The result of Open or Reopen then
	// shows whether the store contains the batch. After any other error, the store contains no part
	// of the batch, now or later, and the next Write can succeed. If no space is left, the error
	// should match [syscall.ENOSPC]. If the store refuses a batch repeatedly for another reason,
	// the manager writes the batch in parts, sets the refused record aside, and reports it. A
	// [*StoreOwnedError] means that another manager has opened the store. The manager that called
	// Write then ends its tasks. The store must not use the batch or its slices after Write has
	// returned.
	Write(ctx context.Context, b *StoreBatch) error

	// Text returns the text with the given name that belongs to the record with the given key. If
	// there is no such text, the error matches [ErrNoText].
	Text(ctx context.Context, record, name string) (string, error)

	// History returns a page of ended tasks. The most recently launched task comes first. If tasks
	// were launched at the same time, the one with the greater key comes first. A page shows the
	// store as it is between two batches. It does not contain records that cannot be read. If
	// there is no record with the key q.Before, the error matches [ErrNoRecord].
	History(ctx context.Context, q StoreQuery) ([]StoreRecord, error)

	// Close closes the store, so that another manager can open it. It waits for calls that have
	// begun. After Close, all calls except Open and Close fail, and another Close does nothing.
	Close() error
}

// StoreReopener is implemented by a [Store] that can be reopened without being released. For other
// stores, the manager calls Close and Open after an uncertain Write, and another manager can open
// the store between these two calls.
type StoreReopener interface {
	// Reopen closes the store and opens it again for the same owner. No other manager can open the
	// store during the call. The manager calls Reopen after a Write has returned an error that
	// matches [ErrUncertain]. If Reopen fails, the store still belongs to its owner, and Reopen can
	// be called again. Close then releases the store. If another manager has nevertheless opened
	// the store, the error is a [*StoreOwnedError].
	Reopen(ctx context.Context) (StoreContents, error)
}

// StoreOwner identifies the manager that has a store open.
type StoreOwner struct {
	Instance string    `json:"instance"` // id of this run of the manager
	PID      int       `json:"pid"`      // process id of the manager
	Host     string    `json:"host"`     // name of the machine
	Program  string    `json:"program"`  // name of the program, for people
	Since    time.Time `json:"since"`    // when the manager opened the store
}

// StoreContents describes the contents of a store when it is opened.
type StoreContents struct {
	Batch   uint64        // number of the last batch; 0 for a new store
	Records []StoreRecord // records that are Due, in the order of their keys
	Damage  []StoreDamage // records that exist but cannot be read

	// Outdated is a phrase, without a full stop, that states why the store might lack changes that its
	// last owner wrote. For example, the store is a copy, or batches are missing. Outdated is empty if
	// there is no sign of such a problem. Tasks that are live in an outdated store might be running
	// elsewhere, or might already have ended. Therefore, the manager ends them as interrupted, without
	// calling a client. Every Open reports the reason until a batch has been written.
	Outdated string
}

// StoreDamage describes a record that cannot be read.
type StoreDamage struct {
	Key     string // key of the record; empty if it is unknown which records are damaged
	Problem string // description of the problem, without a full stop
}

// StoreKind is the kind of a record.
type StoreKind uint8

// The kinds of records.
const (
	StoreManager StoreKind = iota // the manager itself
	StoreTask                     // a task; its key is the task's id
	StoreSession                  // a session that delegates, with its notices that are not yet settled
)

// StoreRecord is one record. Only the manager interprets Data. The other fields are for the indexes
// of the store and for people who inspect the store.
type StoreRecord struct {
	Key  string
	Kind StoreKind
	Due  bool // Open must return the record, because the task is live or being stopped, or its parent must still be notified
	Data []byte

	// The following fields are set only for tasks.
	Parent, Root string // ids of the parent session and of the root session
	Session      string // id of the task's own session; empty while the task has none
	Agent        string
	Status       Status
	Launched     time.Time // wall time; a store can return it in another time zone
	Ended        time.Time // zero while the task is live
}

// StoreText is a text that belongs to a record.
type StoreText struct {
	Record string // key of the record, which is in the same batch or already in the store
	Name   string // name of the text, such as result.1
	Text   string
}

// StoreBatch is a set of changes that become durable together.
type StoreBatch struct {
	Number  uint64        // the number of the previous batch plus one; a store refuses any other number
	Records []StoreRecord // records to write; each key occurs at most once
	Texts   []StoreText   // texts to write; if the record already has a text with this name, the text is the same
	Delete  []string      // keys of records to delete together with their texts, if they exist; none of these keys occurs in Records
}

// StoreQuery selects ended tasks for a page of history. Except for Limit, an empty field does not
// restrict the page.
type StoreQuery struct {
	Ref    string   // only the task with this key, or the tasks whose own session has this id
	Parent string   // only tasks that this session launched
	Root   string   // only tasks of the tree below this root session
	Status []Status // only tasks with one of these statuses
	Before string   // only tasks that come after the task with this key in the order of History; empty for the first page
	Limit  int      // maximum number of tasks; at least 1
}

// These errors come from a store.
var (
	// ErrStore matches every error that comes from the store.
	ErrStore = errors.New("the store failed")

	// ErrStoreLost means that the store no longer belongs to the manager: another manager has opened
	// the store, or the store lacks batches that it once had. Errors that match ErrStoreLost also match
	// ErrStore. The manager then stops writing to the store and no longer runs tasks. Create a new
	// manager.
	ErrStoreLost = errors.New("the store is lost to this manager")

	// ErrUncertain is returned if a write failed and it is unknown whether the store contains the
	// batch. Launch and Resume return it, together with ErrStore, if they stop waiting for a write
	// that is in progress. In that case, the task does not start in this process.
	ErrUncertain = errors.New("it is not known whether the store has it")

	// ErrNoText is returned by Text if the store has no such text.
	ErrNoText = errors.New("the store has no such text")

	// ErrNoRecord is returned by History if the store has no record with the key Before.
	ErrNoRecord = errors.New("the store has no such record")
)

// lostError is the reason why a store is lost.
type lostError struct {
	why   string
	owner *StoreOwnedError // nil if no other owner is known
}

func (e *lostError) Error() string { return ErrStoreLost.Error() + ": " + e.why }

func (e *lostError) Unwrap() []error {
	if e.owner != nil {
		return []error{ErrStoreLost, e.owner}
	}
	return []error{ErrStoreLost}
}

// StoreOwnedError reports that a live manager has the store open.
type StoreOwnedError struct {
	Owner StoreOwner
}

// Error returns a message that names the owner.
func (e *StoreOwnedError) Error() string {
	o := e.Owner
	return fmt.Sprintf("the store belongs to %s (process %d on %s) since %s", o.Program, o.PID, o.Host, o.Since.Format(time.RFC3339))
}
