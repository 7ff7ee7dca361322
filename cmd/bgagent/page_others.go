package main

import (
	"context"
	"errors"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/dashboard"
	bgnats "github.com/bgagent/bgagent/nats"
)

// pageOthers gives the page of "bgagent serve" access to the tasks of the cluster's other processes.
type pageOthers struct{ cluster *bgnats.Cluster }

// pageReadTime is how long the page waits for a task of another process. While it waits, and if the process
// does not answer, the page shows what the task list contains.
const pageReadTime = 4 * time.Second

// Processes implements [dashboard.Others].
func (o pageOthers) Processes(ctx context.Context, ended int) (out []dashboard.Process, err error) {
	all, err := o.cluster.Tasks(ctx, ended)
	if err != nil {
		return nil, errors.New("the servers of the cluster cannot be reached")
	}
	for _, p := range all {
		if p.Name == o.cluster.Self().Name {
			continue
		}
		x := dashboard.Process{Name: processName(p.Process), Tasks: p.Tasks}
		switch {
		case !p.Lives && p.Err == nil:
			x.Problem = "not running"
		case errors.Is(p.Err, bgnats.ErrUnanswered):
			x.Problem = "does not answer"
		case p.Err != nil:
			x.Problem = "not all tasks can be read"
		}
		out = append(out, x)
	}
	return out, nil
}

// Read implements [dashboard.Others].
func (o pageOthers) Read(ctx context.Context, id string) (bgagent.Task, error) {
	ctx, cancel := context.WithTimeout(ctx, pageReadTime)
	defer cancel()
	t, _, err := o.cluster.Read(ctx, id)
	return t, err
}

// Cancel implements [dashboard.Others].
func (o pageOthers) Cancel(ctx context.Context, id, reason string) (bgagent.Task, error) {
	return o.cluster.Cancel(ctx, id, reason)
}

// Answer implements [dashboard.Others].
func (o pageOthers) Answer(ctx context.Context, id string, in bgagent.AnswerInput) (bgagent.Question, error) {
	return o.cluster.Answer(ctx, id, in)
}
