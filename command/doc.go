// Package command runs agents that are command lines: programs that get a prompt,
// print what they do, and exit. One process runs per turn. It is the session client
// for codex, gemini, opencode and Claude Code as installed programs, and for any
// program of your own.
//
//	client, err := command.New(command.Config{
//		Directory: "/src/project",
//		Agents: map[string]command.Agent{
//			"explore": {Program: command.Codex()},
//			"oracle":  {Program: command.Gemini(), Model: "gemini-2.5-pro"},
//			"lint":    {Program: command.Text("golangci-lint-agent"), Args: []string{"--quiet"}},
//		},
//	})
//	m, err := bgagent.New(client, bgagent.Config{})
//
// # Programs
//
// A [Program] is plain data. It says how the program is called, how one of its
// sessions is continued, and which [Decoder] reads the lines that it prints. The
// presets are
//
//   - [Codex]: codex exec --json, tested with 0.171.0
//   - [Gemini]: gemini --output-format stream-json, tested with 0.61.0
//   - [Opencode]: opencode run --format json, tested with 1.18.34
//   - [Claude]: claude -p --output-format stream-json --verbose
//     --include-partial-messages, tested with 2.1.332
//   - [Text]: any program that reads the prompt and prints its answer
//   - [Lines]: any program that prints JSON lines in a small format of our own
//
// Each can be copied and changed, or serve as the model for another. Statements
// about a preset hold for the version that it was tested with.
//
// The presets pass the prompt on standard input, never through a shell. There it
// may be as long as the program accepts, it may begin with a dash, and it does not
// appear in the list of processes. Codex accepts 1,048,576 characters; the others
// have accepted 1.5 million. The system text is an argument for codex and claude,
// and Linux limits an argument to 128 KiB. A program that accepts its prompt only as
// an argument gets it there; see [Form].
//
// # The environment of a program
//
// A program does not inherit the environment of the host. It gets the variables
// named by [DefaultEnviron], those of its preset (such as CODEX_HOME and
// OPENAI_API_KEY for codex), and those of [Agent].Env. It also gets [DepthVariable]
// and [TurnVariable].
//
// # What a program prints
//
// A decoder gets the JSON objects that a program prints, whatever surrounds them:
// escape sequences, byte-order marks, progress bars that are redrawn with a carriage
// return, a banner without a line end, or lines that were truncated and joined.
// UTF-16 is decoded if it begins with a byte-order mark. A field of an unexpected
// type is ignored. An object in the middle of a text is no event. Neither is an
// object from the prompt that is printed again on a line with other text.
//
// Output that is not understood is counted. If the turn ends badly, the reason says
// how many lines there were and shows the first; [Config].Logger is told in any case.
// Answers are plain text: without escape sequences and control characters, with \n as
// the line end. A program of plain text must print UTF-8, or UTF-16 with a byte-order
// mark; anything else is an error.
//
// # The end of a turn
//
// A turn has succeeded only if the program says so: codex with turn.completed, gemini
// and claude with a result, opencode with a step that finished for a reason other than
// tool calls, and a program of plain text with exit code 0. If a program exits without
// having said so, the turn has failed. It counts as interrupted if a signal has ended
// the program, or if the exit code is 0: gemini exits with 0 when a signal ends it.
//
// If a program reports the end and does not exit within [Config].Grace, it is stopped.
// The reported end counts, unless the program has continued the turn meanwhile. Text
// after the end is not part of the answer. While claude reports that commands or agents
// of its own run in the background, its result is not the end of the turn. If it exits
// before they have ended, the error says that its own background work was cut off. The
// error of a failed turn is a [*TurnError], with the exit code or signal and the end of
// standard error.
//
// When RunTurn has returned, nothing of the turn runs any more. A program that must
// stop is sent [Program].Interrupt, and is killed after [Config].Grace. A program runs in
// an operating system session of its own, without a controlling terminal. Opening
// /dev/tty fails, and input at the host's terminal does not reach the program, so Ctrl-C
// ends it only through the host.
//
// The tested programs run their tools in process groups of their own, which survive
// when the program is killed. With opencode and gemini they survive even when it is
// interrupted. On Linux, a turn therefore ends together with every process that is in
// the program's session or has inherited the turn's [TurnVariable]. A process that has
// left the session escapes if it has lost the variable, has overwritten its environment
// (as programs that change their title do), or runs as another user, so that the host
// cannot read its environment. If the turn fails, its error names the processes that
// were found but could not be ended. On other Unix systems, only the program's own
// process group is ended; on Windows, only the program itself, and at once.
//
// A program runs as the host's user and can read what that user can read. On Linux that
// includes the environment and the memory of the host. Keep secrets that an agent must
// not have out of both.
//
// If the host itself is killed, its programs continue to the end of their turns. With
// Config.Instance they can be found by [InstanceVariable]. A host that is process 1 of a
// container does not reap the orphans of its programs, so they stay as zombies: give the
// container an init process.
//
// # What cannot be known
//
// The client knows nothing about a program between two lines. A program that prints
// nothing at all is stopped after [Config].Silence. Codex prints a message once it is
// complete, and nothing while it thinks. Opencode prints a tool call once it has ended.
// After its first output, a turn counts as stale if nothing was printed for
// [github.com/bgagent/bgagent.Config] StaleTimeout and no tool call is known to be in
// flight. If agents use long tools on opencode, set a longer timeout, or use the package
// opencode, which sees everything.
//
// Nobody can be asked, so a permission question ends as a refusal in all of these
// programs. Each preset says which rules it can pass on. If a rule forbids something
// that the program cannot be told to forbid, the turn fails before it starts. The same
// holds if one of the agent's own arguments or variables would undo the rules. No
// preset has a list of its agents or models, so a wrong model is an error of the
// model's server.
//
// The programs keep their sessions in files of their own. As long as it lives, the
// client remembers which of them belongs to which session. It keeps at most
// [Config].Keep bytes of each conversation for [Client.Messages]. If a program has
// never reported its session, a follow-up gets the conversation in front of its prompt.
// If the client has not kept all of that, the follow-up is an error.
package command
