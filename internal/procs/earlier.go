package procs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// ErrLeft is returned by [Earlier.End] if a process of the earlier run is still running.
var ErrLeft = errors.New("a process of the earlier run is still running")

// earlierPause is the pause between two searches for processes of an earlier run.
const earlierPause = 20 * time.Millisecond

// Earlier terminates the processes of earlier runs. It remembers which runs have no processes left.
// The zero value is ready to use. All methods are safe for concurrent use.
type Earlier struct {
	mu      sync.Mutex
	cleared map[string]chan struct{} // one lock for each run: a lock is free while its channel holds a value, and the channel is closed once no process of the run is left
}

// End kills the processes of the run with the given instance id. It returns when two consecutive searches
// have found no process. If an earlier call to End has cleared the run, End returns immediately.
//
// End sends SIGKILL immediately, without a grace period. After SIGTERM, an agent's commands would end first,
// and the agent could then send another request to its model.
//
// End does not kill this process or its ancestors. If one of them belongs to the run, End returns an error.
// If a process of the run also belongs to one of the runs in living, End does not kill the process and
// returns an error. If ctx ends first or a process could not be killed, the error matches [ErrLeft]. If this
// system has no access to the environments of processes, the error matches [errors.ErrUnsupported].
func (e *Earlier) End(ctx context.Context, instance string, living ...string) error {
	e.mu.Lock()
	turn := e.cleared[instance]
	if turn == nil {
		turn = make(chan struct{}, 1)
		turn <- struct{}{}
		if e.cleared == nil {
			e.cleared = map[string]chan struct{}{}
		}
		e.cleared[instance] = turn
	}
	e.mu.Unlock()
	select {
	case _, due := <-turn:
		if !due {
			return nil
		}
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrLeft, context.Cause(ctx))
	}
	if err := endEarlier(ctx, instance, living); err != nil {
		turn <- struct{}{}
		return err
	}
	close(turn)
	return nil
}

func endEarlier(ctx context.Context, instance string, living []string) error {
	keep := func(_ int, inner []string) bool {
		return slices.ContainsFunc(inner, func(id string) bool { return slices.Contains(living, id) })
	}
	for empty := 0; empty < 2; {
		ended, spared, err := EndInstance(instance, keep, 0)
		switch {
		case errors.Is(err, errors.ErrUnsupported):
			return err
		case err != nil:
			return fmt.Errorf("%w: %w", ErrLeft, err)
		case spared > 0:
			return errors.New("this process itself belongs to the earlier run, which therefore cannot be ended")
		}
		if empty++; len(ended) > 0 {
			empty = 0
		}
		select {
		case <-time.After(earlierPause):
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ErrLeft, context.Cause(ctx))
		}
	}
	return nil
}
