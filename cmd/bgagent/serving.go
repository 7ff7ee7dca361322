package main

import (
	"context"
	"errors"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/children"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/fleet"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/settings"
	"github.com/bgagent/bgagent/mcpserver"
)

// serving is what mcp and serve have in common: a manager on the configured
// agents, and the server of its tools.
type serving struct {
	crew    *fleet.Fleet
	manager *bgagent.BackgroundManager
	server  *mcpserver.Server
	life    life
}

// startServing builds everything. A program that works for a task itself and may
// not delegate any further serves its tools without delegate_task.
func startServing(all *cli, command string) (*serving, error) {
	set, err := all.settings()
	if err != nil {
		return nil, err
	}
	sayFiles(set)
	s := &serving{life: begin(command)}
	if err := s.build(set); err != nil {
		s.life.end()
		return nil, err
	}
	return s, nil
}

// build makes the manager and the server.
func (s *serving) build(set *settings.Settings) (err error) {
	if s.crew, err = fleet.New(set, s.life.id); err != nil {
		return &exitError{exitInput, err}
	}
	options := bgagent.ToolOptions{Agents: s.crew.Agents()}
	s.manager, err = s.crew.Manager(bgagent.Config{Wake: bgagent.WakeNever})
	if errors.Is(err, bgagent.ErrDepth) {
		warn("%v", err)
		options.Omit = []string{bgagent.ToolDelegateTask}
		s.manager, err = s.crew.Idle()
	}
	if err != nil {
		return &exitError{exitInput, err}
	}
	if s.server, err = mcpserver.New(s.manager, mcpserver.Config{Tools: options}); err != nil {
		return errors.Join(err, s.manager.Close(context.Background()))
	}
	return nil
}

// stopTime is how long what runs may take to stop when the caller has gone: it may
// kill this program soon after.
const stopTime = 5 * time.Second

// end cancels what runs, waits until nothing does, and ends the programs.
func (s *serving) end(stop stops) error {
	defer context.AfterFunc(stop.hard, leave)()
	ctx, cancel := context.WithTimeout(stop.hard, stopTime)
	defer cancel()
	_ = s.server.Close()
	var left *bgagent.CloseError
	if err := s.manager.Close(ctx); errors.As(err, &left) && len(left.NotStopped) > 0 {
		warn("these tasks did not stop in time: %v", left.NotStopped)
	}
	err := s.crew.Close(ctx)
	children.Kill(killTime)
	s.life.end()
	return err
}
