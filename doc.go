// Package bgagent runs background tasks for an agent harness. An agent delegates pieces of its work to
// other agents. The other agents work concurrently within limits, each in its own session. Their
// results are reported to the agent that delegated the work.
//
// # Terms
//
// A host is the program that embeds this package. The host owns sessions. A session is one conversation
// with one agent. This package identifies a session by an id that only the host understands. A turn
// begins with a prompt and ends when the agent becomes idle.
//
// A task is one piece of delegated work. Its id begins with bg_. A task runs in a session that is
// created for it. The session that delegated the work is the task's parent. A parent is the session of
// another task, a root session that the host runs, or a scope. A scope is a name that stands for a
// program without its own session.
//
// An attempt is one run of a task and consists of one or more turns. An attempt is pending until it has
// a slot. Then it is running, until it ends with the status completed, error or cancelled. The end is
// final for the attempt. A [Cause] states why the attempt ended, so that no program has to parse text.
// Resuming a task that has ended opens a new attempt of the same task in the same session.
//
// If the agent of an attempt has itself delegated work, the attempt ends only after the delegated
// tasks have ended and the agent has been notified of this. During this wait, the attempt does not
// hold a slot. Therefore, a chain of delegations finishes even with a limit of 1.
//
// A slot is the right to run turns. Slots belong to pools. The [Limits] determine how many slots a pool
// has: a model's own limit applies if there is one, otherwise the limit of its provider, otherwise the
// default. A pool serves tasks in order of arrival.
//
// # Clients and methods
//
// A [BackgroundManager] drives the host's agents through a [SessionClient]. A client creates
// sessions and stops the turns in them. There are two kinds of clients. A [TurnRunner] has a call
// that returns when the turn is over. A [TurnStarter] has a call that only delivers the prompt; the
// manager then follows the turn with polls or events. Package inproc has a client for agents that
// are Go functions. The manager detects a client's other abilities by type assertion; see
// [SessionClient].
//
// [BackgroundManager.Launch] returns immediately. [BackgroundManager.Run] and
// [BackgroundManager.Wait] wait until tasks have ended. [BackgroundManager.Cancel] cancels a task.
// [BackgroundManager.Resume] continues a task that has ended. [BackgroundManager.Subscribe] reports
// every change. Models do the same through three tools: [DelegateTask], [BackgroundOutput] and
// [BackgroundCancel]. [Tools] returns the definitions of these tools for any model API.
//
// # Guarantees
//
// Every attempt ends once. Answers from the agent or its server that arrive later have no effect,
// and neither do timers that fire later. A running attempt has a time to live. A pending attempt
// waits for a slot without a time limit, unless [Config] sets one. If a host function fails, hangs,
// panics or calls runtime.Goexit, only the task for which it was called can end because of this.
// The task's reason then states why.
//
// A slot is given back exactly once, and not before the turn is over, so a limit counts the turns
// that are really running. There is one exception: if a session does not stop within
// [Config].StopTimeout, its slot goes to the next task anyway, and an [EventOverLimit] reports
// this.
//
// The end of every attempt is reported to the parent of the task in a notice. Until the notice is
// settled, it is owed to the parent. A notice is settled in exactly one way. [NoticeState] lists
// the ways. The delivery depends on the parent:
//
//   - The session of a task gets its notices as the prompt of its next turn.
//   - A root session gets its notices through [Config].Notify or through a client that is a [Notifier].
//     A failed delivery is retried with increasing pauses. The id of the notice stays the same. If the
//     host uses the id to recognize repetitions, the notice arrives exactly once, otherwise at least once.
//     After 20 failed deliveries or after a day, delivery is abandoned, but the notice can still be
//     taken. If there is no notifier, notices are held as for a scope.
//   - A scope is a parent for which the notifier returns [ErrNoSession]. Its notices are held until
//     [BackgroundManager.NextNotice] or [BackgroundManager.TakeNotice] returns them. Then they
//     are settled.
//
// The notices that are owed to a session are also delivered with the result of its next tool call.
// A parent that has read the result of a task, or has cancelled the task, is not notified when the
// task ends. Tasks that end at about the same time are reported together; see [Wake].
//
// Without a store, the guarantees hold until the process ends: tasks are kept only in memory, and a crash
// loses them. With [Config].Store, tasks outlive the process. [BackgroundManager.Close] returns once
// everything that the manager started has stopped. If something is still running, Close returns a
// [*CloseError] that names it.
package bgagent
