// Package command runs agents that are command-line programs. Such a program gets a prompt,
// prints its progress and its answer, and exits. Each turn runs in a new process. The [Client]
// works with installed versions of codex, gemini, opencode and Claude Code, and with any other
// program of this kind.
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
// A [Program] is plain data. It describes how the program is called, how a session is continued,
// and which [Decoder] decodes the program's output. The presets are:
//
//   - [Codex]: codex exec --json, tested with 0.171.0
//   - [Gemini]: gemini --output-format stream-json, tested with 0.61.0
//   - [Opencode]: opencode run --format json, tested with 1.18.34
//   - [Claude]: claude -p --output-format stream-json --verbose
//     --include-partial-messages, tested with 2.1.332
//   - [Text]: any program that reads the prompt and prints its answer
//   - [Lines]: any program that prints JSON lines in the format of [DecodeLines]
//
// A preset can be copied and changed, or used as an example. Statements about a preset apply to
// the version in this list.
//
// The presets pass the prompt on standard input, and never through a shell. On standard input, a
// prompt can have any length that the program accepts, and it can begin with a dash. It does not
// appear in the process list. Codex accepts 1,048,576 characters. The other programs accepted 1.5
// million in a test. The system text is an argument for codex and claude, and Linux limits an
// argument to 128 KiB. For a program that accepts its prompt only as an argument, see [Form].
//
// # The environment of a program
//
// A program does not inherit the host's environment. It gets the variables named by
// [DefaultEnviron], the preset and [Agent].Env. For example, the preset for codex names CODEX_* and
// OPENAI_*. The program also gets [DepthVariable] and [TurnVariable].
//
// # Output
//
// A decoder gets the JSON objects that a program prints. Other text around the objects is harmless:
// escape sequences, byte-order marks, progress bars that are redrawn with a carriage return, a
// banner without a newline, or lines that were truncated and joined. UTF-16 is decoded if it begins
// with a byte-order mark. A field of an unexpected type is ignored. An object in the middle of a
// line of text is not decoded. If the program repeats an object from the prompt on a line with
// other text, that object is not decoded either.
//
// The client counts and logs the lines that it does not understand. If the turn fails, the
// error contains their number and the first of these lines. Answers are plain text without
// escape sequences or control characters. Their lines end with \n. A plain-text program must
// print UTF-8, or UTF-16 with a byte-order mark; any other encoding is an error.
//
// # The end of a turn
//
// A turn has succeeded only if the program reports success: codex with turn.completed, gemini and
// claude with a result, opencode with a step that finished for a reason other than tool calls, and
// a plain-text program with exit code 0. If a program exits without such a report, the turn has
// failed. The turn is reported as interrupted if a signal terminated the program, or if the exit
// code is 0. Exit code 0 does not prove that the turn was complete, because gemini exits with 0
// when a signal terminates it.
//
// If a program reports the end of the turn but does not exit within [Config].Grace, it is stopped.
// The reported end remains valid unless the program has continued the turn before it is stopped.
// Text after the end is not part of the answer. While claude reports that its own commands or
// agents run in the background, its result does not end the turn. If claude exits before they end,
// the error states that claude's own background work was cut off. The error of a failed turn is a
// [*TurnError] with the exit code or signal and the end of standard error.
//
// When RunTurn returns, everything that the turn started has stopped. To stop a program, the client
// sends it [Program].Interrupt, and kills it after [Config].Grace. A program runs in its own
// operating system session, without a controlling terminal. It cannot open /dev/tty, and input to
// the host's terminal does not reach it. Ctrl-C reaches only the host, which must then stop the
// program.
//
// The tested programs run their tools in separate process groups. These groups survive if the
// program is killed. With opencode and gemini, they survive even if the program is interrupted. On
// Linux, the client therefore also terminates every process that is in the program's session or has
// inherited the turn's [TurnVariable]. A process that has left the session cannot be found in three
// cases: it no longer has the variable, it has overwritten its environment (as programs that change
// their title do), or it runs as another user, so the host cannot read its environment. If the turn
// fails, its error names the processes that were found but could not be terminated. On other Unix
// systems, the client terminates only the program's own process group. On Windows, it terminates
// only the program itself, without waiting for [Config].Grace.
//
// A program runs as the host's user and can read everything that this user can read. On Linux that
// includes the host's environment and memory. If an agent must not know a secret, keep the secret
// out of both.
//
// If the host itself is killed, its programs continue to the end of their turns. If Config.Instance
// is set or the manager has a store, the programs can be found by [InstanceVariable]; see "After a
// restart" below. If the host is process 1 of a container, it does not reap orphaned processes of
// its programs, so orphans that have exited remain as zombies. To avoid this, give the container an
// init process.
//
// # Failures at the provider
//
// A turn can fail because the model provider limits requests, is overloaded or broken, or rejects
// the key, the model or the length of the input, or because a quota is used up. In these cases, the
// turn's error wraps a [*bgagent.ProviderError]. To classify a failure, the client reads error
// fields, the messages of lines that report an error, exit codes, and the lines about retries on
// gemini's standard error. It never uses answers or tool output for this. If a program reports none
// of these, its failures are not classified. This includes all plain-text programs.
//
// If a program shows that it is retrying a request, the client reports the retry to the manager;
// see [bgagent.Reporter.Retrying]. A retry after a lost connection is not reported, because this
// machine's network can be the cause. If the key is rejected, the turn ends immediately.
//
// After such a failure, the sessions of claude, codex and opencode still contain the prompt. The
// next turn sends only the new text, so that the model sees the prompt only once. Gemini loses a
// session whose first turn failed before there was a whole answer or a tool call. The prompt is
// then given to a new session. A table in docs/clients.md lists what each program shows.
//
// # After a restart
//
// If the host is killed and the manager has a store, the host's next process continues the
// sessions; see [Client.RestoreSession]. The client first kills the processes that the earlier host
// left running. This works only on Linux. Then the client calls [Program].Look to read what the
// program has stored about the session. Look does not send a request to the model. The presets read
// the following:
//
//   - claude and gemini: the session's file; the client chose the session's id with
//     [Program].Choose
//   - codex: the thread's file; codex prints the thread's id before its first request
//   - opencode: the output of "opencode session list" and "opencode export"; the session's title is
//     an id that the client chose
//
// The formats of these files are undocumented. The readers understand the formats of the tested
// versions. If a reader does not understand some of the data and does not find the prompt, the
// state of the prompt is unknown. The turn then ends as interrupted, and the prompt is not
// repeated.
//
// Gemini does not store whether a turn has ended. If the earlier host had not read the end of a
// gemini turn, the client therefore treats the turn as interrupted, so that it is continued. A program
// without Look is continued if it can resume sessions, has reported its session, and has printed
// text or a tool call from the agent. If it has printed neither, the state of the prompt is
// unknown.
//
// # Limits
//
// Between two lines of output, the client does not know anything about the program. A program that
// prints nothing at all is stopped after [Config].Silence. Codex prints a message only when the
// message is complete, and prints nothing while it thinks. Opencode prints a tool call only after
// the call ends. After its first output, a turn is stale if nothing was printed for the
// StaleTimeout of [github.com/bgagent/bgagent.Config] and no tool call is known to be in flight. If
// agents use long tools on opencode, set a longer timeout, or use the package opencode, which gets
// all events from the server.
//
// Except with [ClaudeAsking], nobody can answer a permission question, so the programs treat the
// answer as no. Each preset's documentation names the rules that the preset can pass on. If a rule
// forbids something and the program cannot enforce the rule, the turn fails before it starts. The
// turn also fails if one of the agent's own arguments or variables would undo the rules. No preset
// contains a list of the program's agents or models, so only the model server detects a wrong model
// name.
//
// The programs keep their sessions in their own files. While the client exists, it remembers the
// program's session id for each client session. If the manager has a store, the client also saves
// this id in the store. The client keeps at most [Config].Keep bytes of each conversation for
// [Client.Messages]. If a program has never reported its session, the client puts the conversation
// in front of a follow-up's prompt. If the client has not kept the whole conversation, the
// follow-up fails with an error.
package command
