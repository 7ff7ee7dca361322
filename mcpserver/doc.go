// Package mcpserver serves a manager's tools over the Model Context Protocol. With these
// tools, agent programs that are not written in Go can delegate to background agents.
//
//	s, err := mcpserver.New(manager, mcpserver.Config{})
//	…
//	err = s.Run(ctx, "me", &mcp.StdioTransport{}) // one program, the parent process
//
//	h, err := s.Handler(mcpserver.HTTPConfig{Tokens: map[string]string{token: "alice"}})
//	…
//	err = http.ListenAndServe("127.0.0.1:8321", h) // many programs
//
// # Scopes
//
// A task belongs to a scope. The host names the scopes: one for the program on standard input
// and output, and one for each bearer token over HTTP. No tool has an argument for the scope.
// The scope does not depend on the protocol's session either, because a client can change its
// session at any time. A caller cannot see, wait for or cancel tasks of another scope.
//
// # How a caller learns that a task has ended
//
// A server cannot make its caller begin a turn. Therefore, the tools' descriptions and answers ask the caller
// to wait when it has nothing else to do. The notices that are owed to a scope come with the answer to the
// scope's next tool call. If background_output is called with the argument "block" and without a task id, it
// waits until the next task ends. By default, it waits for at most 50 s, because clients abandon a call after
// 60 s. During a call with a progress token, the caller gets progress notifications. If a call is cancelled
// or its client disconnects, the wait ends and the task continues.
//
// A client that repeats a delegation gets the same task if both calls have the same tool use id in
// _meta. Claude Code sends the id under the key "claudecode/toolUseId". This works for a background
// delegation while its task is live, and for a foreground delegation until its completion has been
// reported. Any later call with the same id creates a new task.
//
// Tasks are also resources, bgagent://task/ID, in JSON. Clients that subscribe to a
// task's resource are notified when the task changes. Reading a resource does not settle
// the notice about the task.
//
// # Long calls as tasks of the protocol
//
// If a client declares the extension io.modelcontextprotocol/tasks on a foreground
// delegation, the client gets a handle immediately. It polls for the result with
// tasks/get, or listens for notifications/tasks. See [ExtensionTasks].
//
// # Slow clients and bounds
//
// Each client has its own send queue, so a client that does not read its messages does not
// delay other clients. A client is disconnected if one write to it takes 30 s, or if more
// than 4 MiB are queued for it. [Server.Handler] describes the bounds that apply over HTTP,
// and the bounds that the http.Server should set.
//
// # How it is tested
//
//   - with the protocol library's own client, in bubbles of testing/synctest;
//   - with the protocol's inspector and its conformance package, except for the scenarios
//     that need the tools of the package's own example server;
//   - with the reference requester of the tasks extension;
//   - as an MCP server in opencode, codex, gemini and Claude Code (see cmd/bgagent).
//
// In a terminal, Claude Code 2.1.332 uses the tasks extension: it continues without the
// call's answer, polls with tasks/get, and starts a turn with the result. With -p, it does
// not declare the extension.
package mcpserver
