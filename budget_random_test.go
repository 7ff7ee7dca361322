package bgagent_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/inside"
	"github.com/bgagent/bgagent/internal/race"
	"github.com/bgagent/bgagent/storetest"
	"github.com/stretchr/testify/require"
)

var (
	budgetTrees = flag.Int("budget.trees", 10_000, "number of random trees in TestNoBudgetIsExceededByMoreThanAReportOfEachRunningTask")
	budgetSeed  = flag.Uint64("budget.seed", 0, "seed of the only run of that test; 0 for many runs")
)

const (
	treesOfARun = 5
	mostTokens  = 30              // tokens in the largest report
	lostAtMost  = 5 * time.Second // a crash can lose reports that were made up to this long before it
)

// spentBy is the usage that was reported for a task or for a tree's account.
type spentBy struct {
	limit   int64
	reports []reported
	running int   // largest number of turns that ran at the same time
	lost    int64 // tokens in reports that crashes might have lost
}

type reported struct {
	at     time.Time
	tokens int64
}

func (s *spentBy) total() (sum int64) {
	for _, r := range s.reports {
		sum += r.tokens
	}
	return sum
}

// The type "spenders" holds a client whose turns report tokens at random, the store of its manager,
// and the reported usage.
type spenders struct {
	memory  storetest.Memory
	cfg     bgagent.Config
	checked bool

	mu       sync.Mutex
	rng      *rand.Rand
	n        int
	process  *spendersProcess
	tasks    map[string]*spentBy
	accounts map[string]*spentBy
	running  map[string]int // running turns, by root
	parents  map[string]int // number of delegations, by task
	roots    map[string]bool
	met      map[string]int // how often each event has occurred
	broken   []string
}

// spendersMeet lists the events that must occur at least once in all runs together.
var spendersMeet = []string{
	"tree", "delegation", "resume", "raise", "crash", "suspension", "usage with an end", "usage after an end",
	"answer with the crossing report", "end by the budget of a task", "end by the budget of a tree", "refusal",
}

// The method "meet" records that an event has occurred.
func (w *spenders) meet(event string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.met[event]++
}

type spendersProcess struct {
	w      *spenders
	store  *storetest.Process
	m      *bgagent.BackgroundManager
	dead   chan struct{}
	leaves atomic.Bool // the manager is being suspended
	turns  sync.WaitGroup
}

func (w *spenders) begin(t *testing.T) {
	p := &spendersProcess{w: w, store: w.memory.Process(), dead: make(chan struct{})}
	cfg := w.cfg
	cfg.Store = p.store
	m, err := bgagent.New(p, cfg)
	require.NoError(t, err)
	require.Empty(t, m.Restored().Damage)
	if w.checked {
		require.NoError(t, inside.CheckUnchanged(m))
		inside.CheckAlways(m, func(err error) { w.fail("%v", err) })
	}
	w.mu.Lock()
	p.m, w.process = m, p
	w.mu.Unlock()
	m.Start()
}

// The method "crash" ends the process. Reports from its last seconds might be lost.
func (w *spenders) crash() {
	p := w.process
	p.store.Crash()
	close(p.dead)
	w.meet("crash")
	w.mu.Lock()
	since := time.Now().Add(-lostAtMost)
	for _, all := range []map[string]*spentBy{w.tasks, w.accounts} {
		for _, s := range all {
			for _, r := range s.reports {
				if !r.at.Before(since) {
					s.lost += r.tokens
				}
			}
		}
	}
	w.mu.Unlock()
	sourceAnswers() // with -slots, lets turns that are about to begin call p.turns.Add, which must happen before p.turns.Wait
	p.turns.Wait()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = p.m.Close(ctx)
}

// The method "suspend" ends the process in an orderly way. No reports are lost.
func (w *spenders) suspend(t *testing.T) {
	p := w.process
	w.meet("suspension")
	p.leaves.Store(true)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second+w.pause(5*time.Second)) // turns may continue until only StopTimeout (10 s) remains, so they have up to 5 s to end on their own
	defer cancel()
	if err := p.m.Suspend(ctx); err != nil {
		w.fail("suspend: %v", err)
	}
	p.store.Crash()
	close(p.dead)
	p.turns.Wait()
}

func (w *spenders) fail(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.broken = append(w.broken, fmt.Sprintf(format, args...))
}

