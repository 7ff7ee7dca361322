// Package opencode runs tasks as sessions on an opencode server. It implements [bgagent.TurnStarter] with the
// server's HTTP API and event stream. The only HTTP library that it uses is net/http.
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
// Each task runs in a child session of the session that delegated the task. The child session works
// in the same directory, and opencode's windows show it under its parent. Prompts are sent with
// prompt_async. The event stream reports how a turn ended. After a gap, or without a stream, the
// client reads statuses and messages instead. When a root session's task ends, the session gets a
// message, and the session's agent answers it. The message is sent only while the session is idle,
// because the server's answer to a message in the middle of a turn is unpredictable.
//
// Every prompt and notice has its own message id and part id, so sending a prompt or a notice again
// is harmless, even from another process. If an agent, a model or a directory does not exist, the
// prompt is refused before it is sent, because the server would accept the prompt and never run it.
// Config.Permission answers the permission questions of the client's sessions and of their
// descendants. With bgagent.Config.Ask, the task asks the permission questions that
// Config.Permission leaves undecided, and the questions to the user that have options. All other
// questions to the user are declined. If a session was aborted, the client waits until the server
// has answered the abort before it sends the next prompt. Late events from the aborted turn do not
// end the next turn. [Client.Delete] aborts the turns in a session and its descendants before it
// deletes these sessions.
//
// A message for a running task joins its turn; see [Client.Steer].
//
// If the model provider refuses a request, the session's status, error and message contain a
// [bgagent.ProviderError]. The server can continue such a turn; see [Client.StartTurn].
//
// # After a restart
//
// If the manager has a store, the next process continues the sessions of the earlier process. Once
// the manager reads the messages of such a session, the new client treats the session as its own.
// From then on, it reports the session's messages in events and answers the session's permission
// questions. The client recognizes sessions that were created for tasks by a key in their metadata.
// It does not change other sessions.
//
// A cursor is also valid in another process. If a prompt was sent by an earlier process, StartTurn
// recognizes it, provided that it is among the last 500 messages of the session and also among the
// session's last 16 prompts and notices. CreateSession returns the session that an earlier process
// created for the same key.
//
// # What it cannot know
//
//   - The user of a root session can begin a turn after the client finds the session idle but
//     before the client sends the notice. The server then answers the user and the notice in one
//     turn.
//   - opencode's own task tool starts sessions that are not counted by any limit or seen by any
//     manager. Switch this tool off with Config.Tools, or set lower limits.
//   - After a server crash, a session with a half-finished message looks like a session that has
//     just become idle. The task ends as interrupted only if a second poll finds the session in the
//     same state.
//   - The rules that a prompt sets stay in the session. If a user answers a permission
//     question with "always" in opencode's window, the answer also applies to the
//     tasks.
//   - If a model server responds with status 500, the opencode server makes six requests in about
//     70 seconds before the turn fails.
//   - If a compaction follows a complete answer, that answer is the result, even
//     if opencode then prompts itself and the agent writes more text.
//
// # How it is tested
//
// It is tested against a fake server that replays recorded answers and quirks, in bubbles
// of testing/synctest. It is also tested against opencode 1.18.34 with a scripted model.
// These tests cover the conformance suite of bgagenttest, limits, cancellation, models
// that refuse, fail, hang or limit the rate of requests, a server that is killed in the
// middle of a turn, a manager that is killed with or without the server, and fifty
// concurrent tasks. The package does not use the v2 routes of that version (/api/…).
package opencode
