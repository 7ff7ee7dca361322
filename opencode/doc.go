// Package opencode runs tasks as sessions of an opencode server: it is a
// [bgagent.TurnStarter] over the server's HTTP API and its event stream, with
// net/http alone.
//
//	client, err := opencode.New(opencode.Config{URL: "http://127.0.0.1:4096", Password: os.Getenv("OPENCODE_SERVER_PASSWORD")})
//	…
//	if _, err := client.Check(ctx); err != nil {
//		return err // says what is wrong with the address, the password or the server
//	}
//	manager, err := bgagent.New(client, bgagent.Config{})
//	…
//	defer client.Close()
//	defer manager.Close(ctx)
//
// # What it does
//
// A task is a child session of the session that delegated it, in the same
// directory, shown under it in opencode's own windows. Prompts are handed over
// with prompt_async; the event stream tells their end, and after a gap, or
// without a stream, statuses and messages do. Root sessions are told of their
// tasks' ends by a message that their agent answers, only while they are idle:
// the server answers what comes in the middle of a turn, silent or not, in a
// way that nobody can foresee.
//
// Every prompt and notice carries a message id and a part id of its own, so that
// sending one again is harmless, from another process too. An agent, a model or
// a directory that does not exist is refused before the prompt is sent: the
// server would accept it and never run it. Permission questions of the sessions
// that the client runs, and of those that these start, go to Config.Permission;
// questions to the user are declined, since a background task has none. An
// abort is awaited before the next prompt, and what the server tells late of an
// aborted turn does not end the next one. [Client.Delete] stops what runs in a
// session before it deletes it.
//
// # What it cannot know
//
//   - Between the look whether a root session is idle and the notice, its user may
//     begin a turn. The server then answers both in one turn.
//   - opencode's own task tool starts sessions that no limit counts and no manager
//     sees. Switch it off with Config.Tools, or allow for it.
//   - After a crash of the server a half-done message looks like one whose session
//     has just fallen idle: two polls must agree before the task ends as
//     interrupted.
//   - The rules that a prompt gives a session stay with it. What a user allows
//     "always" in opencode's window holds for the tasks too.
//   - A model that fails with status 500 is tried again by the server without an
//     end; the task's own limits of time decide.
//   - When a compaction follows a whole answer, that answer is the result, also
//     where the agent goes on and says more to opencode's own prompt.
//
// # How it is tested
//
// Against a fake server that plays recorded shapes and quirks, in bubbles of
// testing/synctest, and against opencode 1.18.34 itself with a scripted model:
// the conformance suite of bgagenttest, limits, cancellation, refusing, failing,
// rate-limited and hanging models, a server killed in mid-turn, and fifty tasks
// at once. The v2 routes of that version (/api/…) are not used.
package opencode
