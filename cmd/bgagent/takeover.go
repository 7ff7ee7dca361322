package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/bgagent/bgagent"
	bgnats "github.com/bgagent/bgagent/nats"
)

// The methods in this file let "bgagent serve" take over the tasks of other processes of its cluster, and
// notice that its own tasks were taken over.

// takeOver lets this process run the tasks of dead processes whose agents keep their sessions in the same
// place as this process's agents. It must be called after this process has started its own tasks.
func (s *serving) takeOver() {
	if s.cluster == nil || !s.set.Cluster.TakesOver() || s.crew.Home() == "" {
		return
	}
	err := s.cluster.TakeOver(func(p bgnats.Process, store *bgnats.Store) (*bgagent.BackgroundManager, error) {
		cfg := s.config(store)
		cfg.Instance = "" // this process can take over the same tasks several times, and needs a new id each time
		m, err := s.crew.Manager(cfg)
		if err != nil {
			return nil, err
		}
		warn("%v does not answer or was stopped; this process runs its tasks until it starts again", p)
		live := map[string]struct{}{}
		known, events := m.Subscribe(4096)
		for _, t := range known {
			if !t.Status.Terminal() {
				live[t.ID] = struct{}{}
			}
		}
		go s.handle(m, live, events)
		return m, nil
	})
	if err != nil {
		warn("%v", err)
	}
}

// checkStore makes the server exit if the manager's store belongs to another process. It is called if the
// manager reports trouble with the store, or if events were missed, because that report can be one of the
// missed events.
func (s *serving) checkStore() {
	if s.cluster == nil {
		return
	}
	if _, err := s.manager.History(context.Background(), bgagent.Query{Limit: 1}, ""); errors.Is(err, bgagent.ErrStoreLost) {
		select {
		case s.lost <- err:
		default:
		}
	}
}

// untilLost closes the server if another process has taken over the tasks. The returned function ends
// the wait, and returns the error if the tasks were taken over.
func (s *serving) untilLost(ctx context.Context, server *http.Server) func() error {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		select {
		case err := <-s.lost:
			done <- &exitError{exitFailed, fmt.Errorf("another process has taken over the tasks, because this one did not answer; the next bgagent serve gets them back: %w", err)}
			_ = server.Close()
		case <-ctx.Done():
			done <- nil
		}
	}()
	return func() error {
		cancel()
		return <-done
	}
}
