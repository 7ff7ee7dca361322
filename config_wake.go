package bgagent

import (
	"fmt"
	"slices"
)

// Wake determines when a root session gets its notices. A batch is the set of tasks
// that the session has launched since it last had no live task. Therefore, a task that is launched
// while other tasks of the session are live joins their batch.
type Wake uint8

// The values of [Wake]. They do not apply to a task that waits for its own tasks. Such a task
// always gets its notices as the prompt of its next turn.
const (
	WakeBatch Wake = iota // when no task of the batch is live, when a task of the batch fails or is cancelled, or NoticeMaxWait after a task of the batch ended
	WakeEach              // whenever a task has ended
	WakeNever             // never; the host takes notices with NextNotice or TakeNotice
)

var wakeNames = [...]string{"batch", "each", "never"}

// String returns "batch", "each" or "never".
func (w Wake) String() string { return enumName(wakeNames[:], uint8(w)) }

// MarshalText implements [encoding.TextMarshaler].
func (w Wake) MarshalText() ([]byte, error) { return []byte(w.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (w *Wake) UnmarshalText(b []byte) error {
	i := slices.Index(wakeNames[:], string(b))
	if i < 0 {
		return fmt.Errorf("unknown value %q; it must be batch, each or never", b)
	}
	*w = Wake(i)
	return nil
}
