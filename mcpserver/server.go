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

// Config says how the tools are served. The zero value is fine.
type Config struct {
	// Name and Version are what clients are told of the server: "bgagent" and the
	// version of this module when empty.
	Name, Version string

	// Tools names the agents in the description of delegate_task, and renames
	// tools or leaves them out. A program that is as deep in a chain of agents as
	// is allowed leaves out delegate_task. NoNotices is always set: nothing can wake
	// the caller of an MCP server.
	Tools bgagent.ToolOptions

	// Logger gets what the protocol library has to say. Nothing is logged when it
	// is nil.
	Logger *slog.Logger
}

// Server serves the tools of one manager. Its methods are safe for concurrent
// use. It neither starts nor closes the manager.
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

// New makes a server. The error says what is wrong with the arguments.
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
		if p := recover(); p != nil { // Tools panics when its options are wrong
			err = fmt.Errorf("mcpserver: Config.Tools: %v", p)
		}
	}()
	cfg.Tools.NoNotices = true
	s = &Server{m: m, cfg: cfg, defs: bgagent.Tools(m, cfg.Tools), scopes: map[string]*scope{}}
	s.life, s.close = context.WithCancel(context.Background())
	return s, nil
}

// version returns that of this module, as the program was built with it.
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

// Run serves one caller over a transport, mostly standard input and output,
// until it ends the connection or ctx ends. The scope names the caller; it must
// not be empty, and must not be used by anybody else.
func (s *Server) Run(ctx context.Context, scope string, t mcp.Transport) error {
	sc, err := s.scope(scope)
	if err != nil {
		return err
	}
	return sc.server.Run(ctx, translated{t, sc})
}

// MCP returns the protocol's server for a scope: always the same one. A host adds
// tools of its own to it, or connects it by itself (without the notification of
// [ExtensionTasks], which takes Run or Handler).
func (s *Server) MCP(scope string) (*mcp.Server, error) {
	sc, err := s.scope(scope)
	if err != nil {
		return nil, err
	}
	return sc.server, nil
}

// Close ends what the server does by itself: telling subscribers of changes. It
// does not end connections, which end with their own context or http.Server.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.close()
	s.wg.Wait()
	return nil
}

// scope is one caller: it has a server of the protocol's of its own, so that
// nothing that is sent to one caller can reach another.
type scope struct {
	s      *Server
	name   string
	server *mcp.Server

	mu        sync.Mutex
	following bool
	carried   []string           // notices that count as told and wait for the next answer
	awaited   map[string]awaited // delegations in the foreground, by the id of their tool call
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
		Description: "State and result of a background task.",
	}, sc.read)
	if err := sc.serveTasks(); err != nil {
		return nil, fmt.Errorf("mcpserver: %w", err)
	}
	s.scopes[name] = sc
	return sc, nil
}

// instructions say what the tools are for, by the names that they have.
func instructions(defs []bgagent.ToolDef) string {
	var does []string
	wait := ""
	for _, d := range defs {
		switch d.Usual {
		case bgagent.ToolDelegateTask:
			does = append(does, d.Name+" starts one and returns at once")
		case bgagent.ToolBackgroundOutput:
			does = append(does, d.Name+" reads its state or result")
			wait = " When nothing else is left to do, wait for the next end: call " + d.Name + " with block=true and without a task id, until you have the results that you need."
		case bgagent.ToolBackgroundCancel:
			does = append(does, d.Name+" stops it")
		}
	}
	return "Background agents: " + strings.Join(does, ", ") + ". Nothing wakes you when a task ends; an end is told with the answer of your next call of one of these tools." + wait
}

// tool describes a tool to the protocol.
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

// outputSchema is that of [Structured].
var outputSchema = json.RawMessage(`{
  "type": "object",
  "required": ["text"],
  "properties": {
    "text": {"type": "string", "description": "the whole answer, as in the content"},
    "tasks": {"type": "array", "items": {"type": "object", "required": ["id", "status"], "properties": {
      "id": {"type": "string"}, "uri": {"type": "string"}, "status": {"type": "string"}, "cause": {"type": "string"}, "reason": {"type": "string"},
      "agent": {"type": "string"}, "description": {"type": "string"}, "session": {"type": "string"}, "attempt": {"type": "integer"}}}},
    "timed_out": {"type": "boolean", "description": "the time was over before what was waited for had ended"}
  }
}`)
