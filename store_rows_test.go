package bgagent_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/race"
	"github.com/bgagent/bgagent/storetest"
	"github.com/stretchr/testify/require"
)

// story is a run of a manager with a store. It records each effect that left the manager before the
// change that caused it was durable.
type story struct {
	t       *testing.T
	m       *bgagent.BackgroundManager
	mem     *storetest.Memory
	process *storetest.Process
	ctx     context.Context // ends some time after the process has died

	mu    sync.Mutex
	seen  map[string]int      // how often each row of the table was observed
	early map[string][]string // effects that left the manager too early, by row
}

// The method "met" is called when an effect of the given row leaves the manager. The parameter
// "durable" states whether the change that caused the effect is durable.
func (s *story) met(row string, durable bool, format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen[row]++
	if !durable {
		s.early[row] = append(s.early[row], fmt.Sprintf(format, args...))
	}
}

// storedTask contains the fields of a task's record that the tests read.
type storedTask struct {
	Status  string
	Notice  string
	Attempt int
	Session *struct{ ID string }
	Run     *struct {
		PromptOf string `json:"prompt_of"`
		Turn     int
		Prompt   string
	}
	End *struct{ Result string }
}

func (s *story) task(id string) (x storedTask, ok bool) { return taskIn(s.mem, id) }

func taskIn(mem *storetest.Memory, id string) (x storedTask, ok bool) {
	for _, r := range mem.Records() {
		if r.Key == id {
			if err := json.Unmarshal(r.Data, &x); err != nil {
				panic(err)
			}
			return x, true
		}
	}
	return x, false
}

// The method "text" returns a text from the store, even if the process has died.
func (s *story) text(record, name string) string {
	text, err := s.process.Text(context.Background(), record, name)
	if errors.Is(err, storetest.ErrDead) {
		p := s.mem.Process()
		if _, err = p.Open(context.Background(), bgagent.StoreOwner{}); err == nil {
			text, _ = p.Text(context.Background(), record, name)
			_ = p.Close()
		}
	}
	return text
}

// hasEnd reports whether the store contains the end that the task shows.
func (s *story) hasEnd(task bgagent.Task) bool {
	x, ok := s.task(task.ID)
	if ok && x.Attempt > task.Attempt { // the resume was written and is being withdrawn
		return true
	}
	return ok && x.End != nil && x.Status == task.Status.String() && s.text(task.ID, x.End.Result) == task.Result
}

func (s *story) hasNotice(session string, n bgagent.Notice) bool {
	for _, r := range s.mem.Records() {
		text, _ := json.Marshal(n.Text)
		if r.Key == "session:"+session && strings.Contains(string(r.Data), n.ID) && strings.Contains(string(r.Data), string(text)) {
			return true
		}
	}
	return false
}

// These constants are the rows of the first table in docs/store.md. Each row names an effect before
// which a change must be durable.
const (
	rowLaunch  = "Launch returns"
	rowResume  = "Resume returns"
	rowCreate  = "CreateSession"
	rowPrompt  = "the prompt of a turn"
	rowCancel  = "Cancel returns"
	rowWait    = "Wait shows an end"
	rowRun     = "Run shows an end"
	rowGet     = "Get shows an end"
	rowList    = "List shows an end"
	rowRead    = "Read shows an end"
	rowEvent   = "an event shows an end"
	rowTool    = "a tool shows an end"
	rowNotify  = "a notice is tried"
	rowTake    = "TakeNotice hands out"
	rowNext    = "NextNotice hands out"
	rowAnswer  = "a tool hands out"
	rowOwnTurn = "a notice becomes a turn"
)

var rows = []string{
	rowLaunch, rowResume, rowCreate, rowPrompt, rowCancel, rowWait, rowRun, rowGet, rowList, rowRead, rowEvent, rowTool,
	rowNotify, rowTake, rowNext, rowAnswer, rowOwnTurn,
}

