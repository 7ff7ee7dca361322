package bgagent_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/bgagenttest"
	"github.com/bgagent/bgagent/internal/inside"
	"github.com/bgagent/bgagent/storetest"
)

// The code in this file runs a scenario with faults. It simulates everything outside the manager.
// The store and the agents outlive the manager's processes. The code in crash_oracle_test.go judges
// what happened.

// play is one run of a scenario.
type play struct {
	t      *testing.T
	sc     *scenario
	fault  crashPlan
	memory storetest.Memory

	mu      sync.Mutex
	runner  bgagenttest.Runner
	starter bgagenttest.Starter
	life    *process
	lives   int
	writes  int  // number of writes by all processes, including repeated writes
	struck  bool // the fault has happened
	fated   bool // a turn was running when a process ended
	book    playBook
}

// process is one run of the manager.
type process struct {
	p     *play
	no    int
	m     *bgagent.BackgroundManager // written under play.mu; an agent that outlives the process reads it with l.manager
	store *storetest.Process
	over  bool          // guarded by play.mu; the process has ended, and its calls have no effect
	gone  chan struct{} // closed when the process ends
}

// crashPlan describes the faults of a play.
type crashPlan struct {
	at    int // number of the write that fails, counted from 1; 0 means no fault
	kind  storetest.FaultKind
	later time.Duration // if not 0, the write succeeds, and the process ends after this time
	times int           // for Refused and Full, the number of consecutive writes that fail
	again int           // the next process ends after this many writes of its own; 0 means that it does not end
	fate  bgagenttest.Fate
}

func (c crashPlan) String() string {
	names := [...]string{"no fault", "crash before", "crash after", "torn", "refused", "full", "answer lost, written", "answer lost, not written"}
	fates := [...]string{"default", "cut", "unknown", "lost", "gone", "answered", "orphan", "left"}
	s := fmt.Sprintf("write %d, %s", c.at, names[c.kind])
	if c.later > 0 {
		s = fmt.Sprintf("write %d, crash %v later", c.at, c.later)
	}
	if c.times > 1 {
		s += fmt.Sprintf(" %d times", c.times)
	}
	if c.again > 0 {
		s += fmt.Sprintf(", crash again after %d", c.again)
	}
	return s + ", fate " + fates[c.fate]
}

func (c crashPlan) crashes() bool {
	return c.later > 0 || c.kind == storetest.CrashBefore || c.kind == storetest.CrashAfter
}

func newPlay(t *testing.T, sc *scenario, fault crashPlan) *play {
	p := &play{t: t, sc: sc, fault: fault, book: newPlayBook()}
	p.runner, p.starter = bgagenttest.NewRunner(p.script), bgagenttest.NewStarter(p.script)
	p.runner.Prefix, p.starter.Prefix = "run_", "srv_"
	fates := func(bgagent.Prompt) bgagenttest.Fate {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.fated = true
		return p.fault.fate
	}
	p.runner.Fates, p.starter.Fates = fates, fates
	p.runner.Faults = func(c bgagenttest.Call) bgagenttest.Fault {
		if c.Kind == bgagenttest.CallCreate {
			p.book.creates(c.Title)
			return bgagenttest.Fault{Delay: time.Second}
		}
		return bgagenttest.Fault{}
	}
	p.starter.Faults = p.runner.Faults
	p.memory.SetFaults(p.strike)
	return p
}

// The method "strike" returns the fault for one write. If the fault is a crash, the method also
// disconnects the process from its clients.
func (p *play) strike(uint64, int) storetest.Fault {
	p.mu.Lock()
	l := p.life
	p.writes++
	n, c := p.writes, p.fault
	tries := max(c.times, 1)
	var kill bool
	var fault storetest.Fault
	switch {
	case l.over:
	case l.no == 1 && c.later > 0 && n == c.at:
		p.struck = true
		time.AfterFunc(c.later, func() { p.crash(l) })
	case l.no == 1 && c.later == 0 && n >= c.at && n < c.at+tries:
		p.struck, kill = true, c.crashes()
		fault.Kind = c.kind
	case l.no == 2 && c.again > 0:
		if p.book.secondWrites++; p.book.secondWrites == c.again {
			kill, fault.Kind = true, storetest.CrashAfter
		}
	}
	p.mu.Unlock()
	if kill {
		p.end(l)
	}
	return fault
}

// The method "crash" ends the process while it is not writing.
func (p *play) crash(l *process) {
	if p.end(l) {
		l.store.Crash()
	}
}

// The method "end" disconnects the process from its clients. The caller must also disconnect it
// from the store. The method returns false if the process had already ended.
func (p *play) end(l *process) bool {
	p.mu.Lock()
	if l.over {
		p.mu.Unlock()
		return false
	}
	l.over = true
	p.mu.Unlock()
	runner, starter := p.fakes()
	runner, starter = runner.NextProcess(), starter.NextProcess()
	p.mu.Lock()
	p.runner, p.starter = runner, starter
	p.mu.Unlock()
	close(l.gone)
	return true
}

