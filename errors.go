package bgagent

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// The errors that a caller can test for with [errors.Is].
var (
	// ErrClosed is returned after Close or Drain has begun, by every method that starts tasks or
	// attempts. Messages returns ErrClosed after Close has begun. Drain returns ErrClosed if Close
	// begins first. Quiet returns ErrClosed if Close has returned and the session might still be
	// running. Run and Wait do not return ErrClosed if Close begins while they wait. They return the
	// tasks that Close cancelled.
	ErrClosed = errors.New("the manager is closed")

	// ErrUnknownTask is returned for an id that belongs neither to a task nor to an expired task
	// that the manager still remembers.
	ErrUnknownTask = errors.New("unknown task")

	// ErrExpired is matched by an [*ExpiredError], which is returned for a task whose record has
	// expired and was dropped.
	ErrExpired = errors.New("the task has expired")

	// ErrNotDescendant is returned if a session refers to a task that neither the session itself
	// nor a task below it launched.
	ErrNotDescendant = errors.New("the task does not descend from the caller's session")

	// ErrStillLive is returned by Resume for a task that is pending or running. Send returns it for
	// a task that has ended but whose end has not yet been stored.
	ErrStillLive = errors.New("the task has not ended yet")

	// ErrNotStopped is returned by Resume if the session of an earlier attempt did not stop in time
	// and might still be in a turn. Forget returns it if the session is still being stopped. Quiet
	// returns it if the session of an expired task did not stop.
	ErrNotStopped = errors.New("the session of the earlier attempt did not stop")

	// ErrStillNeeded is returned by Forget for a task whose end has not been reported, or that has
	// launched tasks that are still needed.
	ErrStillNeeded = errors.New("the task is still needed: its end has not been reported, or tasks below it are not over")

	// ErrAlreadyEnded is returned by Cancel and Send for a task that has ended. In that case,
	// neither method changes anything.
	ErrAlreadyEnded = errors.New("the task has already ended")

	// ErrDepth is returned by Launch if the task would be at a greater depth than Config.MaxDepth
	// allows.
	ErrDepth = errors.New("tasks may not delegate any further")

	// ErrTooManyTasks is returned by Launch and Resume if the root session already has the maximum
	// number of live tasks, which is Config.MaxTasksPerRoot.
	ErrTooManyTasks = errors.New("too many live tasks")

	// ErrSessionEnded is returned by Launch and Resume if the calling session was deleted. It is
	// also returned if the task of the calling session has failed or was cancelled, or if the task's
	// next attempt still waits for the session to stop.
	ErrSessionEnded = errors.New("the calling session's own task has ended")

	// ErrParentCycle is returned by Launch and Resume if the parents of the calling session form a
	// cycle.
	ErrParentCycle = errors.New("the parents of the session form a cycle")

	// ErrGoesOn is returned by Run and Wait, together with the tasks, if waiting longer could cause
	// a deadlock. Run also returns ErrGoesOn if the deadline of its context has passed, if the task
	// must wait a long time for its model provider, or if a task asks a question. Tasks that have
	// not ended continue in the background and will be reported when they end.
	ErrGoesOn = errors.New("the task goes on in the background")

	// ErrNothingOwed is returned by NextNotice if no notice is owed to the session and no task that
	// the session has launched is live.
	ErrNothingOwed = errors.New("nothing is owed to the session")

	// ErrBusy is returned by a client, or by Config.Notify, if the session is in a turn. A notice is
	// then delivered later. If the call was meant to start a turn, the prompt counts as failed.
	ErrBusy = errors.New("the session is busy")

	// ErrNoSession is returned by a client, or by Config.Notify, for a session that does not exist.
	// Resume returns ErrNoSession if the session of the task was deleted. Messages returns it if the
	// task has no session.
	ErrNoSession = errors.New("no such session")

	// ErrUnreachable is returned, wrapped, by a client's CreateSession, StartTurn or RunTurn if the
	// agent runtime cannot be reached and nothing was started. The call can then be repeated
	// safely. Clients return ErrUnreachable if a connection was refused, for example. They do not
	// return it if an answer was lost, because the call might have started something. After
	// ErrUnreachable, the start of the task does not fail. It is delayed for at most
	// Config.HostUnreachable. If several starts on the same client are delayed, the manager repeats
	// only one of them, and the others wait. [Task].Outage shows when the delay of a task's start
	// began.
	ErrUnreachable = errors.New("the agent runtime cannot be reached")

	// ErrUnreadable is returned, wrapped, by a client's RestoreSession if no process of the session is
	// running, but it cannot be determined how far the session got. The attempt ends as interrupted,
	// and the manager does not try to stop the session again.
	ErrUnreadable = errors.New("the session cannot be read")
)

// InputError reports which argument is wrong and which values are valid. It is returned by New,
// NewConcurrencyManager, SetLimits, Launch, Run, Resume, RunResume, Wait, Send, Answer, Reporter.Ask,
// LoadConfig, FormatConfig and the functions that call the tools. The functions that create clients
// in the packages command, opencode and acp also return it. A function that returns an InputError
// has not changed anything.
// For errors in a configuration file, see [*ConfigFileError].
type InputError struct {
	Field   string // name of the argument or field
	Problem string // description of the error and of the valid values, without a full stop
}

// Error returns the field and the problem in one line.
func (e *InputError) Error() string { return e.Field + ": " + e.Problem }

// errNoContext is the error for a call with a nil context.
var errNoContext error = &InputError{"ctx", "is nil; use context.Background() if there is no other"}

