package mcpserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"sync"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/bgagent/bgagent"
)

// Config holds the settings of a server. The zero value is ready to use.
type Config struct {
	// Name and Version identify the server to its clients. The defaults are "bgagent" and
	// the version of this module.
	Name, Version string

	// Tools determines the agents in the description of delegate_task, and can rename or omit tools. A
	// program at the maximum depth of a chain of agents should omit delegate_task. New always sets NoNotices,
	// because an MCP server cannot make its caller begin a turn.
	Tools bgagent.ToolOptions

	// Logger gets the protocol library's log messages. If it is nil, nothing is logged.
	Logger *slog.Logger
}

// Server serves the tools of one manager. Its methods are safe for concurrent use. It
// does not start or close the manager.
type Server struct {
	m    *bgagent.BackgroundManager
	cfg  Config
	defs []bgagent.ToolDef

	life  context.Context
	close context.CancelFunc
	wg    sync.WaitGroup

	mu     sync.Mutex
	closed bool
	scopes map[string]*scope
}

// New returns a server. The error names the invalid argument.
func New(m *bgagent.BackgroundManager, cfg Config) (s *Server, err error) {
	if m == nil {
		return nil, errors.New("mcpserver: the manager is nil")
	}
	if cfg.Name == "" {
		cfg.Name = "bgagent"
	}
	if cfg.Version == "" {
		cfg.Version = version()
	}
	defer func() {
		if p := recover(); p != nil { // bgagent.Tools panics if the options are invalid
			err = fmt.Errorf("mcpserver: Config.Tools: %v", p)
		}
	}()
	cfg.Tools.NoNotices = true
	s = &Server{m: m, cfg: cfg, defs: bgagent.Tools(m, cfg.Tools), scopes: map[string]*scope{}}
	s.life, s.close = context.WithCancel(context.Background())
	return s, nil
}

// version returns the version of this module in the built program.
func version() string {
	const path = "github.com/bgagent/bgagent/mcpserver"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, d := range info.Deps {
			if d.Path == path && d.Version != "" {
				return d.Version
			}
		}
	}
	return "devel"
}

// Run serves one caller over a transport, usually standard input and output. It returns when the
// caller closes the connection or ctx ends. The argument "scope" names the caller. It must not be
// empty, and must differ from the scopes of other callers.
func (s *Server) Run(ctx context.Context, scope string, t mcp.Transport) error {
	sc, err := s.scope(scope)
	if err != nil {
		return err
	}
	return sc.server.Run(ctx, translated{t, sc})
}

// MCP returns the protocol server of a scope. Every call with the same scope returns
// the same protocol server. A host can add its own tools to the protocol server, or connect
// it to a transport directly. The notification of [ExtensionTasks] works only with Run and
// Handler.
func (s *Server) MCP(scope string) (*mcp.Server, error) {
	sc, err := s.scope(scope)
	if err != nil {
		return nil, err
	}
	return sc.server, nil
}

// Forget drops a scope's protocol server and subscriptions, and reports whether it did. Call it when the
// scope's last connection has ended. The scope's tasks are not affected, and a later connection gets a new
// protocol server. Forget drops nothing while a notice's text is still to be sent with the next answer. It
// also drops nothing while the caller might repeat a foreground delegation, because the task is live or its
// end has not been reported.
func (s *Server) Forget(name string) bool {
	return s.drop(name, func(sc *scope) bool {
		sc.settle()
		return len(sc.carried) == 0 && len(sc.awaited) == 0
	})
}

// Drop is like Forget, but it drops the protocol server even if there are still texts to send or
// delegations that the caller might repeat. Call it when nobody will use the scope again, for example
// because the scope is the session of a task that has ended.
func (s *Server) Drop(name string) {
	s.drop(name, func(*scope) bool { return true })
}

// The method "drop" drops a scope's protocol server if the function "condition" returns true, and reports
// whether it did.
func (s *Server) drop(name string, condition func(*scope) bool) bool {
	s.mu.Lock()
	sc := s.scopes[name]
	s.mu.Unlock()
	if sc == nil {
		return false
	}
	sc.mu.Lock()
	defer sc.mu.Unlock()
	if !condition(sc) {
		return false
	}
	if sc.unfollow != nil {
		sc.unfollow()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.scopes, name)
	return true
}

// Close stops notifying subscribers of changes. Connections stay open until their
// context ends or their http.Server is closed.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.close()
	s.wg.Wait()
	return nil
}