func (w *spenders) below(n int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rng.IntN(n)
}

func (w *spenders) pause(most time.Duration) time.Duration {
	return time.Duration(w.below(int(most))) + 1
}

// The method "parent" returns how many times the task has delegated. If a task has delegated, its
// current turn might not be its last.
func (w *spenders) parent(task string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.parents[task]
}

// The method "runs" is called when a turn that can report usage begins. The returned function must
// be called when the turn has ended.
func (w *spenders) runs(root string) (ended func()) {
	add := func(n int) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.running[root] += n
	}
	add(1)
	return func() { add(-1) }
}

func (p *spendersProcess) isDead() bool {
	select {
	case <-p.dead:
		return true
	default:
		return false
	}
}

// The method "report" reports tokens for a task, and records them for the task and for its tree's
// account.
func (p *spendersProcess) report(task bgagent.Task, n int64, report func(bgagent.Usage)) {
	w := p.w
	if p.isDead() {
		return
	}
	limits, opened := int64(0), ""
	for _, b := range p.m.Figures().Budgets {
		if b.Root == task.Root {
			limits, opened = b.Limit.InputTokens, b.Opened.Round(time.Millisecond).String()
		}
	}
	own, err := p.m.Get(task.ID)
	if err != nil {
		return
	}
	w.mu.Lock()
	note := func(all map[string]*spentBy, key string, limit int64) {
		s := all[key]
		if s == nil {
			s = &spentBy{}
			all[key] = s
		}
		s.limit, s.running = limit, max(s.running, w.running[task.Root])
		s.reports = append(s.reports, reported{time.Now(), n})
	}
	note(w.tasks, task.ID, own.Budget.Limit.InputTokens)
	if opened != "" {
		note(w.accounts, task.Root+" "+opened, limits)
	}
	w.mu.Unlock()
	report(bgagent.Usage{InputTokens: n})
}

func (p *spendersProcess) CreateSession(context.Context, bgagent.SessionSpec) (string, error) {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	p.w.n++
	return "ses_" + strconv.Itoa(p.w.n), nil
}

func (p *spendersProcess) Abort(context.Context, string) error { return nil }

func (p *spendersProcess) RestoreSession(context.Context, bgagent.SessionRestore) (bgagent.PromptState, bgagent.TurnEnd, error) {
	return []bgagent.PromptState{bgagent.PromptInterrupted, bgagent.PromptMissing, bgagent.PromptAnswered}[p.w.below(3)], bgagent.TurnEnd{Text: "found"}, nil
}

// RunTurn simulates a turn. Once one of the turn's own reports has crossed a limit, the turn makes
// no more reports. If the turn is stopped for another reason, it makes at most one more report,
// about work that was under way.
func (p *spendersProcess) RunTurn(ctx context.Context, session string, prompt bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
	w := p.w
	p.turns.Add(1)
	defer p.turns.Done()
	task, err := p.m.Get(prompt.Task)
	if err != nil || p.isDead() {
		return bgagent.TurnEnd{}, errors.New("the process is dead")
	}
	defer w.runs(task.Root)()
	for range 1 + w.below(6) {
		select {
		case <-time.After(w.pause(4 * time.Second)):
		case <-ctx.Done():
			if w.below(2) == 0 {
				p.report(task, 1+int64(w.below(mostTokens)), r.Usage)
			}
			return bgagent.TurnEnd{}, ctx.Err()
		case <-p.dead:
			return bgagent.TurnEnd{}, errors.New("the process is dead")
		}
		if task.Depth < 3 && w.below(8) == 0 {
			p.delegate(ctx, session, task)
		} else {
			p.report(task, 1+int64(w.below(mostTokens)), r.Usage)
		}
		if ctx.Err() != nil {
			return bgagent.TurnEnd{}, ctx.Err()
		}
	}
	end := bgagent.TurnEnd{Text: "answer"}
	switch last := 1 + int64(w.below(mostTokens)); w.below(3 - min(w.parent(task.ID), 1)) {
	case 0:
		w.meet("usage with an end")
		p.report(task, last, func(u bgagent.Usage) { end.Usage = u })
	case 2: // the usage arrives after the end of the turn; not for a parent, because its next turn can begin immediately and would also report usage
		ended := w.runs(task.Root) // the turn counts as running until its late report, because that report can also exceed the budget
		p.turns.Go(func() {
			defer ended()
			time.Sleep(time.Nanosecond)
			w.meet("usage after an end")
			p.report(task, last, r.Usage)
		})
	}
	p.turns.Go(func() {
		time.Sleep(2 * time.Nanosecond)
		now, err := p.m.Get(task.ID)
		if err == nil && !p.isDead() && w.parent(task.ID) == 0 && now.Attempt == prompt.Attempt && now.Status.Terminal() && now.Status != bgagent.Completed {
			w.fail("task %s lost its answer: %v (%s)", task.ID, now.Cause, now.Reason)
		}
		if b := now.Budget; err == nil && now.Status == bgagent.Completed && b.Used.InputTokens >= b.Limit.InputTokens {
			w.meet("answer with the crossing report")
		}
	})
	return end, nil
}