func (s *story) runner() *goRunner {
	f := &goRunner{}
	f.create = func(_ context.Context, spec bgagent.SessionSpec) (string, error) {
		_, ok := s.task(spec.Task)
		s.met(rowCreate, ok, "%s", spec.Task)
		return f.nextID(), nil
	}
	f.run = func(ctx context.Context, session string, p bgagent.Prompt, _ *bgagent.Reporter) (bgagent.TurnEnd, error) {
		x, ok := s.task(p.Task)
		ok = ok && x.Session != nil && x.Session.ID == session && x.Run != nil && x.Run.Turn == p.Turn && x.Run.Prompt == p.ID && x.Attempt == p.Attempt
		name := fmt.Sprintf("prompt.%d", p.Attempt)
		if ok && p.Turn > 1 {
			name = x.Run.PromptOf
		}
		s.met(rowPrompt, ok && s.text(p.Task, name) == p.Text, "%s: %+v", p.ID, x)
		if p.Notice != nil {
			s.met(rowOwnTurn, s.hasNotice(session, *p.Notice), "%s", p.Notice.ID)
		}
		switch {
		case p.Text == "delegate":
			s.launch(bgagent.Caller{Session: session}, "short")
		case p.Text == "long":
			<-ctx.Done()
			return bgagent.TurnEnd{}, ctx.Err()
		}
		return bgagent.TurnEnd{Text: "answer to " + p.Text}, nil
	}
	return f
}

func (s *story) launch(by bgagent.Caller, prompt string) bgagent.Task {
	task, err := s.m.Launch(s.ctx, by, bgagent.LaunchInput{Agent: "worker", Prompt: prompt})
	if err == nil {
		_, ok := s.task(task.ID)
		s.met(rowLaunch, ok && s.text(task.ID, "prompt.1") == prompt, "%s", task.ID)
	}
	return task
}

// The method "watch" reads the tasks with every method that does not wait.
func (s *story) watch(ctx context.Context) {
	for ctx.Err() == nil {
		for _, task := range s.m.List(bgagent.Query{}) {
			if task.Status.Terminal() {
				s.met(rowList, s.hasEnd(task), "%s is %s", task.ID, task.Status)
			}
			if task, err := s.m.Get(task.ID); err == nil && task.Status.Terminal() {
				s.met(rowGet, s.hasEnd(task), "%s is %s", task.ID, task.Status)
			}
			if task, err := s.m.Read(bgagent.Caller{}, task.ID); err == nil && task.Status.Terminal() {
				s.met(rowRead, s.hasEnd(task), "%s is %s", task.ID, task.Status)
			}
		}
		r, _ := bgagent.BackgroundOutput(ctx, s.m, bgagent.Caller{Session: "onlooker"}, bgagent.BackgroundOutputArgs{})
		if r.Notice != nil {
			s.met(rowAnswer, s.hasNotice("onlooker", *r.Notice), "%s", r.Notice.ID)
		}
		for _, task := range r.Tasks {
			if task.Status.Terminal() {
				s.met(rowTool, s.hasEnd(task), "%s is %s", task.ID, task.Status)
			}
		}
		time.Sleep(13 * time.Millisecond)
	}
}

func (s *story) follow(sub *bgagent.Subscription) {
	for {
		e, err := sub.Next(context.Background())
		if err != nil {
			return
		}
		if e.Kind == bgagent.EventEnded {
			s.met(rowEvent, s.hasEnd(e.Task), "%s is %s", e.Task.ID, e.Task.Status)
		}
	}
}

