package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/inproc"
)

// scene is a manager with sessions that keep delegating tasks to it.
type scene struct {
	m     *bgagent.BackgroundManager
	speed float64

	mu  sync.Mutex
	rng *rand.Rand
}

// maxLive is the number of live tasks at which the sessions stop delegating for a while.
const maxLive = 34

func newScene(speed float64) (*scene, error) {
	s := &scene{speed: speed, rng: rand.New(rand.NewPCG(4, 2026))}
	agents := map[string]inproc.Agent{"builder": s.builder}
	for _, name := range []string{"explore", "librarian", "oracle", "reviewer"} {
		agents[name] = s.worker
	}
	var err error
	s.m, err = bgagent.New(inproc.New(agents), bgagent.Config{
		MaxDepth: 3,
		Model: func(agent, asked string) (string, error) {
			if asked == "" {
				asked = models[agent]
			}
			return asked, nil
		},
		Limits: bgagent.Limits{
			Model:    map[string]int{"claude-opus-4-5": 2},
			Provider: map[string]int{"anthropic": 4, "openai": 3},
			Default:  3,
		},
		RetainTasks: 2000,
	})
	return s, err
}

// The method "close" closes the manager. Undelivered notices are not an error here, because the
// sessions exist only in the scene. Host calls that have not returned are not an error either.
func (s *scene) close() error {
	var left *bgagent.CloseError
	err := s.m.Close(context.Background())
	if errors.As(err, &left) && len(left.NotStopped) == 0 && left.Err == nil {
		return nil
	}
	return err
}

// The method "play" delegates and cancels tasks until ctx ends.
func (s *scene) play(ctx context.Context) {
	for i := 0; ctx.Err() == nil; i++ {
		if s.live() < maxLive {
			s.delegate(ctx, sessions[s.below(len(sessions))], 1+s.below(4))
		}
		for _, session := range sessions {
			s.m.TakeNotice(session) // a real session's model would read the notice
		}
		if i%9 == 8 {
			s.cancelOne(ctx)
		}
		_ = s.pause(ctx, 1500, 3500) // an error means that ctx has ended, which the loop checks
	}
}

func (s *scene) live() int {
	return len(s.m.List(bgagent.Query{Status: []bgagent.Status{bgagent.Pending, bgagent.Running}}))
}

func (s *scene) delegate(ctx context.Context, session string, n int) {
	for range n {
		j := jobs[s.below(len(jobs))]
		// A launch that would exceed the manager's limits is refused. The error is ignored, because
		// later launches will succeed.
		_, _ = s.m.Launch(ctx, bgagent.Caller{Session: session}, bgagent.LaunchInput{
			Agent: j.agent, Description: j.title, Prompt: j.title + ". " + j.prompt,
		})
	}
}

func (s *scene) cancelOne(ctx context.Context) {
	running := s.m.List(bgagent.Query{Status: []bgagent.Status{bgagent.Running}})
	if len(running) == 0 {
		return
	}
	t := running[s.below(len(running))]
	_, _ = s.m.Cancel(ctx, bgagent.Caller{Session: t.Root}, t.ID, bgagent.CancelOptions{Reason: "answered by another task"})
}

// The method "below" returns a random number from 0 to n-1.
func (s *scene) below(n int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rng.IntN(n)
}

// The method "pause" waits for a random time between least and most milliseconds, divided by the
// scene's speed.
func (s *scene) pause(ctx context.Context, least, most int) error {
	d := time.Duration(float64(least+s.below(most-least)) / s.speed * float64(time.Millisecond))
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// worker is an agent that calls some tools, writes text between the calls, and returns an
// answer. In some turns it asks a question, and in a few turns it fails.
func (s *scene) worker(ctx context.Context, t *inproc.Turn) (string, error) {
	agent := t.Prompt.Agent
	steps := 4 + s.below(10)
	fails := s.below(14) == 0
	asks := s.below(9) == 0
	todos := []bgagent.Todo{{Text: "Get an overview"}, {Text: "Look at the details"}, {Text: "Write it up"}}
	for i := range steps {
		done := i * len(todos) / steps
		for j := range todos {
			todos[j].State = []bgagent.TodoState{bgagent.TodoCompleted, bgagent.TodoInProgress, bgagent.TodoPending}[min(max(j-done+1, 0), 2)]
		}
		t.Todos(slices.Clone(todos))
		tools := toolsOf[agent]
		call := bgagent.MessageTool{ID: fmt.Sprintf("%d.%d", t.Prompt.Turn, i), Name: tools[s.below(len(tools))], State: bgagent.ToolRunning}
		t.Tool(call)
		if err := s.pause(ctx, 600, 3600); err != nil {
			return "", err
		}
		call.State = bgagent.ToolDone
		t.Tool(call)
		t.Usage(bgagent.Usage{InputTokens: int64(900 + s.below(4000)), OutputTokens: int64(60 + s.below(500)), Cost: float64(s.below(300)) / 10000})
		if asks && i == 2 {
			t.Asking("May I run `go test ./... -count=1`?")
			if err := s.pause(ctx, 9000, 12000); err != nil {
				return "", err
			}
			t.Asking("")
		}
		if fails && i == steps/2 {
			return "", errors.New("the model's answer broke off: stream closed by the server")
		}
		t.Text(remarks[s.below(len(remarks))] + " ")
		if err := s.pause(ctx, 200, 1200); err != nil {
			return "", err
		}
	}
	return answers[s.below(len(answers))], nil
}

// builder is an agent that delegates parts of its work. It answers when it is notified that
// those parts have ended.
func (s *scene) builder(ctx context.Context, t *inproc.Turn) (string, error) {
	if t.Prompt.Notice != nil {
		t.Text("All parts are there; putting them together. ")
		return answers[s.below(len(answers))], s.pause(ctx, 1500, 4000)
	}
	call := bgagent.MessageTool{ID: "plan", Name: "read", State: bgagent.ToolDone}
	t.Tool(call)
	t.Text("Three parts can be done side by side. ")
	if err := s.pause(ctx, 1500, 4000); err != nil {
		return "", err
	}
	by, _ := bgagent.CallerFrom(ctx)
	s.delegate(ctx, by.Session, 2+s.below(2))
	return "Waiting for the parts.", nil
}
