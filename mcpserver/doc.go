// Package mcpserver serves the tools of a manager over the Model Context
// Protocol, so that an agent program which is not written in Go can delegate to
// background agents.
//
//	s, err := mcpserver.New(manager, mcpserver.Config{})
//	…
//	err = s.Run(ctx, "me", &mcp.StdioTransport{}) // one program, which started this one
//
//	h, err := s.Handler(mcpserver.HTTPConfig{Tokens: map[string]string{token: "alice"}})
//	…
//	err = http.ListenAndServe("127.0.0.1:8321", h) // many programs
//
// # Who calls
//
// A task belongs to a scope, a name that the host gives: one for a program on
// standard input and output, one for each bearer token over HTTP. It is never an
// argument of a tool, and never taken from the protocol's own session, which a
// client may change at any time. What one scope has launched no other scope can
// see, wait for or cancel.
//
// # How a caller learns of an end
//
// A server cannot begin a turn of its caller's, and no text says otherwise: the
// caller is told to wait when nothing else is left to do. What is owed to a scope
// comes with the answer of its next tool call; background_output with block and
// without a task id waits for the next end, for 50 s unless it is told otherwise,
// because clients give a call up after 60 s. While it waits the caller gets progress
// notifications, if it has sent a token for them. A call that is cancelled, or
// whose client is gone, ends the wait and never the task.
//
// A client that makes a delegation again finds its task, where it names the tool
// use in _meta as Claude Code does ("claudecode/toolUseId"): while the task is
// live, and in the foreground until its end has been told. Afterwards the same id
// is that of a new call.
//
// Tasks are resources besides, bgagent://task/ID, as JSON: a client that has
// subscribed to one is told of its changes. To read one does not count as having
// been told.
//
// # Long calls as tasks of the protocol
//
// A client that declares the extension io.modelcontextprotocol/tasks on a
// delegation in the foreground gets a handle at once, and asks for the result
// with tasks/get, or is told with notifications/tasks when it listens. See
// [ExtensionTasks].
//
// # Clients that do not read, and strangers
//
// What a client is sent waits in a queue of its own, so that one which does not
// read holds up nobody else; it loses its connection when one write has taken 30 s,
// or when more than 4 MiB wait. [Server.Handler] says what it bounds over HTTP, and
// what the http.Server should.
//
// # How it is tested
//
// With the protocol library's own client, in bubbles of testing/synctest; with the
// protocol's conformance package, as far as that does not ask for the tools of its
// own example server, and its inspector; with the reference requester of the tasks
// extension; and in opencode, codex, gemini and Claude Code as an MCP server (see
// cmd/bgagent). Claude Code 2.1.332 uses the tasks extension in a terminal: it puts
// the call aside, asks with tasks/get, and begins a turn with the result. With -p it
// does not declare it.
package mcpserver
