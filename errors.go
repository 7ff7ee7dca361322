package bgagent

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Errors that a caller can test for with [errors.Is].
var (
	// ErrClosed is returned by everything that would start something new after
	// Close or Drain has begun; by Drain when Close begins; and by Quiet when
	// Close has ended and something may still run. Run and Wait return the tasks
	// then, which Close has cancelled.
	ErrClosed = errors.New("the manager is closed")

	// ErrUnknownTask is returned when no task has the id, and there never was
	// one that the manager remembers.
	ErrUnknownTask = errors.New("unknown task")

	// ErrExpired is returned, wrapped by [*ExpiredError], for a task whose
	// record has been dropped by retention.
	ErrExpired = errors.New("the task has expired")

	// ErrNotDescendant is returned when a session asks for a task that it did
	// not launch, directly or through its tasks.
	ErrNotDescendant = errors.New("the task does not descend from the caller's session")

	// ErrStillLive is returned by Resume for a task that is pending or running.
	ErrStillLive = errors.New("the task has not ended yet")

	// ErrNotStopped is returned by Resume while the session of an earlier
	// attempt could not be stopped and may still be running; and by Quiet when
	// the record of such a task has expired.
	ErrNotStopped = errors.New("the session of the earlier attempt did not stop")

	// ErrAlreadyEnded is returned by Cancel for a task that has ended. Nothing
	// was changed.
	ErrAlreadyEnded = errors.New("the task has already ended")

	// ErrDepth is returned by Launch when the caller's session is already as
	// deep as Config.MaxDepth allows.
	ErrDepth = errors.New("tasks may not delegate any further")

	// ErrTooManyTasks is returned by Launch and Resume when the root session has as many
	// live tasks as Config.MaxTasksPerRoot allows.
	ErrTooManyTasks = errors.New("too many live tasks")

	// ErrSessionEnded is returned by Launch when the calling session belongs to
	// a task that was ended from outside.
	ErrSessionEnded = errors.New("the calling session's own task has ended")

	// ErrParentCycle is returned by Launch when the parents of the calling
	// session form a circle.
	ErrParentCycle = errors.New("the parents of the session form a circle")

	// ErrGoesOn is returned by Run and Wait, together with the tasks, when
	// waiting any longer could deadlock or the deadline is over: the task goes
	// on in the background and its end will be told.
	ErrGoesOn = errors.New("the task goes on in the background")

	// ErrNothingOwed is returned by NextNotice when nothing is owed to the
	// session and no task that it has launched is live.
	ErrNothingOwed = errors.New("nothing is owed to the session")

	// ErrBusy is returned by a client whose session is in a turn. A notice is
	// tried again then; a prompt has failed.
	ErrBusy = errors.New("the session is busy")

	// ErrNoSession is returned by clients for a session that does not exist.
	ErrNoSession = errors.New("no such session")

	// ErrUnreachable is returned, wrapped, by a client's CreateSession, StartTurn
	// or RunTurn when what runs the agents cannot be reached and nothing was
	// started, so that trying again is safe: a connection that was refused, never
	// an answer that got lost. The start is held back then, not failed: one start
	// of the client tries again and again while its others wait, for at most
	// Config.HostUnreachable.
	ErrUnreachable = errors.New("the agent runtime cannot be reached")
)

// InputError says which argument was wrong and what would be right. It is
// returned by New, NewConcurrencyManager, SetLimits, Launch, Run, Resume,
// RunResume, Wait, FormatConfig and the typed functions of the tools, and changes
// nothing. What is wrong in a configuration file is a [*ConfigFileError].
type InputError struct {
	Field   string // name of the argument or field
	Problem string // what is wrong and what would be right, without a full stop
}

// Error returns the field and the problem in one sentence.
func (e *InputError) Error() string { return e.Field + ": " + e.Problem }

// ConfigFileError says what is wrong in a configuration file and what would be
// right. It is returned by ParseConfig, LoadConfig and FindConfigFiles, joined
// with the other errors of the same files where there are several: use
// [errors.As] for the first, or the Unwrap() []error of the joined error for
// each.
type ConfigFileError struct {
	File    string // as it was named by the caller
	Line    int    // from 1; 0 when the file could not be read at all
	Column  int    // from 1, in characters; 0 with Line
	Key     string // as in background_task.staleTimeoutMs; empty when it is not about one
	Problem string // what is wrong and what would be right, without a full stop
	Err     error  // the error of the file system, else nil
}

// Error returns place, key and problem in one line, the place in the form that
// editors and terminals make clickable.
func (e *ConfigFileError) Error() string {
	s := Origin{e.File, e.Line, e.Column}.String() + ": "
	if e.Key != "" {
		s += e.Key + ": "
	}
	return s + e.Problem
}

// Unwrap returns the error of the file system, such as [fs.ErrNotExist].
func (e *ConfigFileError) Unwrap() error { return e.Err }

// NoSuchAgentError says that an agent does not exist. Clients return it from
// CreateSession or StartTurn; it becomes the reason of the task.
type NoSuchAgentError struct {
	Agent string
	Known []string // the agents that there are; may be empty
}

// Error names the agent and those there are.
func (e *NoSuchAgentError) Error() string {
	s := "there is no agent " + strconv.Quote(e.Agent)
	if len(e.Known) > 0 {
		s += "; there are: " + strings.Join(e.Known, ", ")
	}
	return s
}

// ExpiredError says what is still known of a task whose record has expired. It
// matches [ErrExpired].
type ExpiredError struct {
	ID      string
	Status  Status // how it had ended
	Session string // its session, which can still be resumed by id; may be empty
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

// CloseError is returned by Close when something could not be brought to its
// end. The manager is closed all the same.
type CloseError struct {
	NotStopped []string     // ids of tasks of which something may still run
	Owed       []NoticeItem // ends that no parent has been told of; TakeNotice still hands them out
	Hung       []string     // kinds of host calls that have not returned
	Err        error        // the context's error when Close was cut short, else nil
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

// Unwrap returns the context's error when Close was cut short.
func (e *CloseError) Unwrap() error { return e.Err }

func itoa(n int) string { return strconv.Itoa(n) }