// ConfigFileError reports what is wrong in a configuration file and which values are valid.
// ParseConfig and LoadConfig return it joined with the other errors about the same files. Use
// [errors.As] to get the first error, or the joined error's method Unwrap() []error to get all
// errors. FindConfigFiles returns a single ConfigFileError.
type ConfigFileError struct {
	File    string // path or name of the file, as the caller gave it
	Line    int    // line, counted from 1; 0 if the file could not be read
	Column  int    // column in characters, counted from 1; 0 if Line is 0
	Key     string // path of the key, such as background_task.staleTimeoutMs; empty if the error concerns no key
	Problem string // description of the error and of the valid values, without a full stop
	Err     error  // file system error, or nil
}

// Error returns the place, the key and the problem in one line. The place has the form
// "file:line:column", which editors and terminals make clickable.
func (e *ConfigFileError) Error() string {
	s := Origin{e.File, e.Line, e.Column}.String() + ": "
	if e.Key != "" {
		s += e.Key + ": "
	}
	return s + e.Problem
}

// Unwrap returns Err, which matches [fs.ErrNotExist] if the file does not exist.
func (e *ConfigFileError) Unwrap() error { return e.Err }

// NoSuchAgentError reports that an agent does not exist. Clients return it from CreateSession,
// StartTurn or RunTurn. Its text becomes the task's reason.
type NoSuchAgentError struct {
	Agent string
	Known []string // names of the agents that exist; empty if the client does not list them
}

// Error names the missing agent and the agents that exist.
func (e *NoSuchAgentError) Error() string {
	s := "there is no agent " + strconv.Quote(e.Agent)
	if len(e.Known) > 0 {
		s += "; there are: " + strings.Join(e.Known, ", ")
	}
	return s
}

// ExpiredError contains the facts that are still known about a task whose record has expired. It
// matches [ErrExpired].
type ExpiredError struct {
	ID      string
	Status  Status // final status of the last attempt
	Session string // id of the task's session, which can still be resumed; empty if there is none
}

// Error names the task, the status of its last attempt, and its session.
func (e *ExpiredError) Error() string {
	s := fmt.Sprintf("task %s has expired; its last attempt ended as %s", e.ID, e.Status)
	if e.Session != "" {
		s += "; session " + e.Session
	}
	return s
}

// Is reports whether target is [ErrExpired].
func (e *ExpiredError) Is(target error) bool { return target == ErrExpired }

// CloseError is returned by Close and Suspend if tasks or host calls did not stop, if ended tasks
// were not reported to any parent, or if changes could not be stored. Even then, the manager is
// closed.
type CloseError struct {
	NotStopped []string     // ids of tasks whose sessions might still be running; after Suspend, ids of tasks whose last changes are not stored
	Owed       []NoticeItem // tasks that have ended but were not reported to any parent; TakeNotice still returns them
	Hung       []string     // kinds of host calls that have not returned
	Err        error        // error of the context if it ended before Close could finish, otherwise the reason why changes are not stored, or nil
}

// Error names the tasks and the host calls that did not stop. It also states how many tasks have
// ended without being reported.
func (e *CloseError) Error() string {
	var parts []string
	if len(e.NotStopped) > 0 {
		parts = append(parts, "did not stop: "+strings.Join(e.NotStopped, ", "))
	}
	if len(e.Hung) > 0 {
		parts = append(parts, "host calls that have not returned: "+strings.Join(e.Hung, ", "))
	}
	if len(e.Owed) > 0 {
		parts = append(parts, fmt.Sprintf("%d end(s) that were not reported to any parent", len(e.Owed)))
	}
	if e.Err != nil {
		parts = append(parts, e.Err.Error())
	}
	return "bgagent: close: " + strings.Join(parts, "; ")
}

// Unwrap returns Err.
func (e *CloseError) Unwrap() error { return e.Err }

// The errors that the state returns. They are defined in this file because the state's files
// contain no wording.

func recordRefused(id string) error {
	return fmt.Errorf("task %s: %w: it refuses the record of the task", id, ErrStore)
}

func storeIsLost(lost *lostError) error { return fmt.Errorf("%w: %w", ErrStore, lost) }

func taskError(id string, why error) error { return fmt.Errorf("task %s: %w", id, why) }

func unknownTask(id string) error { return fmt.Errorf("task %.40q: %w", id, ErrUnknownTask) }

func stillLive(id string, s Status) error {
	return fmt.Errorf("task %s is %s: %w", id, s, ErrStillLive)
}

func sentTooLate(id string, s Status) error {
	return fmt.Errorf("task %s is %s: %w; Resume continues it with another prompt", id, s, ErrAlreadyEnded)
}

func textMissing() error { return &InputError{"Text", "is missing; it must be the message"} }

func tooManyWait(id string, most int) error {
	return fmt.Errorf("task %s: %w: %d wait for their turns, and no more can wait", id, ErrTooManyMessages, most)
}

func tooManyJoin(id string, most int) error {
	return fmt.Errorf("task %s: %w: %d have joined its running turn, and no more can join it; send the message without Now", id, ErrTooManyMessages, most)
}

func notInTurn(id string) error {
	return fmt.Errorf("task %s: %w: the task is not in a turn; send it without Now", id, ErrCannotSteer)
}

func cannotSteer(agent string) error {
	return fmt.Errorf("%w: the client of agent %q cannot do that; send it without Now", ErrCannotSteer, agent)
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

func tooManyTasks(session string, live, most, parked int, until time.Time) error {
	if parked > 0 {
		return fmt.Errorf("%w: session %q has %d of at most %d, of which %d wait for the provider of their model until %s or later; wait for some to end or cancel them",
			ErrTooManyTasks, session, live, most, parked, until.UTC().Format(time.RFC3339))
	}
	return fmt.Errorf("%w: session %q has %d of at most %d; wait for some to end or cancel them", ErrTooManyTasks, session, live, most)
}

func itoa(n int) string { return strconv.Itoa(n) }
