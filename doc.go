// Package bgagent runs background tasks for an agent harness: an agent delegates
// pieces of its work to other agents, these work side by side within limits,
// each in a session of its own, and the one that delegated is told when they
// have ended.
//
// # The words
//
// A host is the program that embeds this package. It owns sessions: a session
// is one conversation with one agent, known here by an opaque id. A turn is what
// an agent does between a prompt and falling idle.
//
// A task is one piece of delegated work, with an id that begins with bg_. It runs
// in a session that is made for it. The session that delegated is the task's
// parent. A parent is one of three things: the session of another task, a root
// session that the host runs, or a scope, which is a mere name with no session
// behind it, for programs that have no session of their own.
//
// An attempt is one run of a task, of one turn or more. It is pending until it has
// a slot, then running, and ends as completed, error or cancelled. That is final
// for the attempt; beside it stands a [Cause], so that nobody has to parse text.
// Resuming an ended task opens a new attempt of the same task in the same
// session. An attempt whose agent has delegated in turn ends only when those
// tasks have ended, too, and its agent has been told: it holds no slot meanwhile,
// so that a chain of delegations finishes with a limit of 1.
//
// A slot is the right to run turns now. Slots come out of pools, and the [Limits]
// say how many there are of each: a model's own limit decides, else its
// provider's, else the default. Inside a pool it is first come, first served.
//
// # The port
//
// A [BackgroundManager] drives the host's agents through a [SessionClient], which
// makes sessions and stops what runs in them, and which is one of two things:
// a [TurnRunner], whose call lasts as long as the turn, or a [TurnStarter], which
// hands the prompt over and is asked, or tells by events, how the turn gets on.
// Package inproc has one for agents that are Go functions. What else a runtime can
// do is found by type assertion; see [SessionClient].
//
// [BackgroundManager.Launch] returns at once. [BackgroundManager.Run] and
// [BackgroundManager.Wait] wait for ends, [BackgroundManager.Cancel] and
// [BackgroundManager.Resume] do what they say, and [BackgroundManager.Subscribe]
// follows everything. The tools by which a model does the same are
// [DelegateTask], [BackgroundOutput] and [BackgroundCancel], and [Tools] has
// their definitions for any model API.
//
// # What is promised
//
// Every attempt ends once. A late answer of the agent, of its server or of a
// timer changes nothing after that. A running attempt has a time to live; a
// pending one waits for a slot as long as it takes, unless [Config] says
// otherwise. A host function that fails, hangs, panics or calls runtime.Goexit
// ends at most the task that it was called for, with the reason.
//
// A slot is given back once, whatever happens, and not before the turn is over:
// a limit counts what really runs. The one exception is a session that does not
// stop within [Config].StopTimeout: its slot goes to the next one all the same,
// and an [EventOverLimit] says so.
//
// Every end owes its parent a notice, which is settled in exactly one way, a
// [NoticeState]. How it is told depends on the parent:
//
//   - To a task's own session it is that session's next turn.
//   - To a root session it goes through [Config].Notify or a client that is a
//     [Notifier]. A failed delivery is repeated with longer and longer pauses,
//     under an id that never changes: it arrives exactly once where the host
//     uses the id to recognize a repetition, and at least once elsewhere. After
//     20 tries or a day it is given up, and can still be taken. Without a
//     notifier it is held, as for a scope.
//   - For a scope, to which the notifier answers [ErrNoSession], it is held until
//     [BackgroundManager.NextNotice] or [BackgroundManager.TakeNotice] hands it
//     out. It counts as told then.
//
// Whatever is owed to a session also comes with the result of its next tool call,
// and counts as told then. A parent that has read a result meanwhile, or has
// cancelled the task itself, is not told of it. What ends at about the same time is told together; [Wake] says
// when.
//
// All of this holds as long as the process lives: tasks are kept in memory, and
// a crash loses them. [BackgroundManager.Close] returns once nothing of the
// manager runs any more, or names what does in a [*CloseError].
package bgagent
