package bgagent

import (
	"context"
	"errors"
)

// This file defines the interface through which clients continue the sessions of an earlier
// process. docs/store.md describes what happens to a task when its process ends.

// PromptState says how far a session got with a prompt that an earlier process handed over.
type PromptState uint8

// The states of a prompt.
const (
	PromptUnknown     PromptState = iota // it is unknown whether the session has the prompt
	PromptMissing                        // the session does not have the prompt, or the session does not exist
	PromptInterrupted                    // the session has the prompt, and its turn was interrupted
	PromptAnswered                       // the session has the prompt, and its turn has ended
)

var promptStateNames = [...]string{"unknown", "missing", "interrupted", "answered"}

// String returns the name of the state in lower case.
func (s PromptState) String() string { return enumName(promptStateNames[:], uint8(s)) }

// SessionRestorer is implemented by a [TurnRunner] that can continue sessions that an earlier
// process created. Other clients cannot continue a turn that was interrupted when the process
// ended; the attempt ends as interrupted.
type SessionRestorer interface {
	// RestoreSession makes the session ready for its next prompt and reports how far the session got
	// with the last prompt. The manager calls it for each session of an earlier process, before it
	// does anything else with the session. The manager repeats the call if it returns [ErrBusy] or
	// [ErrUnreachable].
	//
	// First, RestoreSession terminates every process that the earlier process left behind for the
	// session. It identifies these processes by r.Instance and searches for them until two
	// consecutive searches find none. If a program is known to exit on its own, RestoreSession may
	// instead wait a limited time for it to exit. If a process of the session is still running
	// afterwards, the error matches [ErrBusy], and the manager calls RestoreSession again later. If
	// the runtime cannot be reached, the error matches [ErrUnreachable].
	//
	// Then RestoreSession reads the session. With PromptAnswered, the TurnEnd describes the end of
	// the turn and contains the answer. Its Usage is the usage of the whole turn, or zero if the
	// client does not know it. Usage that an earlier process has counted is not counted again. If the
	// session does not exist, the error matches [ErrNoSession]. In this case, the manager creates a
	// new session, unless a turn of the old session has already ended. If the error matches
	// [errors.ErrUnsupported], the state counts as PromptUnknown. After any other error, the attempt
	// ends as interrupted. Unless the error matches [ErrUnreadable], a process of the session might
	// still be running, and the manager repeats the call until the session has stopped, but for at
	// most Config.StopTimeout.
	RestoreSession(ctx context.Context, r SessionRestore) (PromptState, TurnEnd, error)
}

// SessionRestore is the argument of [SessionRestorer].RestoreSession.
type SessionRestore struct {
	Spec    SessionSpec // the value passed to CreateSession, if the configuration has not changed
	Session string      // id of the session; empty if CreateSession might have been called but its result is unknown
	Saved   []byte      // data from the last call to [Reporter.SaveState]; nil if there is none
	Last    Prompt      // last prompt that might have been handed over; Last.ID is empty if there is none

	// Instance is the id of the manager that handed over the last prompt. The client has put this id
	// into the environment of the session's processes; see [Prompt].
	Instance string
}

// SessionHome is implemented by clients that can report where their sessions live. For example,
// Home returns the address of a server, or the name of a machine and a user. The manager stores the
// home of each session of a [TurnRunner]. If the home of a client differs from that of a session,
// the manager does not continue the session: the agent's program might still be working in the
// session's home, and the client could not find that out. The attempt ends as interrupted. A
// [TurnStarter] needs no such check, because its server reports whether the session exists.
type SessionHome interface {
	// Home returns the home, or an empty string if the client does not know it. The manager calls
	// Home once, in New.
	Home() string
}

// This error comes from a manager with a store.
var (
	// ErrSuspended is returned to callers that are waiting for a task when the manager is suspended.
	ErrSuspended = errors.New("the manager is suspended; the task continues when a manager opens the store again")
)
