package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"unicode"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/bridge"
	"github.com/bgagent/bgagent/mcpserver"
	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// bridgeFlags name the directories where tasks from bridges are allowed to work.
type bridgeFlags struct {
	Root []string `type:"path" placeholder:"DIR" help:"Accept bridges (bgagent mcp --via) whose working directory is this directory or below it. Repeatable; without this flag, no bridge is accepted."`
}

// roots returns the paths of the directories, with all symbolic links resolved.
func (f bridgeFlags) roots() (out []string, err error) {
	for _, dir := range f.Root {
		real, err := filepath.EvalSymlinks(dir)
		if err != nil {
			return nil, fmt.Errorf("--root %s: %w; name a directory that exists", dir, unpathed(err))
		}
		if info, err := os.Stat(real); err == nil && !info.IsDir() {
			return nil, fmt.Errorf("--root %s: it is not a directory; name a directory", dir)
		}
		out = append(out, real)
	}
	return out, nil
}

// acceptBridges returns the handler that accepts bridges.
func (s *serving) acceptBridges(roots []string, callers mcpserver.HTTPConfig) *bridge.Server {
	cfg := bridge.Config{Tokens: callers.Tokens, Scope: callers.Scope, Roots: roots, Agents: map[string]bridge.Agent{}}
	for _, a := range s.set.Agents {
		cfg.Agents[a.Name] = bridge.Agent{Directory: a.Directory, Permissions: a.Permissions}
	}
	cfg.Turn = s.taskInTurn
	cfg.Live = func(id string) bool {
		t, err := s.manager.Get(id)
		return err == nil && !t.Status.Terminal()
	}
	cfg.TaskInTurn = s.crew.TaskInTurn
	scopes := newScopes(s.server)
	cfg.Busy = func(scope string) bool {
		live, _ := s.manager.Outstanding(scope)
		return live > 0
	}
	cfg.Owed, cfg.Gone = scopes.owed, scopes.drop
	if s.at.Dir != "" {
		cfg.File = filepath.Join(s.at.Dir, "bridges.json")
	}
	cfg.Serve = func(ctx context.Context, scope string, in io.ReadCloser, out io.Writer) error {
		err := scopes.enter(scope, func(protocol *mcp.Server) { protocol.AddReceivingMiddleware(s.checkResumes(scope)) })
		defer scopes.leave(scope)
		if err != nil {
			return err
		}
		return s.server.Run(ctx, scope, stdio("bridge "+scope, in, out))
	}
	s.bridges = bridge.NewServer(cfg)
	return s.bridges
}

// openScopes counts the open bridges of each scope. It also decides when to forget a scope's protocol server.
type openScopes struct {
	server *mcpserver.Server

	mu      sync.Mutex
	guarded map[string]bool // by scope: whether its protocol server exists and checks resumes
	open    map[string]int  // by scope: number of open bridges
}

func newScopes(server *mcpserver.Server) *openScopes {
	return &openScopes{server: server, guarded: map[string]bool{}, open: map[string]int{}}
}

// The method "enter" adds a bridge to the count. It also calls the function "guard" with the scope's protocol
// server, unless that function has already been called for this server. The scope keeps its protocol server
// until the method "leave" is called.
func (o *openScopes) enter(scope string, guard func(*mcp.Server)) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.open[scope]++
	protocol, err := o.server.MCP(scope)
	if err == nil && !o.guarded[scope] {
		o.guarded[scope] = true
		guard(protocol)
	}
	return err
}

// The method "leave" subtracts a bridge that has ended from the count. If no bridge with the scope is left,
// the method forgets the scope's protocol server, unless a notice or a foreground delegation waits for the
// next bridge.
func (o *openScopes) leave(scope string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.open[scope]--; o.open[scope] > 0 {
		return
	}
	delete(o.open, scope)
	o.forget(scope)
}

// The method "owed" reports whether a notice or a foreground delegation waits for the next bridge with the
// scope. It may be called only while no bridge has the scope.
func (o *openScopes) owed(scope string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.forget(scope)
	return o.guarded[scope]
}

// The method "forget" discards the protocol server of a scope that no bridge has, unless the server is still
// needed. o.mu must be held.
func (o *openScopes) forget(scope string) {
	if o.server.Forget(scope) {
		delete(o.guarded, scope)
	}
}

// The method "drop" forgets a scope that has no bridge and will not be used again.
func (o *openScopes) drop(scope string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.server.Drop(scope)
	delete(o.guarded, scope)
}

