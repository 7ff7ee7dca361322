package bgagent

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Errors that a caller can test for with [errors.Is].
var (
	// ErrClosed is returned by every method that would start something after Close or Drain has
	// begun. Drain returns it if Close begins, and Quiet if Close has ended and something may still
	// run. Run and Wait do not return it: they return the tasks that Close has cancelled.
	ErrClosed = errors.New("the manager is closed")

	// ErrUnknownTask is returned if no task has the id, and the manager remembers none that had it.
	ErrUnknownTask = errors.New("unknown task")

	// ErrExpired is returned, wrapped by [*ExpiredError], for a task whose record was dropped by
	// retention.
	ErrExpired = errors.New("the task has expired")

	// ErrNotDescendant is returned if a session asks for a task that it did not launch, directly or
	// through its tasks.
	ErrNotDescendant = errors.New("the task does not descend from the caller's session")

	// ErrStillLive is returned by Resume for a task that is pending or running.
	ErrStillLive = errors.New("the task has not ended yet")

	// ErrNotStopped is returned by Resume if the session of an earlier attempt could not be stopped
	// and may still be running. Quiet returns it if the record of such a task has expired.
	ErrNotStopped = errors.New("the session of the earlier attempt did not stop")

	// ErrAlreadyEnded is returned by Cancel for a task that has ended. Nothing has changed.
	ErrAlreadyEnded = errors.New("the task has already ended")

	// ErrDepth is returned by Launch if the caller's session is already as deep as Config.MaxDepth
	// allows.
	ErrDepth = errors.New("tasks may not delegate any further")

	// ErrTooManyTasks is returned by Launch and Resume if the root session has as many live tasks
	// as Config.MaxTasksPerRoot allows.
	ErrTooManyTasks = errors.New("too many live tasks")

	// ErrSessionEnded is returned by Launch if the calling session belongs to a task that was ended
	// from outside.
	ErrSessionEnded = errors.New("the calling session's own task has ended")

	// ErrParentCycle is returned by Launch if the parents of the calling session form a cycle.
	ErrParentCycle = errors.New("the parents of the session form a cycle")

	// ErrGoesOn is returned by Run and Wait, together with the tasks, if waiting longer could
	// deadlock or the deadline has passed. The task continues in the background, and its end will
	// be told.
	ErrGoesOn = errors.New("the task goes on in the background")

	// ErrNothingOwed is returned by NextNotice if the session is owed nothing and no task that it
	// launched is live.
	ErrNothingOwed = errors.New("nothing is owed to the session")

	// ErrBusy is returned by a client if the session is in a turn. A notice is then tried again; a
	// prompt has failed.
	ErrBusy = errors.New("the session is busy")

	// ErrNoSession is returned by a client for a session that does not exist.
	ErrNoSession = errors.New("no such session")

	// ErrUnreachable is returned, wrapped, by CreateSession, StartTurn or RunTurn of a client if
	// the agent runtime cannot be reached and nothing was started, so that trying again is safe. A
	// refused connection is such a case; an answer that got lost is not. The start is then held
	// back instead of failed: one start of the client tries again and again while the others wait,
	// for at most Config.HostUnreachable. [Task].Outage says so of a task.
	ErrUnreachable = errors.New("the agent runtime cannot be reached")
)

// InputError says which argument was wrong and what would be right. New, NewConcurrencyManager,
// SetLimits, Launch, Run, Resume, RunResume, Wait, FormatConfig and the typed functions of the
// tools return it, and then have changed nothing. For errors in a configuration file, see
// [*ConfigFileError].
type InputError struct {
	Field   string // name of the argument or field
	Problem string // what is wrong and what would be right, without a full stop
}

// Error returns the field and the problem in one sentence.
func (e *InputError) Error() string { return e.Field + ": " + e.Problem }

// ConfigFileError says what is wrong in a configuration file and what would be right. ParseConfig,
// LoadConfig and FindConfigFiles return it, joined with the other errors of the same files. Use
// [errors.As] for the first one, or Unwrap() []error of the joined error for all.
type ConfigFileError struct {
	File    string // as the caller named it
	Line    int    // from 1; 0 if the file could not be read at all
	Column  int    // from 1, in characters; 0 if Line is 0
	Key     string // such as background_task.staleTimeoutMs; empty if the error is about no key
	Problem string // what is wrong and what would be right, without a full stop
	Err     error  // the error of the file system, or nil
}

