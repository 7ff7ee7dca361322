package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/bridge"
	"github.com/bgagent/bgagent/mcpserver"
)

// bridgeFlags say in which directories the tasks of bridges may work.
type bridgeFlags struct {
	Root []string `type:"path" placeholder:"DIR" help:"Accept bridges (bgagent mcp --via) whose directory is this one or is below it. Repeatable; without it, no bridge is accepted."`
}

// roots returns the directories without symbolic links.
func (f bridgeFlags) roots() (out []string, err error) {
	for _, dir := range f.Root {
		real, err := filepath.EvalSymlinks(dir)
		if err != nil {
			return nil, fmt.Errorf("--root %s: %w; name a directory that exists", dir, unpathed(err))
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
	cfg.Serve = func(ctx context.Context, scope string, in io.ReadCloser, out io.Writer) error {
		return s.server.Run(ctx, scope, stdio("bridge "+scope, in, out))
	}
	s.bridges = bridge.NewServer(cfg)
	return s.bridges
}

// prepareLaunch completes the launches of bridges.
func (s *serving) prepareLaunch(_ context.Context, by bgagent.Caller, in bgagent.LaunchInput) (bgagent.LaunchInput, error) {
	if s.bridges == nil {
		return in, nil
	}
	return s.bridges.Prepare(by, in)
}

// checkNames returns an error if the name of a caller could also be the name of a bridge of another
// caller.
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