// The method "delegate" launches a child of the given task, and checks that its budget is not
// larger than the parent's.
func (p *spendersProcess) delegate(ctx context.Context, session string, parent bgagent.Task) {
	p.w.mu.Lock()
	p.w.parents[parent.ID]++
	p.w.mu.Unlock()
	child, err := p.m.Launch(ctx, bgagent.Caller{Session: session}, p.w.input())
	if err != nil {
		p.allowed(err)
		return
	}
	p.w.meet("delegation")
	mine, err := p.m.Get(parent.ID)
	if err == nil && child.Budget.Limit.InputTokens > mine.Budget.Limit.InputTokens {
		p.w.fail("the budget of task %s is wider than that of its parent: %v, %v", child.ID, child.Budget.Limit, mine.Budget.Limit)
	}
}

// The method "allowed" fails the run if err is not an error that a launch or a resume may return,
// or if the error contains false information.
func (p *spendersProcess) allowed(err error) {
	var used *bgagent.BudgetError
	switch {
	case errors.As(err, &used) && used.Limit.Used < used.Limit.Limit:
		p.w.fail("refused although no budget is used up: %v", err)
	case used != nil:
		p.w.meet("refusal")
	case p.isDead(), p.leaves.Load(), errors.Is(err, bgagent.ErrSessionEnded), errors.Is(err, bgagent.ErrStillLive), errors.Is(err, context.Canceled):
	default:
		p.w.fail("unexpected error: %v", err)
	}
}

func (w *spenders) input() bgagent.LaunchInput {
	in := bgagent.LaunchInput{Agent: "a", Prompt: "work"}
	if w.below(3) == 0 {
		in.Budget.InputTokens = 20 + int64(w.below(300))
	}
	if w.below(6) == 0 {
		in.TreeBudget.InputTokens = 100 + int64(w.below(600))
	}
	return in
}

// The method "act" makes one random call as the host.
func (w *spenders) act(t *testing.T) {
	p := w.process
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tasks := p.m.List(bgagent.Query{})
	pick := func() bgagent.Task { return tasks[w.below(len(tasks))] }
	switch k := w.below(20); {
	case k < 9 || len(tasks) == 0:
		root := bgagent.Caller{Session: "root" + strconv.Itoa(w.below(treesOfARun))}
		_, err := p.m.Launch(ctx, root, w.input())
		switch {
		case err != nil:
			p.allowed(err)
		case !w.roots[root.Session]:
			w.roots[root.Session] = true
			w.meet("tree")
		}
	case k < 15:
		in, task := bgagent.ResumeInput{Prompt: "go on"}, pick()
		if w.below(2) == 0 {
			in.Budget.InputTokens = 20 + int64(w.below(400))
		}
		resumed, err := p.m.Resume(ctx, bgagent.Caller{}, task.ID, in)
		if err != nil {
			p.allowed(err)
			return
		}
		w.meet("resume")
		if resumed.Budget.Limit.InputTokens > task.Budget.Limit.InputTokens {
			w.meet("raise")
		}
	case k < 17:
		_, _ = p.m.Cancel(ctx, bgagent.Caller{}, pick().ID, bgagent.CancelOptions{})
	case k < 18:
		w.crash()
		w.begin(t)
	case k < 19:
		w.suspend(t)
		w.begin(t)
	}
}

