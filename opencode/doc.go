// Package opencode runs background tasks in the sessions of an opencode server.
//
//	client, err := opencode.New(opencode.Config{URL: "http://127.0.0.1:4096"})
//	if err == nil {
//		err = client.Check(ctx) // says what is wrong within seconds
//	}
//	m, err := bgagent.New(client, bgagent.Config{})
//
// Every task gets a session of its own, a child of the session that delegated
// when that is one of opencode's. Prompts are handed over and return at once; the
// server's event stream tells of the end within milliseconds, and the manager's
// poller finds what the stream has missed. A session of the server can also be
// the parent that is told: the client is a [bgagent.Notifier].
//
// # What it supports
//
// Agents and models by name, system texts, permission rules, working directories
// (each session is asked for in its own), todos, tool calls, usage and costs,
// follow-ups with the whole context, several managers on one server. Prompts and
// notices carry ids of their own for the message and its part, so that repeating
// them is harmless. Permission questions of tasks, which would keep them busy
// until somebody answers, are answered by [Config.Permission]; by default they are
// rejected with a reason.
//
// # What it cannot know
//
// opencode's stream has no ids, so what happened while it was away cannot be
// asked for: after every gap statuses and messages are read afresh. A prompt that
// names an unknown model is accepted and fails later. A session deleted while it
// runs goes on in the server: use [Client.Delete], which stops it first. Whether a
// half-done message is still being written or was cut off by a crash shows only
// when its session is idle; then it counts as interrupted. Text that is being
// written can be read when it is complete, or its turn has been stopped: a task
// that is ended from outside has no part of it.
//
// # How it is tested
//
// Against a fake server for what opencode does on rare occasions, and against the
// real program, version 1.18.33, driven by a scripted model: the conformance suite
// of bgagenttest, cancels in mid-stream and in a tool, models that refuse, fail
// and hang, a server killed and restarted in mid-turn, 50 tasks at once.
package opencode
