// Package acp runs agents that speak the Agent Client Protocol: opencode acp,
// gemini --acp and every other program that editors can drive in this way
// (https://agentclientprotocol.com). It is a module of its own, so that only its
// users download the protocol's SDK.
//
//	client, err := acp.New(acp.Config{
//		Command: []string{"opencode", "acp"},
//		Dir:     "/home/me/project",
//		Permit: func(ctx context.Context, q acp.PermissionRequest) acp.PermissionAnswer {
//			return acp.PermissionAnswer{Allow: q.Kind == "read", Reason: "it may only look"}
//		},
//	})
//	…
//	defer client.Close()
//	m, err := bgagent.New(client, bgagent.Config{})
//
// # What it does
//
// The client is a [bgagent.TurnRunner]. It starts the program with the first
// session and runs all sessions in that one process. The agent answers a prompt
// when its turn ends, so the end of a turn is never guessed.
//
// The agent's text, reasoning, tool calls, plan and usage become the progress of
// the task. Stop reasons are passed on. If the agent answers a prompt with an
// error, the turn fails with the agent's text.
//
// Some agents answer a prompt before they have sent the last pieces of their
// text. A turn that ends well therefore lasts until nothing has come for 250 ms,
// but at most one second longer. Text that continues the last message belongs to
// the answer; a tool call or another message ends the wait. The agents for Codex
// and Claude write errors as text. Such an error is the reason of the failed turn
// and no part of its text.
//
// If the process ends, its turns are interrupted. The error says how the process
// ended and what it last wrote to stderr. The next prompt starts another process.
// If the agent can load sessions, that process loads the session; otherwise the
// error wraps [bgagent.ErrNoSession] and says how the session was lost. A session
// from an earlier run of the host is loaded in the same way.
//
// To stop a turn, the client tells the agent to cancel it until the turn ends. If the
// agent has not stopped after Config.CancelGrace, its whole process is ended, but
// only once the other turns in that process are over. New turns go to a new process
// meanwhile. So RunTurn returns only when nothing of the turn runs any more, and a
// task that cannot be stopped costs no other task its work.
//
// A program is ended together with everything that it has started: its process
// group, on Linux its session, and the descendants that have left both but carry a
// mark in their environment. This holds for Close, for a crash, and for commands in
// terminals. A process escapes if it has left the session and has either overwritten
// its environment or runs as another user, because the host cannot read that
// environment. No agent can hang the host: it may print text that is not JSON, even
// in front of a message, write without end, or never read its input.
//
// Programs and commands in terminals run in sessions of their own, without a
// controlling terminal. Opening /dev/tty fails, and Ctrl-C reaches them only
// through the host. They run as the host's user and can read what that user can
// read. On Linux that includes the environment and the memory of the host. Keep
// secrets that an agent must not have out of both.
//
// If the host itself is killed, it ends nothing. Its agents find their input
// closed; opencode and gemini exit then if they are idle. A command in a terminal
// continues. A host that is process 1 of a container does not reap orphans, so they
// stay as zombies: give the container an init process.
//
// # What the agent may do
//
// An agent can ask its client for permission, files and terminals, but nothing keeps
// a program from using the file system without asking. Put a program that you do not
// trust into a sandbox. The host answers the agent's requests:
//
//   - Permission: the rules of the session ([bgagent.Permission]) decide first, then
//     Config.Permit. What neither allows is refused with a reason, so no question stays
//     open.
//   - Files: none unless Config.Files allows them, and only below the directory of
//     the session; neither .. nor links lead out of it. A write replaces the file
//     in one step and keeps its mode and owner. Links, and files with several
//     names, are overwritten in place.
//   - Terminals: none unless Config.Terminal allows them. They end with their turn.
//
// A rule matches the kind or the name of a tool, and a path or a command:
//
//   - A question covers everything that the agent has reported about its tool call.
//     Rules read the input of a tool that reads, edits or runs commands, never its
//     title, which is meant for people.
//   - If the agent does not name the files and a rule concerns some files only, no rule
//     allows the call. Paths are compared with their links resolved, in rules too.
//   - The command may be a text or a list of words, under any of the usual field names.
//     The command in a shell's argument counts, too. If no command can be read, a rule
//     for some commands allows nothing. If the text may be several commands (with ; or
//     | or $( and the like, even in quotation marks), only a rule for all commands
//     allows it. What a script file does is not seen.
//   - The agents for Claude and Qwen may start in a mode that never asks. If a rule
//     forbids something, the client switches such an agent to a mode that asks. If the
//     agent has no such mode, or Agent.Mode names one that never asks, the client does
//     not run it.
//
// Some agents, such as opencode, end their turn without a word after a refusal.
// Others, such as Codex, report it as cancelled. Either turn has failed, and the
// reason names what was refused.
//
// # What it cannot know
//
//   - The protocol has no parents. A session's parent is the one that the client
//     was told, and only the client's own sessions are found.
//   - It has no status. The client does not know whether a session that somebody
//     else prompts is busy.
//   - It has no prompt without an answer and cannot recognize a repeated prompt, so
//     the client is no [bgagent.Notifier].
//   - It has no system text. The client puts that in front of the first prompt, and in
//     front of the next one after it has changed.
//   - It has no way to say that a prompt is only a prompt. Agents take a prompt that
//     begins with a slash for a command, such as /compact, and gemini one that
//     begins with a dollar sign. The client puts the line "The task:" in front of
//     such prompts.
//   - It has no tool names, only titles. If a title is a sentence or a command, the
//     kind of the tool stands in for its name.
//   - Agent names are the host's (Config.Agents). Each stands for a mode and a model
//     of the one agent. An agent that offers no choice of models keeps its own,
//     whatever model is requested.
//   - The conversation is what the client has seen, within Config.MaxHistory.
//   - Few agents report the tokens of a turn, and the protocol's field is not stable
//     yet.
//
// # What to know about agents
//
// Seen with opencode 1.18.33 and gemini-cli 0.61.0:
//
//   - opencode reports its todos only as the input of a tool, which the client reads.
//   - opencode repeats a request that failed with status 500 for ever and does not
//     report it. The time limits of the manager end the turn.
//   - opencode reports only the tokens of the last request of a turn.
//   - gemini needs Config.Auth: "gemini-api-key".
//   - gemini replays the conversation only after it has reported the session as
//     loaded. The client waits until nothing more comes.
//   - gemini cannot load a session in the minute of its creation, because it
//     overwrites its own record. The client waits until that minute is over.
//   - gemini cannot create files with FilesReadWrite, because it treats the answer
//     that the file does not exist yet as a failure. Leave Files at FilesNone.
//   - gemini's list of models leaves out the one that its command line names.
//
// # How it is tested
//
// The tests use an agent made from the SDK, as a program and in virtual time. It
// crashes, floods, falls silent and ignores cancellation. They also use opencode,
// gemini, claude-agent-acp and codex-acp against a scripted model server. The
// conformance suite of bgagenttest runs with all of them but claude-agent-acp, which
// starts a process for each session and would need minutes. The tests of what the
// library does by itself run with opencode and gemini only.
package acp
