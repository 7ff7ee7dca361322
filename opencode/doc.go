// Package opencode runs tasks as sessions of an opencode server. It is a
// [bgagent.TurnStarter] over the server's HTTP API and its event stream, and needs
// only net/http.
//
//	client, err := opencode.New(opencode.Config{URL: "http://127.0.0.1:4096", Password: os.Getenv("OPENCODE_SERVER_PASSWORD")})
//	…
//	if _, err := client.Check(ctx); err != nil {
//		return err // describes the problem with the address, the password or the server
//	}
//	manager, err := bgagent.New(client, bgagent.Config{})
//	…
//	defer client.Close()
//	defer manager.Close(ctx)
//
// # What it does
//
// A task is a child session of the session that delegated it. It works in the same
// directory and is shown under its parent in opencode's windows. Prompts are sent with
// prompt_async. The event stream reports how a turn ended. After a gap, or without a
// stream, the client reads statuses and messages instead. When a task of a root session
// has ended, the session gets a message, and the session's agent answers the message.
// The message is sent only while the session is idle, because the server's answer to a
// message in the middle of a turn is unpredictable.
//
// Every prompt and notice has its own message id and part id, so sending it again is
// harmless, even from another process. If an agent, a model or a directory does not
// exist, the prompt is refused before it is sent, because the server would accept the
// prompt and never run it. Config.Permission answers the permission questions of the
// client's sessions and of their descendants. Questions to the user are declined, since
// a background task has no user. The client waits until the server has answered an
// abort before it sends the next prompt. Late events of the aborted turn do not end the
// next turn. [Client.Delete] aborts the turns in a session and its descendants before
// it deletes them.
//
// # What it cannot know
//
//   - The user of a root session may begin a turn between the check that the session
//     is idle and the notice. The server then answers the user and the notice in one
//     turn.
//   - opencode's own task tool starts sessions that no limit counts and no manager
//     sees. Switch this tool off with Config.Tools, or set lower limits.
//   - After a crash of the server, a session with a half-finished message looks like
//     a session that has just fallen idle. The task ends as interrupted only if two
//     polls agree.
//   - The rules that a prompt sets stay in the session. If a user answers a permission
//     question with "always" in opencode's window, the answer also applies to the
//     tasks.
//   - If a model fails with status 500, the server repeats the request forever. The
//     time limits of the task end such a turn.
//   - If a compaction follows a complete answer, that answer is the result, even
//     if opencode then prompts itself and the agent writes more text.
//
// # How it is tested
//
// It is tested against a fake server that replays recorded answers and quirks, in
// bubbles of testing/synctest. It is also tested against opencode 1.18.34 with a
// scripted model: the conformance suite of bgagenttest, limits, cancellation,
// models that refuse, fail, hang or limit the rate, a server that is killed in the
// middle of a turn, and fifty tasks at once. The package does not use the v2
// routes of that version (/api/…).
package opencode
