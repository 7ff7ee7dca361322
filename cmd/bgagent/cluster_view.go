package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/bgagent/bgagent/cmd/bgagent/internal/control"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/statedir"
	"github.com/bgagent/bgagent/internal/cleantext"
)

// This file contains what the commands in a terminal need for the tasks of a cluster. They ask a
// "bgagent serve" on this machine, which asks the others.

// String names the command that has the tasks.
func (v *view) String() string {
	if v.process == "" {
		return v.Store.String()
	}
	return fmt.Sprintf("bgagent serve, process %s of the cluster, on %s", cleantext.Line(v.process), cleantext.Line(v.owner.Host))
}

// clusterViews returns a view for each process of the cluster. The argument s is the folder of one of
// them on this machine. If that process is not running, there are no views.
func clusterViews(ctx context.Context, s statedir.Store, most int) ([]*view, error) {
	server, err := control.DialAny(s.Dir)
	if errors.Is(err, control.ErrNone) {
		return nil, nil
	}
	var all []control.ClusterProcess
	if err == nil {
		if most == 0 {
			most = pageSize
		}
		all, err = server.Cluster(ctx, control.ClusterInput{Ended: most})
	}
	if err != nil {
		return nil, fmt.Errorf("%v, a process of the cluster %s, does not tell about its tasks: %w", s, s.Cluster, err)
	}
	var views []*view
	var problems []error
	for _, p := range all {
		views = append(views, &view{Store: s, process: p.Name, owner: p.Owner, lives: p.Lives, tasks: p.Tasks, more: p.More, due: map[string]bool{}})
		if p.Problem != "" {
			problems = append(problems, errors.New(p.Problem))
		}
	}
	return views, errors.Join(problems...)
}

// findInCluster returns the task of a cluster with the given id, and a client for a process of the
// cluster on this machine. The client is nil if no cluster has the task, or if no process of a
// cluster runs here.
func findInCluster(ctx context.Context, folder statedir.Folder, id string) (server *control.Client, t control.SharedTask, err error) {
	stores, err := folder.Stores()
	if err != nil {
		return nil, t, fmt.Errorf("reading the state folder: %w", err)
	}
	for _, s := range stores {
		if s.Cluster == "" {
			continue
		}
		server, err := control.DialAny(s.Dir)
		if err != nil {
			continue
		}
		t, err := server.Shared(ctx, control.TaskInput{ID: id})
		var refused *control.Error
		switch {
		case err == nil:
			return server, t, nil
		case errors.As(err, &refused) && !refused.Input:
			return nil, t, err
		}
	}
	return nil, t, nil
}

// showShared prints a task of a cluster.
func (c showCmd) showShared(all *cli, stop stops, t control.SharedTask) error {
	switch {
	case c.Messages:
		return printMessages(all, stop, t.Task)
	case c.Prompt:
		return printText(os.Stdout, t.Task.Prompt)
	}
	v := &view{Store: statedir.Store{About: statedir.About{Kind: statedir.Serve}}, process: t.Process.Name, owner: t.Process.Owner, lives: t.Process.Lives}
	return v.print(os.Stdout, t.Task)
}