func runSpenders(t *testing.T, seed uint64) (met map[string]int) {
	synctest.Test(t, func(t *testing.T) {
		w := &spenders{
			rng: rand.New(rand.NewPCG(seed, 1)), checked: seed%50 == 0,
			tasks: map[string]*spentBy{}, accounts: map[string]*spentBy{}, running: map[string]int{}, parents: map[string]int{},
			roots: map[string]bool{}, met: map[string]int{},
		}
		w.cfg = bgagent.Config{
			TaskBudget: bgagent.Budget{InputTokens: 50 + int64(w.below(200))}, TreeBudget: bgagent.Budget{InputTokens: 100 + int64(w.below(500))},
			Limits: bgagent.Limits{Default: 1 + w.below(4)}, MaxDepth: 4, Wake: bgagent.WakeNever,
		}
		if w.below(2) == 0 {
			w.cfg.BudgetPeriod = 10*time.Second + w.pause(time.Minute)
		}
		w.begin(t)
		for range 25 {
			time.Sleep(w.pause(2 * time.Second))
			w.act(t)
		}
		time.Sleep(time.Minute)
		w.verify()
		tasks := w.process.m.List(bgagent.Query{})
		_ = w.process.m.Close(context.Background())
		w.process.turns.Wait()
		for _, task := range tasks {
			if task.Cause == bgagent.CauseBudget {
				w.meet("end by the budget of " + map[bool]string{true: "a task", false: "a tree"}[strings.HasPrefix(task.Reason, "its budget")])
			}
		}
		require.Empty(t, w.broken, "seed %d: go test -run NoBudgetIsExceeded . -args -budget.seed %d", seed, seed)
		met = w.met
	})
	return met
}

// The method "verify" checks that no budget was exceeded by more than is allowed. It also checks
// that the manager counted no more usage than was reported and, if no process crashed, no less.
func (w *spenders) verify() {
	w.mu.Lock()
	defer w.mu.Unlock()
	check := func(what string, s *spentBy, running int) {
		if most := s.limit + int64(running)*mostTokens + s.lost; s.limit > 0 && s.total() > most {
			w.broken = append(w.broken, fmt.Sprintf("%s has used %d of %d; at most %d are allowed, with %d running turns and %d lost tokens", what, s.total(), s.limit, most, running, s.lost))
		}
	}
	for id, s := range w.tasks {
		check("task "+id, s, 1)
		task, err := w.process.m.Read(bgagent.Caller{}, id) // the task might exist only in the store
		if err != nil {
			w.broken = append(w.broken, err.Error())
			continue
		}
		if used := task.Budget.Used.InputTokens; used > s.total() || used < s.total()-s.lost {
			w.broken = append(w.broken, fmt.Sprintf("task %s has used %d tokens, of which at most %d are lost, but %d are counted", id, s.total(), s.lost, used))
		}
	}
	for key, s := range w.accounts {
		check("account "+key, s, max(s.running, 1))
	}
}

// A budget is never exceeded by more than one report from each running task plus, for each crash,
// the reports of the last 5 s before the crash.
func TestNoBudgetIsExceededByMoreThanAReportOfEachRunningTask(t *testing.T) {
	if *budgetSeed != 0 {
		runSpenders(t, *budgetSeed)
		return
	}
	trees := *budgetTrees
	if race.Enabled {
		trees /= 10 // with the race detector, a run takes about ten times as long
	}
	all := map[string]int{}
	var mu sync.Mutex
	add := func(one map[string]int) {
		mu.Lock()
		defer mu.Unlock()
		for event, n := range one {
			all[event] += n
		}
	}
	var left atomic.Int64
	left.Store(int64(trees))
	t.Run("shards", func(t *testing.T) {
		for shard := range runtime.GOMAXPROCS(0) {
			t.Run(strconv.Itoa(shard), func(t *testing.T) {
				t.Parallel()
				first := rand.Uint64N(1 << 40)
				for i := uint64(0); left.Load() > 0; i++ {
					one := runSpenders(t, first+i)
					if t.Failed() {
						return
					}
					left.Add(-int64(one["tree"]))
					add(one)
				}
			})
		}
	})
	t.Log(all)
	if t.Failed() {
		return
	}
	for _, event := range spendersMeet {
		require.Positive(t, all[event], "this event never occurred: %s", event)
	}
}
