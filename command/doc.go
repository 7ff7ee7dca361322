// Package command runs agents that are command lines: a program that is started
// for every turn, is given the prompt, prints what it does and exits. It is the
// session client for codex, gemini, opencode and Claude Code where they are
// installed as programs, and for any program of your own.
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
// A [Program] is plain data: how the program is called, how a session of it is
// continued, and a [Decoder] for the lines that it prints. The presets are
//
//   - [Codex]: codex exec --json, tested with 0.171.0
//   - [Gemini]: gemini --output-format stream-json, tested with 0.61.0
//   - [Opencode]: opencode run --format json, tested with 1.18.34
//   - [Claude]: claude -p --output-format stream-json --verbose
//     --include-partial-messages, tested with 2.1.332
//   - [Text]: any program that reads the prompt and prints its answer
//   - [Lines]: any program that prints JSON lines of a small format of our own
//
// and each can be copied and changed, or serve as the model for another.
// What is said below of a preset is what was seen with the version named.
//
// The prompt goes to the standard input of all presets, never through a shell:
// there it may be as long as the program takes it, begin with a dash, and is not
// to be seen in the list of processes. Codex takes 1,048,576 characters and
// refuses more; the others were given 1.5 million. The system text is an argument
// for codex and claude, of which Linux takes 128 KiB. A program that only takes it as an argument is given it
// there; see [Form].
//
// # The environment of a program
//
// A program does not inherit the environment of the host. It is given the
// variables named by [DefaultEnviron], those of its preset (such as CODEX_HOME
// and OPENAI_API_KEY for codex), and those of [Agent].Env. Beside them it is
// told [DepthVariable] and [TurnVariable].
//
// # What a program prints
//
// A decoder is given the JSON objects that a program prints, whatever stands
// around them: escape sequences, byte-order marks, progress bars that are redrawn
// with a carriage return, a banner without the end of a line, lines that were cut
// and joined, UTF-16 with a byte-order mark. Fields of another type than expected
// are as if they were not there. An object in the middle of a text, and one that
// the prompt holds and that is printed again on a line with other text, is no
// event. What is not understood is counted: when the turn ends badly the reason
// says how many lines, and the first; [Config].Logger is told in any case. Answers
// are text: without escape sequences and control characters, with \n as the end
// of a line. A program of plain text must print UTF-8, or UTF-16 with a byte-order
// mark; anything else is an error.
//
// # The end of a turn
//
// A turn has succeeded only when the program has said so: codex with
// turn.completed, gemini and claude with a result, opencode with a step that
// finished for a reason other than tool calls, a program of plain text by exit
// code 0. A program that exits without having said so has been interrupted,
// whatever its exit code (gemini exits with 0 when it is ended by a signal), and
// so has one that was killed by a signal that did not come from here. One that has
// said so and does not exit within [Config].Grace is stopped: what it has said
// counts, unless it has gone on meanwhile. What it says after the end is not part
// of the answer. While claude says that commands or agents of its own run in the
// background, its result is not the end; when it exits before they have ended, the
// error says that its own background work was cut off. The error of a failed turn
// is a [*TurnError]: the exit code or signal and the end of standard error.
//
// Nothing of a turn runs when RunTurn has returned. A program that must stop is
// sent [Program].Interrupt, then killed after [Config].Grace. A program runs in
// a session of its own, without a terminal: one that opens /dev/tty is told that
// there is none, and what is typed at the host's terminal does not reach it, so
// that Ctrl-C ends it only through the host.
//
// All programs that were tested run their tools in process groups of their own,
// and leave them running when they are killed (opencode and gemini also when
// they are interrupted). So on Linux every process is ended with the turn that is
// in the program's session, or that has inherited the turn's [TurnVariable]. A
// process lives on that is neither: it has begun a session of its own, and has
// lost the variable, or has written over its environment, as those do that change
// their title, or runs as another user, so that the host may not read it. One
// that is found and may not be ended is named in the error of a turn that has
// failed. On other Unix systems only the program's own process group is ended.
// On Windows only the program itself is, and at once.
//
// A program runs as the host's user. It can read what that user can: on Linux
// also the environment and the memory of the host, so that a secret which an
// agent must not have does not belong there.
//
// When the host itself is killed, its programs go on to the end of their turns.
// With Config.Instance they can be found by [InstanceVariable].
// A host that is process 1 of a container is given the orphans of its programs
// and does not wait for them, so that they stay as zombies: give the container an
// init process.
//
// # What cannot be known
//
// Between two lines nothing is known of a program. One that prints nothing at all
// is stopped after [Config].Silence. Codex prints a message when
// it is whole, and nothing while it thinks; opencode prints a tool call when it
// has ended. A turn in which nothing was printed for
// [github.com/bgagent/bgagent.Config] StaleTimeout counts as stale once it has
// said anything, unless a tool call is known to be in flight: give agents with
// long tools on opencode a longer one, or use the package opencode, which sees
// everything.
//
// Nobody can be asked: a permission question ends as a refusal in all of these
// programs. What rules a preset can pass on is said there; one that forbids
// something which the program cannot be told to forbid fails the turn before it
// starts, and so does one of the agent's own arguments or variables that would
// undo the rules. No preset has a list of its agents or of its models, so a wrong model
// is the model server's error.
//
// The programs keep their sessions in files of their own. The client remembers
// which of them belongs to which session as long as it lives, and a short
// conversation for [Client.Messages], at most [Config].Keep bytes a session. When a
// program has never told its session, a follow-up is given the conversation before
// its prompt; where that is not kept whole, the follow-up is an error.
package command