// The method "fakes" returns the clients of the last process.
func (p *play) fakes() (bgagenttest.Runner, bgagenttest.Starter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.runner, p.starter
}

// The method "outcome" reports whether the fault has happened, and whether a turn was running when
// a process ended.
func (p *play) outcome() (struck, fated bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.struck, p.fated
}

// The method "begin" starts a new process with a manager.
func (p *play) begin() *process {
	p.mu.Lock()
	p.lives++
	l := &process{p: p, no: p.lives, store: p.memory.Process(), gone: make(chan struct{})}
	p.life = l
	runner, starter := p.runner, p.starter
	p.mu.Unlock()
	cfg := p.sc.cfg
	cfg.Store, cfg.Notify, cfg.MaxDepth = l.store, l.notify, 5
	cfg.Clients = map[string]bgagent.SessionClient{"starter": starter}
	cfg.ClientFor = func(agent string) string {
		if strings.HasPrefix(agent, "s-") {
			return "starter"
		}
		return ""
	}
	m, err := bgagent.New(runner, cfg)
	if err != nil {
		p.t.Fatalf("New: %v", err)
	}
	p.mu.Lock()
	l.m = m
	p.mu.Unlock()
	for _, d := range m.Restored().Damage {
		p.book.fault("the record %s cannot be read: %s", d.Key, d.Problem)
	}
	if err := inside.CheckUnchanged(m); err != nil {
		p.book.fault("%v", err)
	}
	inside.CheckAlways(m, func(err error) { p.book.fault("invariant: %v", err) })
	return l
}

// manager returns the manager of the process, or nil until the manager is open. A turn that outlives
// a process might call this method while the next process opens its manager.
func (l *process) manager() *bgagent.BackgroundManager {
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	return l.m
}

// The method "alive" reports whether the process is still running.
func (l *process) alive() bool {
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	return !l.over
}

// The method "run" runs the scenario, with as many processes as needed, until nothing more happens.
func (p *play) run() {
	l := p.begin()
	var calls sync.WaitGroup
	var gone []*process
	for {
		own := l // the goroutines below can outlive this iteration of the loop
		tasks, sub := l.m.Subscribe(1 << 16)
		p.book.opens(l, tasks)
		calls.Go(func() {
			for {
				e, err := sub.Next(context.Background())
				if err != nil {
					return
				}
				p.book.event(own, e)
			}
		})
		l.m.Start()
		if l.no == 1 {
			calls.Go(func() { p.sc.host(own) })
		}
		if l.untilRest() {
			if l.no > 1 && p.lives > 4 || p.quietLife(l) {
				break
			}
		}
		synctest.Wait()
		closeNow(l.m)
		gone = append(gone, l)
		l = p.begin()
	}
	p.judge(l)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_ = l.m.Close(ctx)
	for _, l := range gone {
		closeNow(l.m)
	}
	runner, starter := p.fakes()
	runner.Close()
	starter.Close()
	calls.Wait()
}

// closeNow stops the goroutines of a manager whose process has ended.
func closeNow(m *bgagent.BackgroundManager) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	_ = m.Close(ctx)
}

// untilRest waits until every task is quiet and its end has been reported. It returns false if the
// process ends first.
func (l *process) untilRest() bool {
	quiet := 0
	for range 300 {
		select {
		case <-l.gone:
			return false
		case <-time.After(20 * time.Second):
		}
		if l.atRest() {
			if quiet++; quiet == 3 {
				return true
			}
		} else {
			quiet = 0
		}
	}
	l.p.book.fault("the tasks never come to rest: %+v", brief(l.m.List(bgagent.Query{})))
	return true
}

func (l *process) atRest() bool {
	for _, t := range l.m.List(bgagent.Query{}) {
		if !t.Quiet || t.Notice == bgagent.NoticeOwed {
			return false
		}
	}
	live, owed := l.m.Outstanding("root")
	return live+owed == 0
}

func brief(tasks []bgagent.Task) (out []string) {
	for _, t := range tasks {
		out = append(out, fmt.Sprintf("%s.%d %q %s %s %s quiet %v notice %q %s", t.ID, t.Attempt, t.Prompt, t.Status, t.Phase, t.Cause, t.Quiet, t.Notice, t.Reason))
	}
	return out
}

// quietLife ends the process while nothing is happening. It records the events so far, so that the
// method "judge" can check that the next process, which is the last one, does nothing. When called
// for the last process, quietLife only returns true.
func (p *play) quietLife(l *process) bool {
	if p.book.last {
		return true
	}
	p.book.last = true
	p.book.before = p.book.happened()
	p.crash(l)
	return false
}

// The method "notify" implements Config.Notify.
func (l *process) notify(_ context.Context, session string, n bgagent.Notice) error {
	if !l.alive() {
		return storetest.ErrDead
	}
	if session != "root" && session != "" { // notices to the host, whose session is "", are also accepted
		return bgagent.ErrNoSession
	}
	l.p.book.notice(l, n)
	return nil
}

