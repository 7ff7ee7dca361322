package mcpserver

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/cleantext"
)

const (
	resourcePrefix = "bgagent://task/"
	resourceType   = "application/json"
)

// uri returns the address of a task's resource.
func uri(id string) string { return resourcePrefix + id }

// task returns the scope's task whose resource has the given address. It does not settle the notice about the
// task. For a task of another scope, it returns the same error as for a task that does not exist.
func (sc *scope) task(address string) (bgagent.Task, error) {
	id, ok := strings.CutPrefix(address, resourcePrefix)
	if !ok {
		return bgagent.Task{}, mcp.ResourceNotFoundError(address)
	}
	t, err := sc.s.m.Get(id)
	if err != nil || !sc.has(t) {
		return bgagent.Task{}, mcp.ResourceNotFoundError(address)
	}
	return t, nil
}

// The method "has" reports whether the task descends from the scope. The scope is a root, or the
// session of a task.
func (sc *scope) has(t bgagent.Task) bool {
	switch {
	case t.Root == sc.name, t.Parent == sc.name:
		return true
	case t.Parent == t.Root:
		return false
	}
	return len(sc.s.m.List(bgagent.Query{Under: sc.name, Parent: t.Parent, Limit: 1})) > 0
}

func (sc *scope) read(ctx context.Context, req *mcp.ReadResourceRequest) (*mcp.ReadResourceResult, error) {
	t, err := sc.task(req.Params.URI)
	if id, ok := strings.CutPrefix(req.Params.URI, resourcePrefix); err != nil && ok && sc.s.cfg.Tools.Elsewhere != nil {
		if x, no := sc.s.cfg.Tools.Elsewhere.Read(ctx, bgagent.Caller{Session: sc.name}, id, 0); no == nil {
			t, err = x.Task, nil
		}
	}
	if err != nil {
		return nil, err
	}
	t.Result, t.Reason = cleantext.String(t.Result), cleantext.Line(t.Reason)
	t.Progress.LastMessage, t.Progress.Detail = cleantext.Line(t.Progress.LastMessage), cleantext.Line(t.Progress.Detail)
	body, err := json.MarshalIndent(t, "", "  ")
	if err != nil {
		return nil, err
	}
	return &mcp.ReadResourceResult{Contents: []*mcp.ResourceContents{{URI: req.Params.URI, MIMEType: resourceType, Text: string(body)}}}, nil
}

func (sc *scope) subscribe(_ context.Context, req *mcp.SubscribeRequest) error {
	if _, err := sc.task(req.Params.URI); err != nil {
		return err
	}
	sc.follow()
	return nil
}

// The method "follow" starts notifying subscribers of changes to the scope's tasks. The
// notifications stop when the server is closed, or when the scope is dropped.
func (sc *scope) follow() {
	sc.mu.Lock()
	defer sc.mu.Unlock()
	if sc.unfollow != nil {
		return
	}
	s := sc.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	life, cancel := context.WithCancel(s.life)
	sc.unfollow = cancel
	_, sub := s.m.Subscribe(0)
	s.wg.Go(func() {
		defer sub.Close()
		for e := range sub.Events(life) {
			switch {
			case e.Kind == bgagent.EventMissed:
				for _, t := range s.m.List(bgagent.Query{Under: sc.name}) {
					sc.changed(t)
				}
			case e.Kind != bgagent.EventProgress && sc.has(e.Task):
				sc.changed(e.Task)
			}
		}
	})
}

// The method "changed" notifies the subscribers to the task's resource. The error is ignored, because one
// client's failure does not concern the others.
func (sc *scope) changed(t bgagent.Task) {
	_ = sc.server.ResourceUpdated(sc.s.life, &mcp.ResourceUpdatedNotificationParams{URI: uri(t.ID)})
}
