package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/bridge"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/children"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/fleet"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/notify"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/settings"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/statedir"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/transcript"
	"github.com/bgagent/bgagent/mcpserver"
	bgnats "github.com/bgagent/bgagent/nats"
)

// serving is the common part of the commands "bgagent mcp" and "bgagent serve": a manager for the
// configured agents, and a server for the manager's tools.
type serving struct {
	command string // serve or mcp
	people  bool   // whether a person can see and answer the tasks' questions
	copies  copyFlags
	set     *settings.Settings
	crew    *fleet.Fleet
	manager *bgagent.BackgroundManager
	server  *mcpserver.Server
	life    life
	stale   time.Duration // time after which a silent task is cancelled; 0 means no limit
	older   older
	process string            // name of this process in its cluster, if the user has given one
	cluster *bgnats.Cluster   // nil if there is none
	others  elsewhere         // the callers' tasks in other processes of the cluster
	at      statedir.Store    // store of the manager; zero if tasks are not kept
	files   *transcript.Files // logs of the tasks; nil if tasks are not kept
	bridges *bridge.Server    // nil until the command "serve" accepts bridges

	logger  *slog.Logger // nil if nothing is logged
	logFile *os.File
	notify  *notify.Notifier
	ending  atomic.Pointer[time.Time] // when the server began to shut down, with a monotonic reading; nil before
	follow  chan struct{}             // closed after all events have been handled
	lost    chan error                // gets the reason why the tasks belong to another process
}

// startServing creates a serving and begins to follow its manager's events. If this program is running inside
// a task that is not allowed to delegate, the server does not offer delegate_task. If a signal arrives while
// startServing waits for a file, both results are nil. The argument "people" says whether a person can see
// and answer the tasks' questions. The argument "process" is the name that the user has given to this
// process.
func startServing(all *cli, command string, people bool, process string, copies copyFlags, log logFlags, stop stops) (*serving, error) {
	set, err := all.settings()
	if err != nil {
		return nil, err
	}
	s := &serving{command: command, people: people, process: process, copies: copies, set: set, stale: staleTime(set), follow: make(chan struct{}), lost: make(chan error, 1)}
	s.logFile, err = untilStopped(stop.soft, log.open)
	switch {
	case errors.Is(err, context.Canceled):
		return nil, nil
	case err != nil:
		return nil, &exitError{exitInput, err}
	}
	s.logger = log.logger(s.logFile)
	sayFiles(set)
	s.life = begin(command, all.keeps())
	if err := s.build(stop.soft, set, all.stateFlags); err != nil {
		s.life.end()
		return nil, unlessStopped(stop.soft, err)
	}
	sayRestored(s.manager)
	s.notify = notify.New(set.Notify, s.life.id, func(err error) { warn("%v", err) })
	known, events := s.manager.Subscribe(4096)
	go s.watch(known, events)
	if s.logger != nil {
		s.logger.Info(command+" begins", "pid", os.Getpid(), "files", set.Files)
	}
	return s, nil
}

// The method "watch" follows the events of the server's manager; see the method "handle". The argument
// "known" contains the tasks that the manager loaded from its store.
func (s *serving) watch(known []bgagent.Task, events *bgagent.Subscription) {
	defer close(s.follow)
	live := map[string]struct{}{}
	for _, t := range known {
		if !t.Status.Terminal() {
			live[t.ID] = struct{}{}
		}
	}
	s.handle(s.manager, live, events)
}

// handle logs the events of a manager until the manager is closed. It also notifies the user of tasks that ended
// badly, of questions, and of the end of the last task. The argument "live" contains the manager's tasks that
// have not ended.
func (s *serving) handle(m *bgagent.BackgroundManager, live map[string]struct{}, events *bgagent.Subscription) {
	for e := range events.Events(context.Background()) { // until the manager is closed, and all events have been read
		if s.logger != nil {
			logEvent(s.logger, e)
		}
		switch e.Kind {
		case bgagent.EventLaunched, bgagent.EventResumed:
			live[e.Task.ID] = struct{}{}
		case bgagent.EventEnded:
			s.endLog(e.Task)
			delete(live, e.Task.ID)
			s.tell(e.Task, len(live) == 0 && m == s.manager)
		case bgagent.EventQuestion:
			if q := e.Question; q.State == bgagent.QuestionOpen && s.ending.Load() == nil {
				s.notify.Tell(notify.Event{Kind: "asks", Text: questionText(e.Task, *q, s.questionAdvice(e.Task.ID)), Task: e.Task.ID})
			}
		case bgagent.EventQuiet: // the programs can print until this event
			s.endLog(e.Task)
		case bgagent.EventMissed:
			clear(live) // it is unknown which tasks are live, so the next task that ends may be reported as the last
		}
		if m == s.manager && (e.Kind == bgagent.EventStoreTrouble || e.Kind == bgagent.EventMissed) {
			s.checkStore()
		}
	}
}

