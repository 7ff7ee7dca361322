// Package acp runs agents that speak the Agent Client Protocol: opencode acp,
// gemini --acp and every other program that an editor can talk to in this way
// (https://agentclientprotocol.com). It is a module of its own, so that only
// those who use it download the protocol's SDK.
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
// session and has all sessions in that one process. A prompt of the protocol
// lasts as long as its turn, so that the end of a turn is never guessed.
//
// What the agent writes, thinks and calls, its plan and what it has used are
// the progress of the task. Stop reasons are passed on; an error that the agent
// answers with is a failed turn, with the agent's text.
//
// Some agents answer a prompt before the last pieces of their answer have come.
// So a turn that ends well lasts until nothing has come for 250 ms, at most a
// second more: text that goes on with the last message belongs to the answer, and
// a tool call or another message ends the wait. An error that an agent writes as
// text, as those for Codex and Claude do, is the reason of the failed turn and no
// part of what was written.
//
// When the process ends, the turns in it are interrupted, and the error says how
// it ended and what it wrote to stderr last. The next prompt starts another
// process, which loads the session, where the agent can load sessions; where it
// cannot, the error wraps [bgagent.ErrNoSession] and says how the session was
// lost. A session of an earlier run of the host is loaded in the same way.
//
// To stop a turn the agent is told so, and told again. One that has not stopped
// after Config.CancelGrace is ended with its whole process, but only when the
// turns that others have in that process are over; new ones go to a new process
// meanwhile. So RunTurn returns when nothing of the turn runs any more, and a
// task that cannot be stopped costs no other task its work.
//
// A program ends with all that it has started: its process group, on Linux its
// session, and the children that have left that and are known by a variable in
// their environment. That holds for Close, for a crash, and for commands that run
// in terminals. Nothing that an agent does hangs its host: it may print what is no
// JSON, before a message too, write without end, or never read its input. A
// process is not found that has left the session, and has written over its
// environment or runs as another user, so that the host may not read it.
//
// Programs and the commands in terminals run in sessions of their own, without a
// terminal of the system: one that opens /dev/tty is told that there is none, and
// Ctrl-C ends it only through the host. They run as the host's user and can read
// what that user can: on Linux also the environment and the memory of the host,
// so that a secret which an agent must not have does not belong there.
//
// When the host itself is killed nothing of that happens. Its agents find their
// input closed: opencode and gemini were seen to exit when they were idle. A
// command that runs in a terminal goes on. A host that is process 1 of a
// container does not wait for orphans, which stay as zombies: give the container
// an init process.
//
// # What the agent may do
//
// An agent asks its client for permission, for files and for terminals, so far
// as it likes: nothing keeps a program from using the file system by itself, so
// put one that you do not trust into a sandbox. The answers are the host's:
//
//   - Permission: the rules of the session ([bgagent.Permission], by the kind or
//     the name of the tool, on paths or on the command) decide first, then
//     Config.Permit. What neither allows is refused with a reason. Nobody is
//     waited for in vain. A question is about all that was told of its tool
//     call. Where the agent does not say which files that are, and a rule is
//     about some of them, no rule allows it; a command that may be several (with
//     ; or | or $( and the like, in quotation marks too) is allowed by a rule
//     for all commands only. A command may be told as a text or as words, under
//     any of the usual names, and the script of a shell is looked into; where none
//     can be read a rule for some commands allows nothing. A title is for people and
//     never decides. Paths are compared without links, those of rules too; what a
//     script does is not seen.
//     An agent that starts in a mode in which it does not ask, as those for Claude
//     and Qwen do, is put into one in which it asks when rules forbid something;
//     where it has none, or Agent.Mode names the other, it is not started.
//   - Files: none unless Config.Files says so, and only below the directory of
//     the session, whatever .. and links say. A file is written beside the old
//     one, whose place, mode and owner it takes; through a link, and where a
//     file has more than one name, it is written over instead.
//   - Terminals: none unless Config.Terminal allows them. They end with their
//     turn.
//
// An agent that ends its turn without a word after it was refused something, as
// opencode does, has failed: the reason names what was refused. So has one that
// calls its turn cancelled then, as Codex does.
//
// # What it cannot know
//
//   - The protocol has no parents: the parent of a session is what the client
//     was told, and only its own sessions are found.
//   - It has no status: whether a session that somebody else prompts is busy is
//     unknown.
//   - It has no prompt without an answer, and no way to tell a repeated prompt.
//     Therefore the client is no [bgagent.Notifier].
//   - It has no system text: that is put before the first prompt, and before
//     later ones when it has changed.
//   - It has no prompt that is only a prompt: one that begins with a slash is a
//     command to agents, such as /compact. A task is none, so the line "The
//     task:" is put before such a prompt, and before one that begins with a
//     dollar sign, which gemini takes for a command too.
//   - It has no names of tools, only titles: where a title is a sentence or a
//     command, the kind of the tool is told instead.
//   - The names of agents are the host's (Config.Agents): they stand for a mode
//     and a model of the one agent. An agent that offers no choice of models is
//     left as it is, whatever model is asked for.
//   - The conversation is what the client has seen, within Config.MaxHistory.
//   - The tokens of a turn are told by few agents, and the protocol's field is
//     not stable yet.
//
// # What to know about agents
//
// Seen with opencode 1.18.33 and gemini-cli 0.61.0:
//
//   - opencode tells its todos only as the input of a tool, which is read.
//   - opencode repeats a request that the model failed with status 500 without
//     end and without telling: the time limits of the manager end the turn.
//   - opencode tells the tokens of the last request of a turn only.
//   - gemini wants Config.Auth: "gemini-api-key".
//   - gemini replays the conversation only after it has said that the session is
//     loaded: the client waits until nothing more comes.
//   - gemini cannot load a session in the minute in which it was created: it
//     writes over its own record. The client waits until that minute is over.
//   - gemini cannot create files with FilesReadWrite, because it takes the
//     answer that there is no such file yet for a failure. Leave it at FilesNone.
//   - gemini lists models that do not contain the one of its command line.
//
// # How it is tested
//
// With an agent made from the SDK, as a program and in virtual time, that
// crashes, floods, falls silent and does not listen; and with opencode, gemini,
// claude-agent-acp and codex-acp against a scripted model server. The tests run
// the conformance suite of bgagenttest with all of them but claude-agent-acp,
// which has a process for each session and needs minutes for it. What the library
// does by itself they show with opencode and gemini only.
package acp