// Error returns place, key and problem in one line. The place has the form that editors and
// terminals make clickable.
func (e *ConfigFileError) Error() string {
	s := Origin{e.File, e.Line, e.Column}.String() + ": "
	if e.Key != "" {
		s += e.Key + ": "
	}
	return s + e.Problem
}

// Unwrap returns the error of the file system, such as [fs.ErrNotExist].
func (e *ConfigFileError) Unwrap() error { return e.Err }

// NoSuchAgentError says that an agent does not exist. Clients return it from CreateSession or
// StartTurn. It becomes the reason of the task.
type NoSuchAgentError struct {
	Agent string
	Known []string // the agents that exist; may be empty
}

// Error names the agent and those that exist.
func (e *NoSuchAgentError) Error() string {
	s := "there is no agent " + strconv.Quote(e.Agent)
	if len(e.Known) > 0 {
		s += "; there are: " + strings.Join(e.Known, ", ")
	}
	return s
}

// ExpiredError says what is still known about a task whose record has expired. It matches
// [ErrExpired].
type ExpiredError struct {
	ID      string
	Status  Status // how its last attempt ended
	Session string // id of its session, which can still be resumed; may be empty
}

// Error says how the task had ended.
func (e *ExpiredError) Error() string {
	s := fmt.Sprintf("task %s has expired; its last attempt ended as %s", e.ID, e.Status)
	if e.Session != "" {
		s += "; session " + e.Session
	}
	return s
}

// Is reports whether target is [ErrExpired].
func (e *ExpiredError) Is(target error) bool { return target == ErrExpired }

// CloseError is returned by Close if something did not stop or is still owed. The manager is closed
// all the same.
type CloseError struct {
	NotStopped []string     // ids of tasks that may still run
	Owed       []NoticeItem // ends that no parent was told about; TakeNotice still hands them out
	Hung       []string     // kinds of host calls that have not returned
	Err        error        // the error of the context if Close was cut short, or nil
}

// Error names what did not stop and how much is still owed.
func (e *CloseError) Error() string {
	var parts []string
	if len(e.NotStopped) > 0 {
		parts = append(parts, "did not stop: "+strings.Join(e.NotStopped, ", "))
	}
	if len(e.Hung) > 0 {
		parts = append(parts, "host calls that have not returned: "+strings.Join(e.Hung, ", "))
	}
	if len(e.Owed) > 0 {
		parts = append(parts, fmt.Sprintf("%d end(s) that no parent has been told of", len(e.Owed)))
	}
	if e.Err != nil {
		parts = append(parts, e.Err.Error())
	}
	return "bgagent: close: " + strings.Join(parts, "; ")
}

// Unwrap returns the error of the context if Close was cut short.
func (e *CloseError) Unwrap() error { return e.Err }

// The errors that the state returns. They live here because the state contains no wording.

func taskError(id string, why error) error { return fmt.Errorf("task %s: %w", id, why) }

func unknownTask(id string) error { return fmt.Errorf("task %.40q: %w", id, ErrUnknownTask) }

func stillLive(id string, s Status) error {
	return fmt.Errorf("task %s is %s: %w", id, s, ErrStillLive)
}

func parentCycle(session string) error { return fmt.Errorf("session %q: %w", session, ErrParentCycle) }

func sessionWasDeleted(id, session string) error {
	return fmt.Errorf("task %s: session %s was deleted: %w", id, session, ErrNoSession)
}

func sessionIsGone(session string) error {
	return fmt.Errorf("%w: session %q is gone", ErrSessionEnded, session)
}

func taskWasEnded(id string, c Cause) error {
	return fmt.Errorf("%w: task %s was ended (%s)", ErrSessionEnded, id, c)
}

func taskNotBegun(id string) error {
	return fmt.Errorf("%w: task %s was ended, and its next attempt has not begun", ErrSessionEnded, id)
}

func pastDepth(depth, most int) error {
	return fmt.Errorf("%w: the session is at depth %d of at most %d; do the work in the session itself", ErrDepth, depth, most)
}

func tooManyTasks(session string, live, most int) error {
	return fmt.Errorf("%w: session %q has %d of at most %d; wait for some to end or cancel them", ErrTooManyTasks, session, live, most)
}

func itoa(n int) string { return strconv.Itoa(n) }