// endLog ends a task's log unless another attempt has begun.
func (s *serving) endLog(t bgagent.Task) {
	if s.files != nil && t.Status.Terminal() {
		s.files.End(t.ID)
	}
}

// tell notifies the user when a task has ended badly, and when the last task has ended.
func (s *serving) tell(t bgagent.Task, last bool) {
	// The manager measures when tasks end with the monotonic clock. Both times have a reading of this clock,
	// and Before compares the readings. Therefore, the result is right even if the computer was suspended or
	// the wall clock was set.
	if at := s.ending.Load(); at != nil && !t.Ended.Before(*at) {
		return // the user has stopped the server and expects its tasks to end
	}
	if bad(t) {
		s.notify.Tell(notify.Event{Kind: kindOfEnd(t), Text: endText("task "+t.ID, t), Task: t.ID})
	}
	if last {
		s.notify.Tell(notify.Event{Kind: "done", Text: "bgagent: the last task has ended"})
	}
}

// build creates the manager and the server.
func (s *serving) build(ctx context.Context, set *settings.Settings, state stateFlags) (err error) {
	defer func() {
		if err != nil {
			leaving, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
			defer cancel()
			s.leaveCluster(leaving)
		}
	}()
	if s.crew, err = fleet.New(set, fleet.Options{Instance: s.life.id, Logger: s.logger, OnlyModelsAnswer: !s.people}); err != nil {
		return &exitError{exitInput, err}
	}
	options := bgagent.ToolOptions{Agents: s.crew.Agents()}
	s.manager, err = s.makeManager(ctx, set, state)
	if errors.Is(err, bgagent.ErrDepth) {
		warn("%v", err)
		options.Omit = []string{bgagent.ToolDelegateTask}
		s.manager, err = s.crew.Idle()
	}
	var coded *exitError
	switch {
	case errors.As(err, &coded):
		return err
	case err != nil:
		return &exitError{exitInput, err}
	}
	if s.cluster != nil {
		options.Elsewhere = &s.others
	}
	if s.server, err = mcpserver.New(s.manager, mcpserver.Config{Tools: options}); err != nil {
		return errors.Join(err, s.manager.Suspend(context.Background()))
	}
	return nil
}

// stopTime is how long running tasks may take to stop after the caller closes the connection. A caller
// might kill this program soon after closing the connection.
const stopTime = 5 * time.Second

// The method "told" returns when all events are logged and all notifications are sent, or when ctx ends.
func (s *serving) told(ctx context.Context) {
	select {
	case <-s.follow:
	case <-ctx.Done():
	}
	s.notify.Close(ctx)
}

// The method "end" cancels all tasks, waits at most stopTime for everything that they started to stop, and
// terminates the agent programs. There is one exception: if the tasks of the command "serve" are kept, and
// the user has not interrupted the command, the tasks are suspended instead of cancelled.
func (s *serving) end(stop stops) error {
	defer context.AfterFunc(stop.hard, leave)()
	ctx, cancel := context.WithTimeout(stop.hard, stopTime)
	defer cancel()
	now := time.Now()
	s.ending.Store(&now)
	_ = s.server.Close()
	s.older.quit()
	s.suspend(ctx, stop)
	var left *bgagent.CloseError
	if err := s.manager.Close(ctx); errors.As(err, &left) && len(left.NotStopped) > 0 {
		warn("these tasks did not stop in time: %v", left.NotStopped)
	}
	s.older.await(ctx)
	s.leaveCluster(ctx)
	err := s.crew.Close(ctx)
	s.told(ctx)
	s.files.Close()
	children.Kill(killTime)
	s.life.end()
	if s.logger != nil {
		s.logger.Info("the end")
	}
	if s.logFile != nil {
		err = errors.Join(err, s.logFile.Close())
	}
	return err
}
