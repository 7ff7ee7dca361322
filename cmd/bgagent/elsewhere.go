package main

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/bgagent/bgagent"
	bgnats "github.com/bgagent/bgagent/nats"
)

// The type "elsewhere" gives the tools of "bgagent serve" access to the tasks that callers with tokens have
// in other processes of the cluster. In another process, the name of a bridge or of a caller without a token
// might belong to another caller. Therefore, a bridge, or a caller without a token, gets only the tasks of
// this process.
type elsewhere struct {
	callers atomic.Pointer[bgnats.Callers] // nil until the method "begin" succeeds
}

// The method "begin" lets callers with tokens use their tasks in all processes of the cluster. The map
// "tokens" holds the caller's name for each token.
func (e *elsewhere) begin(c *bgnats.Cluster, tokens map[string]string) error {
	secrets := map[string][]string{}
	for token, name := range tokens {
		secrets[name] = append(secrets[name], token)
	}
	callers, err := c.ServeCallers(secrets)
	if err == nil {
		e.callers.Store(callers)
	}
	return err
}

// Tasks implements [bgagent.Elsewhere].
func (e *elsewhere) Tasks(ctx context.Context, by bgagent.Caller, ended int) (out []bgagent.TaskElsewhere, err error) {
	callers := e.callers.Load()
	if callers == nil {
		return nil, nil
	}
	all, err := callers.Tasks(ctx, by.Session, ended)
	for _, t := range all {
		out = append(out, taskElsewhere(t))
	}
	return out, err
}

// Read implements [bgagent.Elsewhere].
func (e *elsewhere) Read(ctx context.Context, by bgagent.Caller, id string, wait time.Duration) (bgagent.TaskElsewhere, error) {
	callers := e.callers.Load()
	if callers == nil {
		return bgagent.TaskElsewhere{}, bgagent.ErrUnknownTask
	}
	t, err := callers.Read(ctx, by.Session, id, wait)
	return taskElsewhere(t), err
}

// Cancel implements [bgagent.Elsewhere].
func (e *elsewhere) Cancel(ctx context.Context, by bgagent.Caller, id string) (bgagent.Task, error) {
	callers := e.callers.Load()
	if callers == nil {
		return bgagent.Task{}, bgagent.ErrUnknownTask
	}
	return callers.Cancel(ctx, by.Session, id)
}

// Answer implements [bgagent.Elsewhere].
func (e *elsewhere) Answer(ctx context.Context, by bgagent.Caller, id string, in bgagent.AnswerInput) (bgagent.Question, error) {
	callers := e.callers.Load()
	if callers == nil {
		return bgagent.Question{}, bgagent.ErrUnknownTask
	}
	return callers.Answer(ctx, by.Session, id, in)
}

func taskElsewhere(t bgnats.CallerTask) bgagent.TaskElsewhere {
	return bgagent.TaskElsewhere{Task: t.Task, Process: processName(t.Process), Stored: whyStored(t.Err)}
}

// processName returns the name of p. If another process has taken over p's tasks, that process's name is
// appended.
func processName(p bgnats.Process) string {
	if p.TakenBy != "" {
		return p.Name + ", taken over by " + p.TakenBy
	}
	return p.Name
}

// whyStored describes in a few words why a process did not report the state of its tasks. If the process
// reported the state, err is nil and the result is empty.
func whyStored(err error) string {
	switch {
	case err == nil:
		return ""
	case errors.Is(err, bgnats.ErrProcessDead):
		return "is not running, or has lost its connection"
	case errors.Is(err, bgnats.ErrNotServing):
		return "is starting or ending"
	}
	return "does not answer"
}