// scope holds the state of one caller. Each scope has a separate protocol server, so a
// message to one caller cannot reach another caller.
type scope struct {
	s      *Server
	name   string
	server *mcp.Server

	mu       sync.Mutex
	unfollow func()             // ends the notifications of subscribers; nil if there are none
	carried  []string           // texts for the next answer; the manager has recorded their notices as delivered
	awaited  map[string]awaited // maps the id of a tool call to its foreground delegation
}

func (s *Server) scope(name string) (*scope, error) {
	if strings.TrimSpace(name) == "" {
		return nil, errors.New("mcpserver: the scope is empty; it must name the caller")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errors.New("mcpserver: the server is closed")
	}
	sc := s.scopes[name]
	if sc != nil {
		return sc, nil
	}
	sc = &scope{s: s, name: name}
	caps := &mcp.ServerCapabilities{}
	caps.AddExtension(ExtensionTasks, nil)
	sc.server = mcp.NewServer(&mcp.Implementation{Name: s.cfg.Name, Version: s.cfg.Version}, &mcp.ServerOptions{
		Logger:             s.cfg.Logger,
		Instructions:       instructions(s.defs),
		Capabilities:       caps,
		SetCacheable:       func(_ context.Context, _ mcp.Request, c *mcp.Cacheable) { c.CacheScope = "private" },
		SubscribeHandler:   sc.subscribe,
		UnsubscribeHandler: func(context.Context, *mcp.UnsubscribeRequest) error { return nil },
	})
	for _, d := range s.defs {
		sc.server.AddTool(tool(d), func(ctx context.Context, req *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
			return sc.call(ctx, d, req)
		})
	}
	sc.server.AddResourceTemplate(&mcp.ResourceTemplate{
		URITemplate: resourcePrefix + "{id}", Name: "task", Title: "Background task", MIMEType: resourceType,
		Description: "The state and the result of a background task.",
	}, sc.read)
	if err := sc.serveTasks(); err != nil {
		return nil, fmt.Errorf("mcpserver: %w", err)
	}
	s.scopes[name] = sc
	return sc, nil
}

// instructions returns the description of all tools, under their configured names.
func instructions(defs []bgagent.ToolDef) string {
	var does []string
	wait := ""
	for _, d := range defs {
		switch d.Usual {
		case bgagent.ToolDelegateTask:
			does = append(does, d.Name+" starts one and returns at once")
		case bgagent.ToolBackgroundOutput:
			does = append(does, d.Name+" reads its state or result")
			wait = " When you have nothing else to do, wait for the next end: call " + d.Name + " with block=true and without a task id, until you have the results that you need."
		case bgagent.ToolBackgroundCancel:
			does = append(does, d.Name+" stops it")
		}
	}
	return "Background agents: " + strings.Join(does, ", ") + ". Nothing wakes you when a task ends; your next call to one of these tools reports the ends in its answer." + wait
}

// tool converts a tool definition to the protocol's type.
func tool(d bgagent.ToolDef) *mcp.Tool {
	no := false
	t := &mcp.Tool{Name: d.Name, Description: d.Description, InputSchema: d.Schema, OutputSchema: outputSchema}
	switch d.Usual {
	case bgagent.ToolDelegateTask:
		t.Annotations = &mcp.ToolAnnotations{Title: "Delegate a task", DestructiveHint: &no}
	case bgagent.ToolBackgroundOutput:
		t.Annotations = &mcp.ToolAnnotations{Title: "Read a background task", ReadOnlyHint: true, IdempotentHint: true, OpenWorldHint: &no}
	case bgagent.ToolBackgroundCancel:
		t.Annotations = &mcp.ToolAnnotations{Title: "Cancel a background task", IdempotentHint: true, OpenWorldHint: &no}
	}
	return t
}

// outputSchema is the schema of [Structured].
var outputSchema = json.RawMessage(`{
  "type": "object",
  "required": ["text"],
  "properties": {
    "text": {"type": "string", "description": "the whole answer, the same as the content"},
    "tasks": {"type": "array", "items": {"type": "object", "required": ["id", "status"], "properties": {
      "id": {"type": "string"}, "uri": {"type": "string"}, "status": {"type": "string"}, "cause": {"type": "string"}, "reason": {"type": "string"},
      "agent": {"type": "string"}, "description": {"type": "string"}, "session": {"type": "string"}, "attempt": {"type": "integer"}}}},
    "timed_out": {"type": "boolean", "description": "the wait timed out before the tasks ended"}
  }
}`)
