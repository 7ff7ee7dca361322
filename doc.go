// Package bgagent runs background tasks for an agent harness. An agent delegates pieces of its work to
// other agents. These work side by side within limits, each in a session of its own. The agent that
// delegated is told when they have ended.
//
// # Terms
//
// A host is the program that embeds this package. It owns sessions. A session is one conversation with
// one agent; this package knows it by an opaque id. A turn is what an agent does between a prompt and
// falling idle.
//
// A task is one piece of delegated work. Its id begins with bg_. It runs in a session that is created
// for it. The session that delegated is the task's parent. A parent is the session of another task, a
// root session that the host runs, or a scope. A scope is a name without a session behind it, for
// programs that have no session of their own.
//
// An attempt is one run of a task, of one turn or more. It is pending until it has a slot, then running,
// and ends as completed, error or cancelled. The end is final for the attempt. A [Cause] says why it
// ended, so that nobody has to parse text. Resuming an ended task opens a new attempt of the same task
// in the same session. If the agent has itself delegated, its attempt ends only after those tasks have
// ended and the agent has been told. It holds no slot meanwhile, so a chain of delegations finishes
// even with a limit of 1.
//
// A slot is the right to run turns now. Slots belong to pools. The [Limits] say how many slots a pool
// has: a model's own limit decides, else its provider's, else the default. A pool serves first come,
// first served.
//
// # The port
//
// A [BackgroundManager] drives the host's agents through a [SessionClient], which creates sessions and
// stops what runs in them. A client is one of two kinds. The call of a [TurnRunner] lasts as long as the
// turn. A [TurnStarter] hands the prompt over; the manager then learns about the turn by asking, or by
// events. Package inproc has a client for agents that are Go functions. All else that a runtime can do
// is found by type assertion; see [SessionClient].
//
// [BackgroundManager.Launch] returns at once. [BackgroundManager.Run] and [BackgroundManager.Wait] wait
// for ends. [BackgroundManager.Cancel] cancels a task and [BackgroundManager.Resume] continues one.
// [BackgroundManager.Subscribe] follows every change. The tools that give all this to a model are
// [DelegateTask], [BackgroundOutput] and [BackgroundCancel]. [Tools] has their definitions for any model
// API.
//
// # Guarantees
//
// Every attempt ends once. Later answers of the agent, its server or a timer change nothing. A running
// attempt has a time to live. A pending one waits for a slot as long as it takes, unless [Config] says
// otherwise. A host function that fails, hangs, panics or calls runtime.Goexit ends at most the task that
// it was called for, with the reason.
//
// A slot is given back exactly once, and not before the turn is over: a limit counts what really runs.
// The one exception is a session that does not stop within [Config].StopTimeout. Its slot goes to the
// next task all the same, and an [EventOverLimit] says so.
//
// A parent is owed a notice for every end. The notice is settled in exactly one way, its [NoticeState].
// How it is told depends on the parent:
//
//   - The session of a task is told by its next turn.
//   - A root session is told through [Config].Notify or a client that is a [Notifier]. A failed delivery
//     is repeated after longer and longer pauses, under an id that never changes. It arrives exactly
//     once if the host uses the id to recognize a repetition, and at least once otherwise. After 20
//     tries or a day it is given up, and can still be taken. Without a notifier, the notice is held as
//     for a scope.
//   - A scope is a parent for which the notifier answers [ErrNoSession]. Its notices are held until
//     [BackgroundManager.NextNotice] or [BackgroundManager.TakeNotice] hands them out. They count as
//     told then.
//
// What a session is owed also comes with the result of its next tool call, and counts as told then. A
// parent is not told about a task whose result it has read or that it has cancelled itself. Ends that
// come at about the same time are told together; see [Wake].
//
// The guarantees hold as long as the process lives. Tasks are kept in memory, and a crash loses them.
// [BackgroundManager.Close] returns once nothing of the manager runs any more, or names what still runs
// in a [*CloseError].
package bgagent
