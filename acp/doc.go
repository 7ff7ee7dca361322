// Package acp runs agents that speak the Agent Client Protocol
// (https://agentclientprotocol.com): opencode acp, gemini --acp, and other programs that
// editors can control with this protocol. The package is a module of its own, so that
// only its users download the protocol's SDK.
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
// # Turns and processes
//
// The client is a [bgagent.TurnRunner]. It starts the program for the first session and
// runs all sessions in that one process. The agent answers a prompt when its turn ends,
// so the client never has to guess the end of a turn.
//
// The client reports the agent's text, reasoning, tool calls, plan and usage as progress
// of the task, and passes stop reasons on. If the agent answers a prompt with an error,
// the turn fails, and the reason is the agent's error text.
//
// Some agents answer a prompt before they have sent the last pieces of their text. A turn
// that ends well therefore lasts until the agent has been silent for 250 ms, but at most
// one second longer. Text that continues the last message belongs to the answer; a tool
// call or another message ends the wait. The agents for Codex and Claude write errors as
// text. Such an error becomes the reason for the failure of the turn and is not part of
// its text.
//
// If the process ends, its turns are interrupted. The error says how the process ended
// and contains the end of its stderr. The next prompt starts another process. If the
// agent can load sessions, the new process loads the session. Otherwise the error wraps
// [bgagent.ErrNoSession] and says how the session was lost. A session from an earlier run
// of the host is loaded in the same way.
//
// To stop a turn, the client cancels it, and repeats the cancellation until the turn
// ends. If the agent has not stopped the turn after Config.CancelGrace, the client ends
// the whole process, but only once the other turns in that process are over. Meanwhile,
// new turns go to a new process. RunTurn therefore returns only when everything that the
// turn started has stopped, and a task that cannot be stopped does not interrupt other
// tasks.
//
// The client ends a program together with everything that the program has started: its
// process group, on Linux also its session, and descendants that have left both but have
// the client's mark in their environment. This holds for Close, for a crash, and for
// commands in terminals. A process escapes if it has left the session and the host cannot
// read the mark, because the process has overwritten its environment or runs as another
// user. No agent can hang the host, even if it prints text that is not JSON (also in
// front of a message), writes without end, or never reads its input.
//
// Programs and commands in terminals run in operating system sessions of their own,
// without a controlling terminal. They cannot open /dev/tty, and Ctrl-C reaches them only
// through the host. They run as the host's user and can read everything that this user
// can read. On Linux that includes the environment and the memory of the host. Keep
// secrets that an agent must not have out of both.
//
// A killed host cannot end its agents. Their input is closed then, and opencode and gemini
// exit if they are idle. A command in a terminal continues. A host that is process 1 of a
// container does not reap orphans, so ended orphans stay as zombies: give the container
// an init process.
//
// # Permissions
//
// An agent can ask its client for permission, files and terminals. But a program can also
// use the file system without asking. Put a program that you do not trust into a sandbox.
// The host answers the agent's requests:
//
//   - Permission: the rules of the session ([bgagent.Permission]) decide first, then
//     Config.Permit. A request that neither of them allows is refused with a reason, so
//     every question is answered.
//   - Files: the agent gets the access in Config.Files, only below the directory of the
//     session. Neither .. nor links lead out of that directory. A write replaces the file
//     in one step and keeps its mode and owner. Symbolic links, and files with several
//     hard links, are overwritten in place.
//   - Terminals: a command runs only if Config.Terminal allows it. It ends with its turn.
//
// A rule matches the kind or the name of a tool, and a path or a command:
//
//   - A rule is applied to everything that the agent has reported about its tool call,
//     not only to the question. For a tool that reads, edits or runs commands, rules are
//     matched against the input, and never against the title, which is meant for people.
//   - If the agent does not name the files of a call, a rule that allows some files allows
//     nothing, and a rule that forbids some files turns an earlier permission into a
//     question to Config.Permit. Paths are compared with their links resolved, also in
//     rules.
//   - The command may be a text or a list of words, in any of the usual fields. If a
//     shell gets a script as an argument, the script counts as the command. If no command
//     can be read, a rule for some commands allows nothing. If the text may contain
//     several commands (with ; or | or $( and the like, even in quotation marks), only a
//     rule for all commands allows it. The content of script files is not read.
//   - The agents for Claude and Qwen may start in a mode in which they never ask. If a
//     rule forbids something, the client switches such an agent to a mode in which it
//     asks. If the agent has no such mode, or if Agent.Mode names a mode in which it never
//     asks, the client does not run the agent.
//
// Some agents, such as opencode, end their turn without any text after a refusal. Others,
// such as Codex, report the turn as cancelled. In both cases the turn has failed, and the
// reason names the refused request.
//
// # Limits of the protocol
//
//   - The protocol has no parents of sessions. The parent of a session is the parent that
//     the manager has given, and the client finds only its own sessions.
//   - It has no status of sessions. The client does not know whether a session is busy
//     with a prompt from somebody else.
//   - Every prompt causes an answer, and agents do not recognize a repeated prompt.
//     Therefore the client does not implement [bgagent.Notifier].
//   - The protocol has no system text. The client puts it in front of the first prompt,
//     and in front of the next prompt after the text has changed.
//   - It has no mark for prompts that are not commands. Agents treat a prompt that begins
//     with a slash, such as /compact, as a command. gemini also treats a prompt that
//     begins with a dollar sign as a command. The client puts the line "The task:" in
//     front of such prompts.
//   - It has no names of tools, only titles. If a title is a sentence or a command, the
//     client uses the kind of the tool instead of its name.
//   - It has no names of agents. The host defines them in Config.Agents, and each name
//     stands for a mode and a model of the same agent. An agent that offers no choice of
//     models keeps its own model, even if a task requests another.
//   - The client knows only the part of a conversation that it has seen, within
//     Config.MaxHistory.
//   - Few agents report the tokens of a turn, and the protocol's field for tokens is not
//     stable yet.
//
// # Behaviour of agents
//
// Seen with opencode 1.18.33 and gemini-cli 0.61.0:
//
//   - opencode reports its todos only in the input of a tool. The client reads them there.
//   - opencode repeats a request that failed with status 500 for ever and does not
//     report it. The time limits of the manager end the turn.
//   - opencode reports only the tokens of the last request of a turn.
//   - gemini needs Config.Auth: "gemini-api-key".
//   - gemini replays the conversation only after it has reported the session as loaded.
//     The client waits until the agent is silent.
//   - gemini cannot load a session in the clock minute of its creation, because it would
//     overwrite its own record of the session. The client waits until that minute is over.
//   - gemini cannot create files with FilesReadWrite, because it treats the answer that
//     the file does not exist yet as a failure. Leave Files at FilesNone.
//   - gemini's list of models does not contain the model that its command line names.
//
// # Tests
//
// The tests use an agent that is made from the SDK and runs as a program or in virtual
// time. This agent crashes, floods the client, falls silent and ignores cancellation. The tests
// also use opencode, gemini, claude-agent-acp and codex-acp with a scripted model server.
// The conformance suite of bgagenttest runs with all of these. With claude-agent-acp it runs
// only if -acp.slow is given, because that agent starts a process for each session and needs
// minutes for the suite. The test of a model that never answers runs only with opencode and
// gemini.
package acp
