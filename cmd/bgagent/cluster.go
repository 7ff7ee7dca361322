package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/fileerror"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/settings"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/statedir"
	bgnats "github.com/bgagent/bgagent/nats"
)

// This file contains the methods that make the command "serve" a process of a cluster.

// joinTime is how long the command "serve" tries to reach the servers of its cluster.
const joinTime = 30 * time.Second

// clusterManager creates the manager for a process of a cluster. The process's folder contains only logs and
// the address to which commands in a terminal connect.
func (s *serving) clusterManager(ctx context.Context, set *settings.Settings, state stateFlags) (*bgagent.BackgroundManager, error) {
	o, err := clusterOptions(set, state)
	if err != nil {
		return nil, &exitError{exitInput, err}
	}
	folder, err := state.folder()
	if err != nil {
		return nil, err
	}
	at, err := folder.Shared(set.Files, o.Name, s.process)
	if err != nil {
		return nil, err
	}
	if o.Process = s.process; o.Process == "" {
		if at.Host == "" {
			return nil, &exitError{exitInput, errors.New("this machine has no name, so its tasks in the cluster need one: name this process with --process NAME")}
		}
		o.Process = at.ProcessName()
	}
	if err := at.Make(); err != nil {
		return nil, &keepError{at.Dir, err}
	}
	if set.Cluster.TakesOver() {
		o.Home = s.crew.Home()
	}
	if err := s.joinCluster(ctx, set.Cluster, o); err != nil {
		return nil, err
	}
	s.sayLeftBehind(folder, set)
	waiting := time.AfterFunc(waitingTime, func() {
		warn("waiting for the tasks of the process %s of the cluster; if the earlier process did not end by itself, it counts as dead after 10 to 20 s", o.Process)
	})
	m, err := s.withStore(s.cluster.Store)
	waiting.Stop()
	if err != nil {
		if errors.Is(err, bgagent.ErrStore) {
			err = &clusterError{o.Process, err}
		}
		return nil, err
	}
	if err := s.cluster.Serve(m); err != nil {
		return nil, errors.Join(err, m.Suspend(context.WithoutCancel(ctx)))
	}
	s.at, s.files = at, s.crew.LogTo(at.Logs(), func(err error) { warn("%v", err) })
	return m, nil
}

// clusterOptions returns the options for joining the configured cluster, except for the name of the process.
func clusterOptions(set *settings.Settings, state stateFlags) (o bgnats.ClusterOptions, err error) {
	c := set.Cluster
	if !state.keeps() {
		return o, fileerror.At(c.Origin(), "cluster", "keeps the tasks on NATS servers, and --state none keeps none; leave out one of the two")
	}
	for _, f := range []struct{ key, path string }{{"credentialsFile", c.CredentialsFile}, {"keyFile", c.KeyFile}} {
		if f.path == "" {
			continue
		}
		if err := private(f.path); err != nil {
			return o, fileerror.At(c.Origin(), "cluster."+f.key, "%s: %v", f.path, err)
		}
	}
	o = bgnats.ClusterOptions{
		Name: c.Name, Replicas: c.Replicas, CredentialsFile: c.CredentialsFile, CAFile: c.CAFile, CertFile: c.CertFile, KeyFile: c.KeyFile,
		Warn: func(err error) { warn("cluster: %v", err) },
	}
	if o.Name == "" {
		o.Name = bgnats.DefaultCluster
	}
	var cfg bgagent.Config
	set.Limits.Apply(&cfg)
	o.Limits = cfg.Limits
	o.Limits.Fair = true
	return o, nil
}

// joinCluster joins the cluster. It retries for a while, because the cluster's servers may have been started
// at the same time as this process and might not accept connections yet.
func (s *serving) joinCluster(ctx context.Context, c *settings.Cluster, o bgnats.ClusterOptions) error {
	waiting := time.AfterFunc(waitingTime, func() {
		warn("waiting for the servers of the cluster: %s; Ctrl-C stops the wait", c.URL)
	})
	defer waiting.Stop()
	joining, cancel := context.WithTimeout(ctx, joinTime)
	defer cancel()
	var err error
	s.cluster, err = bgnats.Join(joining, c.URL, o)
	var input *bgagent.InputError
	switch {
	case errors.As(err, &input) && input.Field == "ClusterOptions.Process":
		return &exitError{exitInput, fmt.Errorf("--process %s", input.Problem)}
	case err != nil:
		return &exitError{exitFailed, fileerror.At(c.Origin(), "cluster", "cannot be joined: %v", err)}
	}
	return nil
}

// leaveCluster leaves the cluster. Close the manager first. The field s.cluster keeps its value, because
// other goroutines read it until the process ends.
func (s *serving) leaveCluster(ctx context.Context) {
	if s.cluster == nil {
		return
	}
	if err := s.cluster.Close(ctx); err != nil {
		warn("%v", err)
	}
}

// sayLeftBehind prints a warning if this machine keeps unfinished tasks of an earlier serve that had the same
// configuration files but no cluster.
func (s *serving) sayLeftBehind(folder statedir.Folder, set *settings.Settings) {
	if at, err := folder.Served(set.Files); err == nil && hasLive(at) {
		warn("%s contains tasks that have not ended, and this serve does not continue them, because its tasks are kept in the cluster; without the key cluster, they are continued", at.Dir)
	}
}

// clusterError is the reason why the tasks of a process cannot be kept in its cluster.
type clusterError struct {
	process string
	err     error
}

// Error implements error.
func (e *clusterError) Error() string {
	var owned *bgagent.StoreOwnedError
	if errors.As(e.err, &owned) {
		return fmt.Sprintf("the tasks of the process %s of the cluster belong to a running bgagent (process %d on %s since %s); end that one first, or give this one another name with --process NAME",
			e.process, owned.Owner.PID, owned.Owner.Host, owned.Owner.Since.Local().Format(time.DateTime))
	}
	return fmt.Sprintf("the tasks of the process %s cannot be kept in the cluster: %v", e.process, reasonOfStore(e.err))
}

// Unwrap returns the reason.
func (e *clusterError) Unwrap() error { return e.err }