// The method "play" makes every call in the table. If the process dies, the calls return when their
// contexts end.
func (s *story) play() {
	ctx, m := s.ctx, s.m
	scope, onlooker := bgagent.Caller{Session: "scope"}, bgagent.Caller{Session: "onlooker"}
	a := s.launch(root, "delegate")
	if tasks, err := m.Wait(ctx, bgagent.Caller{}, bgagent.WaitAll, a.ID); err == nil {
		s.met(rowWait, s.hasEnd(tasks[0]), "%s", a.ID)
	}
	if task, err := m.Resume(ctx, root, a.ID, bgagent.ResumeInput{Prompt: "more"}); err == nil {
		x, _ := s.task(task.ID)
		s.met(rowResume, x.Attempt == 2 && s.text(task.ID, "prompt.2") == "more", "%+v", x)
	}
	if task, err := m.Run(ctx, root, bgagent.LaunchInput{Agent: "worker", Prompt: "short"}); err == nil {
		s.met(rowRun, s.hasEnd(task), "%s", task.ID)
	}
	c := s.launch(root, "long")
	time.Sleep(100 * time.Millisecond)
	if _, err := m.Cancel(ctx, root, c.ID, bgagent.CancelOptions{}); err == nil {
		x, _ := s.task(c.ID)
		s.met(rowCancel, x.Status == "cancelled", "%+v", x)
	}
	if ctx.Err() != nil {
		return
	}
	s.launch(scope, "short")
	time.Sleep(500 * time.Millisecond)
	if n, ok := m.TakeNotice("scope"); ok {
		s.met(rowTake, s.hasNotice("scope", n), "%s", n.ID)
	}
	s.launch(scope, "short")
	if n, err := m.NextNotice(ctx, "scope"); err == nil {
		s.met(rowNext, s.hasNotice("scope", n), "%s", n.ID)
	}
	s.launch(onlooker, "short")
	time.Sleep(500 * time.Millisecond)
}

// The function "tell" runs the story with a store whose writes take 20 ms each. If crash is not 0,
// the process dies during the write with that number, either before or after the batch is written.
func tell(t *testing.T, crash uint64, kind storetest.FaultKind) (s *story) {
	s = &story{t: t, mem: &storetest.Memory{}, seen: map[string]int{}, early: map[string][]string{}}
	s.process = s.mem.Process()
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	s.ctx = ctx
	s.mem.SetFaults(func(batch uint64, _ int) storetest.Fault {
		f := storetest.Fault{Delay: 20 * time.Millisecond}
		if batch == crash {
			f.Kind = kind
			time.AfterFunc(500*time.Millisecond, stop)
		}
		return f
	})
	notify := func(_ context.Context, session string, n bgagent.Notice) error {
		if session != "root" {
			return bgagent.ErrNoSession
		}
		s.met(rowNotify, s.hasNotice(session, n), "%s", n.ID)
		return nil
	}
	s.m = manage(t, s.runner(), bgagent.Config{Store: s.process, Notify: notify, MaxDepth: 3, StoreTimeout: time.Second, StopTimeout: time.Second})
	_, sub := s.m.Subscribe(1 << 16)
	var wg sync.WaitGroup
	wg.Go(func() { s.follow(sub) })
	wg.Go(func() { s.watch(ctx) })
	s.play()
	stop()
	sub.Close()
	wg.Wait()
	end, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = s.m.Close(end)
	return s
}

func TestNothingLeavesBeforeItsCauseIsDurable(t *testing.T) {
	var last uint64
	stories := map[string]*story{}
	synctest.Test(t, func(t *testing.T) {
		s := tell(t, 0, storetest.NoFault)
		stories["no crash"], last = s, s.mem.Batch()
	})
	require.Greater(t, last, uint64(20))
	step := uint64(1)
	if race.Enabled { // with the race detector, a story takes about ten times as long
		step = 5
	}
	for n := 1 + rand.Uint64N(step); n <= last; n += step {
		for _, kind := range []storetest.FaultKind{storetest.CrashBefore, storetest.CrashAfter} {
			synctest.Test(t, func(t *testing.T) { stories[fmt.Sprintf("crash %d in write %d", kind, n)] = tell(t, n, kind) })
		}
	}
	for _, row := range rows {
		t.Run(row, func(t *testing.T) {
			require.NotZero(t, stories["no crash"].seen[row], "no effect of this row was observed")
			for name, s := range stories {
				require.Empty(t, s.early[row], name)
			}
		})
	}
}