// taskInTurn returns the task whose current turn has passed the mark to its programs. It returns an
// error if the task may not launch others: if its place in the tree is unknown, or if it is at the
// maximum depth.
func (s *serving) taskInTurn(mark string) (bridge.Task, error) {
	id := s.crew.TaskInTurn(mark)
	t, err := s.manager.Get(id)
	switch {
	case id == "" || err != nil || t.Session == "":
		return bridge.Task{}, errors.New("it is inside a turn of a task that this server does not know, so the depth of the task is not known either")
	case t.Depth >= s.crew.MaxDepth():
		return bridge.Task{}, fmt.Errorf("it is inside a turn of task %s, whose depth is %d: %w; background_task.maxDepth of the server allows more", t.ID, t.Depth, bgagent.ErrDepth)
	}
	parents := map[string]string{}
	for _, other := range s.manager.List(bgagent.Query{Under: t.Root}) {
		parents[other.Session] = other.Parent
	}
	in := bridge.Task{ID: t.ID, Session: t.Session, Metadata: t.Metadata}
	for above := t.Parent; above != t.Root && above != ""; above = parents[above] {
		in.Above = append(in.Above, above)
	}
	in.Above = append(in.Above, t.Root)
	return in, nil
}

// prepareLaunch checks and completes a launch that comes from a bridge. It returns any other launch
// unchanged.
func (s *serving) prepareLaunch(ctx context.Context, by bgagent.Caller, in bgagent.LaunchInput) (bgagent.LaunchInput, error) {
	if s.bridges == nil {
		return in, nil
	}
	return s.bridges.Prepare(ctx, by, in)
}

// checkResumes returns a middleware for calls from the scope's bridges. The middleware refuses to resume a
// task if the project's file does not allow this, or if the turn that contains the bridge has ended. It is
// needed because the manager does not call PrepareLaunch for a resume.
func (s *serving) checkResumes(scope string) mcp.Middleware {
	return func(next mcp.MethodHandler) mcp.MethodHandler {
		return func(ctx context.Context, method string, req mcp.Request) (mcp.Result, error) {
			call, ok := req.(*mcp.CallToolRequest)
			if ok && call.Params.Name == bgagent.ToolDelegateTask {
				if problem := s.resumes(ctx, scope, call.Params.Arguments); problem != "" {
					text := "Nothing was resumed: " + problem + "."
					return &mcp.CallToolResult{IsError: true, Content: []mcp.Content{&mcp.TextContent{Text: text}}, StructuredContent: mcpserver.Structured{Text: text}}, nil
				}
			}
			return next(ctx, method, req)
		}
	}
}

// The method "resumes" returns the reason why the call to delegate_task may not resume a task. The result is
// "" if the call may resume the task, or if the tool itself refuses the resume.
func (s *serving) resumes(ctx context.Context, scope string, arguments json.RawMessage) string {
	var args bgagent.DelegateTaskArgs
	if json.Unmarshal(arguments, &args) != nil {
		return ""
	}
	for _, ref := range []string{args.TaskID, args.SessionID} {
		// The tool delegate_task ignores these characters around an id.
		ref = strings.TrimFunc(ref, func(r rune) bool {
			return unicode.IsSpace(r) || unicode.Is(unicode.C, r) || strings.ContainsRune("`\"'<>", r)
		})
		if ref == "" {
			continue
		}
		t, err := s.manager.Get(ref)
		if err != nil { // the task might exist only in the store
			t, err = s.manager.Read(bgagent.Caller{}, ref)
		}
		switch {
		case errors.Is(err, bgagent.ErrUnknownTask), errors.Is(err, bgagent.ErrExpired):
			continue
		case err != nil:
			return "task " + ref + " cannot be read, so it is unknown whether the project's file allows it: " + err.Error() + bridge.Instead
		}
		if problem := s.bridges.Resumes(ctx, scope, t, s.manager.Figures().Budgets); problem != "" {
			return problem
		}
	}
	return ""
}

// checkNames returns an error if a caller's name could also be the name of another caller's bridge.
func checkNames(tokens map[string]string) error {
	for _, one := range tokens {
		for _, other := range tokens {
			if strings.HasPrefix(one, other+"/") {
				return errors.New("--token: the names " + other + " and " + one + " could be confused; no name may be another name followed by a slash")
			}
		}
	}
	return nil
}
