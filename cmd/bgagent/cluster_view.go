package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/control"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/statedir"
	"github.com/bgagent/bgagent/internal/cleantext"
)

// This file lets the commands in a terminal find the tasks of a cluster. They ask a "bgagent serve"
// on this machine, which asks the other processes of the cluster.

// String names the command that keeps the tasks.
func (v *view) String() string {
	if v.process == "" {
		return v.Store.String()
	}
	return fmt.Sprintf("bgagent serve, process %s of the cluster%s, on %s", cleantext.Line(v.process), v.instead(), cleantext.Line(v.owner.Host))
}

// The method "instead" returns a phrase about the process that has taken over the tasks, or "".
func (v *view) instead() string {
	if v.takenBy == "" {
		return ""
	}
	return ", taken over by " + cleantext.Line(v.takenBy)
}

// clusterViews returns a view for each process of the cluster. The argument s is the folder of the cluster's
// process on this machine. If that process is not running, there are no views.
func clusterViews(ctx context.Context, s statedir.Store, most int) ([]*view, error) {
	server, err := control.DialAny(s.Dir)
	var all []control.ClusterProcess
	if err == nil {
		if most == 0 {
			most = pageSize
		}
		all, err = server.Cluster(ctx, control.ClusterInput{Ended: most})
	}
	if errors.Is(err, control.ErrNone) { // the process accepts no commands, for example because it was killed
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%v, a process of the cluster %s, does not tell about its tasks: %w", s, s.Cluster, err)
	}
	var views []*view
	var problems []error
	for _, p := range all {
		views = append(views, &view{Store: s, process: p.Name, takenBy: p.TakenBy, owner: p.Owner, lives: p.Lives, tasks: p.Tasks, more: p.More, due: map[string]bool{}})
		if p.Problem != "" {
			problems = append(problems, errors.New(p.Problem))
		}
	}
	return views, errors.Join(problems...)
}

// findInCluster searches the clusters for the task with the given id. It returns the task, and a client for
// one of the cluster's processes on this machine. The client is nil if no cluster has the task, or if no
// cluster process runs here. If there is an error, a cluster might still have the task.
func findInCluster(ctx context.Context, stores []statedir.Store, id string) (server *control.Client, t control.SharedTask, err error) {
	var problems []error
	for _, s := range stores {
		if s.Cluster == "" {
			continue
		}
		server, err := control.DialAny(s.Dir)
		if err == nil {
			t, err = server.Shared(ctx, control.TaskInput{ID: id})
		}
		var refused *control.Error
		switch {
		case err == nil:
			return server, t, nil
		case errors.Is(err, control.ErrNone), errors.As(err, &refused) && refused.Input:
			continue
		}
		problems = append(problems, fmt.Errorf("%v, a process of the cluster %s: %w", s, s.Cluster, err))
	}
	return nil, control.SharedTask{}, errors.Join(problems...)
}

// findAnywhere returns the task with the given id. If the task is in a store on this machine, the results are
// v and t, as the function "find" returns them. If the task belongs to a cluster, the result "shared"
// contains the task, and the result "server" is a client for a process of the cluster.
func findAnywhere(ctx context.Context, folder statedir.Folder, id string) (v *view, t bgagent.Task, server *control.Client, shared control.SharedTask, err error) {
	stores, err := folder.Stores()
	if err != nil {
		return nil, t, nil, shared, fmt.Errorf("reading the state folder: %w", err)
	}
	v, t, err = findKept(stores, id)
	if v != nil {
		return v, t, nil, shared, err
	}
	server, shared, inCluster := findInCluster(ctx, stores, id)
	if server != nil {
		return nil, t, server, shared, nil
	}
	if err = errors.Join(err, inCluster); err == nil {
		err = notKept(folder, stores, id)
	}
	return nil, t, nil, shared, err
}

// showShared prints a task of a cluster.
func (c showCmd) showShared(all *cli, stop stops, t control.SharedTask) error {
	switch {
	case c.Messages:
		return printMessages(all, stop, t.Task)
	case c.Prompt:
		return printText(os.Stdout, t.Task.Prompt)
	}
	v := &view{Store: statedir.Store{About: statedir.About{Kind: statedir.Serve}}, process: t.Process.Name, takenBy: t.Process.TakenBy, owner: t.Process.Owner, lives: t.Process.Lives}
	return v.print(os.Stdout, t.Task)
}
