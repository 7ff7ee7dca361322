// Package acp runs agents that speak the Agent Client Protocol (https://agentclientprotocol.com):
// opencode acp, gemini --acp, and other programs that editors can control with this protocol. The
// package is a separate module, so that only its users download the protocol's SDK.
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
// The client is a [bgagent.TurnRunner]. It starts the program for the first session and runs all
// sessions in that process. The agent answers the prompt when the turn ends, so the client never
// has to guess when a turn ends.
//
// The client reports the agent's text, reasoning, tool calls, plan and usage as the task's
// progress. It also passes on the stop reason. If the agent answers a prompt with an error, the
// turn fails, and the reason is the agent's error text.
//
// Some agents answer a prompt before they have sent the last pieces of their text. After the
// answer, the client therefore waits until the agent has been silent for 250 ms, but for no more
// than one second. It waits only if the turn ended normally. Text that continues the last message
// belongs to the answer; a tool call or another message ends the wait. The ACP adapters of Codex
// and Claude write errors as text. Such an error becomes the reason why the turn failed, and is not
// part of the turn's text.
//
// If the process ends, its turns are interrupted. The error states how the process ended and
// contains the end of its stderr. The next prompt starts another process. If the agent can load
// sessions, the new process loads the session. If the agent cannot load sessions, or did not store
// this session, the error wraps [bgagent.ErrNoSession] and states how the session was lost. Claude
// Code stores a session only a moment after its first prompt, so the session is lost if the process
// ends before that. A session from an earlier run of the host is loaded in the same way.
//
// To stop a turn, the client cancels it, and repeats the cancellation until the turn ends. If the
// agent has not stopped the turn within Config.CancelGrace, the client terminates the whole process,
// but only after the other turns in that process have ended. Until the old process is terminated,
// new turns run in a new process. As a result, RunTurn returns only when everything that the turn
// started has stopped, and a task that cannot be stopped does not interrupt other tasks.
//
// The client terminates a program together with everything that the program started: the processes
// in its process group, those in its operating system session (on Linux), and descendants outside
// of both that have the client's mark in their environment. The client does this on Close, after a
// crash, and for commands in terminals. A process cannot be found if it has left the session and
// the host cannot read its mark. The host cannot read the mark if the process has overwritten its
// environment or runs as another user. No agent can make the host hang, even if it prints text that
// is not JSON (for example in front of a message), writes endlessly, or never reads its input.
//
// Programs and commands in terminals run in separate operating system sessions, without a
// controlling terminal. They cannot open /dev/tty. Ctrl-C reaches only the host, which must then
// stop them. They run as the host's user and can read everything that this user can read. On Linux
// that includes the host's environment and memory. If an agent must not know a secret, keep the
// secret out of both.
//
// A host that is killed cannot terminate its agents. The agents' input is then closed, and opencode
// and gemini exit if they are idle. A command in a terminal keeps running. If the manager has a
// store, the host's next process terminates what is still running and continues the sessions; see
// [Client.RestoreSession]. If the host is process 1 of a container, it does not reap orphaned
// processes, so orphans that have exited remain as zombies. To avoid this, give the container an
// init process.
//
// # After a restart
//
// The client is a [bgagent.SessionRestorer]. It first kills the processes that the earlier host
// left running. It finds them by the earlier manager's instance in their environment, which works
// only on Linux. Then it loads the session. The protocol has no prompt ids, so the client looks for
// the text of the last prompt in the replay:
//
//   - The prompt was answered if the earlier client saved how its turn ended. If the client did not
//     save the answer's text, because the text is longer than 64 KiB or late pieces were still
//     expected, the prompt was answered only if the replay also ends with text.
//   - The prompt was interrupted if the replay contains the prompt's text more times than the
//     client had previously sent it. The replay alone never proves that there is an answer, because
//     a tool call that was not stored might have followed the last text in the replay. gemini does
//     not store the calls of an interrupted turn.
//   - The prompt is missing if the replay is empty and the session was never prompted, or if the
//     replay ends with the previous prompt. In all other cases, the state of the prompt is unknown.
//   - The prompt is also missing if the agent does not have the session, unless the agent had begun
//     to work on the prompt.
//
// With a store, the client saves what it needs for this: a hash of each prompt, whether the agent
// made a tool call in the turn, and how the turn ended.
//
// # Permissions
//
// An agent can ask its client for permission, files and terminals. However, a program can also use
// the file system without asking. Put a program that you do not trust into a sandbox. The host
// answers the agent's requests:
//
//   - Permission: the session's rules ([bgagent.Permission]) decide first, then Config.Permit. If
//     neither of them decides, the task asks a question if bgagent.Config.Ask is set. Otherwise,
//     the request is refused with a reason.
//   - Files: the agent gets the access that Config.Files grants, and only below the session's
//     directory. Neither .. nor links can lead out of that directory. A write replaces the file in
//     one step and keeps its mode and owner. Symbolic links, and files with several hard links, are
//     overwritten in place.
//   - Terminals: a command runs only if Config.Terminal allows it. It is terminated when its turn
//     ends.
//
// A rule matches a tool's kind or name, and a path or a command:
//
//   - A rule applies to everything that the agent has reported about its tool call, not only to the
//     question. For a tool that reads, edits or runs commands, rules are matched against the input,
//     and never against the title, which is meant for people.
//   - If the agent does not name the files of a call, a rule that allows some files has no effect.
//     If an earlier rule allows such a call, a rule that forbids some files makes the client ask
//     Config.Permit instead. Paths are compared after their links are resolved. This also applies
//     to paths in rules.
//   - The command can be a string or a list of words, in any of the usual fields. If a shell gets a
//     script as an argument, the script is treated as the command. If no command can be read, a rule
//     that allows some commands has no effect. If the text might contain several commands (because
//     it contains ; or | or $( or similar, even in quotation marks), only a rule for all commands
//     allows it. The content of script files is not read.
//   - The agents for Claude and Qwen can start in a mode that never asks. If a rule forbids
//     something, the client switches such an agent to a mode that asks. If the agent has no
//     such mode, or if Agent.Mode names a mode that never asks, the client does not run the
//     agent.
//
// Some agents, such as opencode, end their turn without any text after a refusal. Others, such as
// Codex, report the turn as cancelled. In both cases the turn fails, and the reason names the
// refused request.
//
// If the model provider refuses a request, the error of [Client.RunTurn] wraps a
// [bgagent.ProviderError]. The client recognizes the errors of Claude, Codex, opencode and gemini.
// The session keeps the refused prompt and the work so far, and its next turn continues from there
// ([bgagent.NextContinue]). There is one exception: if the agent has not called a tool in the turn,
// gemini drops the prompt, so the next turn repeats it ([bgagent.NextRepeat]).
//
// # Limits of the protocol
//
//   - The protocol has no parent sessions. The client records the parent that the manager names,
//     and finds only sessions that it used itself.
//   - The protocol does not report the status of sessions. Therefore, the client does not know
//     whether a session is busy with a prompt from another program.
//   - Every prompt causes an answer, and agents do not recognize a repeated prompt.
//     Therefore the client does not implement [bgagent.Notifier].
//   - The protocol has no system text. The client puts the system text in front of the
//     first prompt. If the text changes, the client also puts it in front of the next
//     prompt.
//   - The protocol has no way to say that a prompt is not a command. Agents treat a prompt that
//     begins with a slash, such as /compact, as a command. gemini also treats a prompt that begins
//     with a dollar sign as a command. The client puts the line "The task:" in front of such
//     prompts.
//   - The protocol has titles for tools, but no names. If a title is a sentence or a command, the
//     client uses the tool's kind as its name.
//   - The protocol has no names for agents. The host defines them in Config.Agents, and each name
//     stands for a mode and a model of the same agent. An agent that does not offer a choice of
//     models keeps its own model, even if a task requests another model.
//   - The client knows only the part of a conversation that it has seen, within
//     Config.MaxHistory.
//   - Few agents report the tokens of a turn, and the protocol's field for tokens is not
//     stable yet.
//
// # Behaviour of agents
//
// Observed with opencode 1.18.33 and gemini-cli 0.61.0:
//
//   - opencode reports its todos only in a tool's input. The client reads them there.
//   - If a request fails with status 500, opencode makes six requests in about 70 seconds
//     before the turn fails. It does not report the repeated requests.
//   - opencode reports only the tokens of the last request in a turn.
//   - gemini needs Config.Auth: "gemini-api-key".
//   - gemini replays the conversation only after it reports the session as loaded. The client waits
//     until the agent is silent.
//   - gemini cannot load a session in the clock minute in which it created the session, because it
//     would overwrite its own record of the session. The client waits until that minute is over. If
//     its context ends earlier, [Client.RestoreSession] returns [bgagent.ErrUnreachable].
//   - When claude-agent-acp loads a session, it sends a separate request to its model: the text
//     "Hi" without the conversation, with an answer of at most one token.
//   - gemini cannot create files with FilesReadWrite, because it treats the answer that the file
//     does not yet exist as a failure. Leave Files at FilesNone.
//   - gemini's list of models does not contain the model that its command line names.
//
// # Tests
//
// The tests use an agent built with the SDK. It runs as a program or in virtual time. On request,
// it crashes, floods the client, stops answering or ignores a cancellation. The tests also use
// opencode, gemini, claude-agent-acp and codex-acp with a scripted model server. The conformance
// suite of bgagenttest runs with all of these. With claude-agent-acp it runs only if -acp.slow is
// given, because that agent starts a process for each session and needs minutes for the suite. The
// test of a model that never answers runs only with opencode and gemini.
package acp