// The method "script" simulates the agent. The text of the prompt describes what the agent does. A
// prompt that continues a turn contains the text of the earlier prompt.
func (p *play) script(t *bgagenttest.Turn) {
	p.mu.Lock()
	l := p.life
	p.mu.Unlock()
	turn := p.book.turn(t.Prompt)
	defer p.book.turnOver(turn)
	text := t.Prompt.Text
	has := func(word string) bool { return strings.Contains(text, word) }
	t.SaveState([]byte(t.Prompt.ID))
	if t.Prompt.Model == modelA {
		p.refuse(t)
	}
	p.book.says(turn, t, "first of "+t.Prompt.ID+"\x00 é; ")
	t.Tool("tool", 3*time.Second)
	if has("delegate") && t.Prompt.Notice == nil {
		p.delegate(l, t, text)
	}
	t.Sleep(8 * time.Second)
	if has("fail") {
		t.Fail(errAgent)
	}
	p.book.says(turn, t, "answer to "+t.Prompt.ID)
	t.Sleep(time.Second)
}

// The method "refuse" ends the turn as if its model provider had refused it.
func (p *play) refuse(t *bgagenttest.Turn) {
	t.Sleep(2 * time.Second)
	next := bgagent.NextContinue
	if strings.Contains(t.Prompt.Text, "repeat") {
		next = bgagent.NextRepeat
		p.book.keepsNothing(t.Prompt.ID)
	}
	t.Refuse(bgagent.ProviderError{Kind: bgagent.ProviderQuota, Next: next})
}

func (b *playBook) keepsNothing(id string) {
	b.Lock()
	defer b.Unlock()
	b.unheard[id] = true
}

var errAgent = fmt.Errorf("the agent failed on purpose")

// The method "delegate" launches the tasks that the prompt names, unless the session has already
// launched them.
func (p *play) delegate(l *process, t *bgagenttest.Turn, text string) {
	by := bgagent.Caller{Session: t.Session()}
	_, list, _ := strings.Cut(text, "delegate ")
	list, _, _ = strings.Cut(list, ".")
	for _, name := range strings.Split(list, "+") {
		own := l.manager().List(bgagent.Query{Parent: by.Session})
		if slices.ContainsFunc(own, func(x bgagent.Task) bool { return x.Prompt == name }) {
			continue
		}
		agent := "r-child"
		if strings.HasPrefix(name, "s") {
			agent = "s-child"
		}
		in := bgagent.LaunchInput{Agent: agent, Prompt: name}
		if strings.Contains(name, "now") {
			l.run(by, in)
		} else {
			l.launch(by, in)
		}
	}
}

func (l *process) launch(by bgagent.Caller, in bgagent.LaunchInput) bgagent.Task {
	task, err := l.manager().Launch(context.Background(), by, in)
	l.p.book.launched(l, in.Prompt, task, err)
	return task
}

func (l *process) run(by bgagent.Caller, in bgagent.LaunchInput) bgagent.Task {
	task, err := l.manager().Run(context.Background(), by, in)
	if l.alive() && err == nil {
		l.p.book.launched(l, in.Prompt, task, nil)
		l.p.book.returned(task)
		l.manager().Ack(itemID(task.ID, task.Attempt))
	} else if l.alive() && task.ID == "" {
		l.p.book.launched(l, in.Prompt, task, err)
	}
	return task
}

// itemID returns the id of the notice item for an attempt.
func itemID(task string, attempt int) string {
	return fmt.Sprintf("bgn_%s.%d", strings.TrimPrefix(task, "bg_"), attempt)
}

func (l *process) resume(ref, prompt string) bgagent.Task {
	task, err := l.m.Resume(context.Background(), root, ref, bgagent.ResumeInput{Prompt: prompt})
	l.p.book.launched(l, prompt, task, err)
	return task
}

// The method "send" sends a message, with its text as the key.
func (l *process) send(id, text string) {
	if id == "" {
		return
	}
	r, err := l.m.Send(context.Background(), root, id, bgagent.SendInput{Key: text, Text: text})
	l.p.book.sends(l, id, text, r, err)
}

func (l *process) cancel(id string) {
	if id == "" {
		return
	}
	task, err := l.m.Cancel(context.Background(), root, id, bgagent.CancelOptions{})
	l.p.book.cancelled(l, task, err)
}

// The method "until" waits for the task to end. It returns true if this process has seen the end.
func (l *process) until(id string) bool {
	if id == "" {
		return false
	}
	_, err := l.m.Wait(context.Background(), bgagent.Caller{}, bgagent.WaitAll, id)
	if err == nil {
		l.p.isStored(id)
	}
	return err == nil && l.alive()
}

// isStored checks that the store contains the end of a task whose end was shown.
func (p *play) isStored(id string) {
	for _, r := range p.memory.Records() {
		if r.Key == id && !r.Status.Terminal() {
			p.book.fault("%s was shown as ended, but the store has it as %s", id, r.Status)
		}
	}
}
