package bgagenttest

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/bgagent/bgagent"
)

// The functions in this file make clients violate the contract.

// The type "ended" holds the results of a runner's RunTurn.
type ended struct {
	bgagent.TurnEnd
	err error
}

// The function "after" makes RunTurn call the function "change", which can modify the results of
// the turn.
func after(b *badRunner, change func(id string, p bgagent.Prompt, e *ended)) {
	b.run = func(ctx context.Context, id string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
		end, err := b.Runner.RunTurn(ctx, id, p, r)
		e := ended{end, err}
		change(id, p, &e)
		return e.TurnEnd, e.err
	}
}

// The function "reading" makes Messages call the function "change", which can modify the page.
func reading(b *badRunner, change func(page *bgagent.Page)) {
	b.messages = func(ctx context.Context, id string, after bgagent.Cursor, most int) (bgagent.Page, error) {
		page, err := b.Runner.Messages(ctx, id, after, most)
		change(&page)
		return page, err
	}
}

// guardedSet is a set of sessions that is safe for concurrent use.
type guardedSet struct {
	mu  sync.Mutex
	set map[string]bool
}

func (g *guardedSet) add(id string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.set == nil {
		g.set = map[string]bool{}
	}
	g.set[id] = true
}

func (g *guardedSet) has(id string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.set[id]
}

var errBroken = errors.New("broken on purpose")

func repeatsIDs(b *badRunner) {
	var mu sync.Mutex
	var ids []string
	b.create = func(ctx context.Context, s bgagent.SessionSpec) (string, error) {
		mu.Lock()
		defer mu.Unlock()
		if len(ids) == 10 {
			return ids[0], nil
		}
		id, err := b.Runner.CreateSession(ctx, s)
		ids = append(ids, id)
		return id, err
	}
}

func hidesNoSuchAgent(b *badRunner) {
	b.create = func(ctx context.Context, s bgagent.SessionSpec) (string, error) {
		id, err := b.Runner.CreateSession(ctx, s)
		if err != nil {
			err = errBroken
		}
		return id, err
	}
}

func losesAnAnswer(b *badRunner) {
	b.run = func(ctx context.Context, id string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
		if !strings.Contains(p.Text, "banana") {
			return b.Runner.RunTurn(ctx, id, p, r)
		}
		_, err := b.Runner.RunTurn(ctx, id, p, nil)
		return bgagent.TurnEnd{Stop: bgagent.StopEndOfTurn}, err
	}
}

func endsAfterTwoTurns(b *badRunner) {
	var mu sync.Mutex
	turns := map[string]int{}
	b.run = func(ctx context.Context, id string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
		mu.Lock()
		turns[id]++
		n := turns[id]
		mu.Unlock()
		if n > 2 {
			return bgagent.TurnEnd{}, bgagent.ErrNoSession
		}
		return b.Runner.RunTurn(ctx, id, p, r)
	}
}

func forgetsWhatWasSaid(b *badRunner) {
	b.run = func(ctx context.Context, id string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
		if p.Text == "recall" {
			id, _ = b.Runner.CreateSession(ctx, bgagent.SessionSpec{Agent: p.Agent})
		}
		return b.Runner.RunTurn(ctx, id, p, r)
	}
}

func runsOneAtATime(b *badRunner) {
	slot := make(chan struct{}, 1)
	b.run = func(ctx context.Context, id string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
		select {
		case slot <- struct{}{}:
		case <-ctx.Done():
			return bgagent.TurnEnd{}, ctx.Err()
		}
		defer func() { <-slot }()
		return b.Runner.RunTurn(ctx, id, p, r)
	}
}

func mixesAnswersUp(b *badRunner) {
	var mu sync.Mutex
	last := ""
	b.run = func(ctx context.Context, id string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
		say := strings.HasPrefix(p.Text, "say ")
		mu.Lock()
		if say {
			last = p.Text
		}
		mu.Unlock()
		end, err := b.Runner.RunTurn(ctx, id, p, r)
		mu.Lock()
		defer mu.Unlock()
		if say && err == nil {
			end.Text = last
		}
		return end, err
	}
}

func abortsOnlyRunning(b *badRunner) {
	b.abort = func(ctx context.Context, id string) error {
		b.mu.Lock()
		s := b.sessions[id]
		idle := s != nil && s.run == nil
		b.mu.Unlock()
		if idle {
			return errBroken
		}
		return b.Runner.Abort(ctx, id)
	}
}

func abortsOnlyExisting(b *badRunner) {
	b.abort = func(ctx context.Context, id string) error {
		if id == missing {
			return bgagent.ErrNoSession
		}
		return b.Runner.Abort(ctx, id)
	}
}

// The function "dead" makes the sessions in the set refuse their prompts. After each turn, the
// client calls the function "kills". If this function returns true, the turn's session is added to
// the set.
func dead(b *badRunner, set *guardedSet, kills func(p bgagent.Prompt, e *ended) bool) {
	b.run = func(ctx context.Context, id string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
		if set.has(id) {
			return bgagent.TurnEnd{}, errBroken
		}
		end, err := b.Runner.RunTurn(ctx, id, p, r)
		if kills(p, &ended{end, err}) {
			set.add(id)
		}
		return end, err
	}
}

func reportsLate(b *badRunner) {
	b.run = func(ctx context.Context, id string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
		defer func() {
			go func() {
				time.Sleep(100 * time.Millisecond)
				r.Text("one thing more")
			}()
		}()
		return b.Runner.RunTurn(ctx, id, p, r)
	}
}

func ignoresContext(b *badRunner) {
	b.run = func(ctx context.Context, id string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
		return b.Runner.RunTurn(context.WithoutCancel(ctx), id, p, r)
	}
}

func renumbersTools(b *badRunner) {
	b.run = func(ctx context.Context, id string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
		n := 0
		return b.Runner.RunTurn(ctx, id, p, bgagent.NewReporter(func(x bgagent.Report) {
			switch x.Kind {
			case bgagent.ReportTool:
				n++
				x.Tool.ID += "." + strconv.Itoa(n)
				r.Tool(x.Tool)
			case bgagent.ReportText:
				r.Text(x.Text)
			case bgagent.ReportAsking:
				r.Asking(x.Text)
			}
		}))
	}
}

func tiesTurnToCall(b *badStarter) {
	b.start = func(ctx context.Context, id string, p bgagent.Prompt) error {
		err := b.Starter.StartTurn(ctx, id, p)
		context.AfterFunc(ctx, func() {
			time.Sleep(1500 * time.Millisecond) // so that the turn is still running when StartTurn returns, and the check finds out only in a later poll that it has ended
			b.mu.Lock()
			s := b.sessions[id]
			same := s != nil && s.run != nil && s.run.Prompt.ID == p.ID
			b.mu.Unlock()
			if same {
				_ = b.Starter.Abort(context.Background(), id)
			}
		})
		return err
	}
}

func takesRepeatsForNew(b *badStarter) {
	var mu sync.Mutex
	seen := map[string]int{}
	b.start = func(ctx context.Context, id string, p bgagent.Prompt) error {
		mu.Lock()
		seen[p.ID]++
		if n := seen[p.ID]; n > 1 {
			p.ID += "." + strconv.Itoa(n)
		}
		mu.Unlock()
		return b.Starter.StartTurn(ctx, id, p)
	}
}

func leavesOutUnused(b *badStarter) {
	b.statuses = func(ctx context.Context, ids []string) (map[string]bgagent.SessionStatus, error) {
		got, err := b.Starter.Statuses(ctx, ids)
		b.mu.Lock()
		defer b.mu.Unlock()
		for id := range got {
			if s := b.sessions[id]; s != nil && s.turns == 0 {
				delete(got, id)
			}
		}
		return got, err
	}
}

func idlesNowAndThen(b *badStarter) {
	var mu sync.Mutex
	looks := map[string]int{}
	b.statuses = func(ctx context.Context, ids []string) (map[string]bgagent.SessionStatus, error) {
		got, err := b.Starter.Statuses(ctx, ids)
		mu.Lock()
		defer mu.Unlock()
		for id := range got {
			if looks[id]++; looks[id]%7 == 0 {
				got[id] = bgagent.SessionStatus{State: bgagent.SessionIdle}
			}
		}
		return got, err
	}
}

func hidesFailures(b *badStarter) {
	b.messages = func(ctx context.Context, id string, after bgagent.Cursor, most int) (bgagent.Page, error) {
		page, err := b.Starter.Messages(ctx, id, after, most)
		for i, msg := range page.Messages {
			if msg.Stop == bgagent.StopError {
				page.Messages[i].Stop = bgagent.StopEndOfTurn
			}
		}
		return page, err
	}
	b.events = without(b, bgagent.HostError)
}

func without(b *badStarter, kind bgagent.HostEventKind) func(context.Context, func(bgagent.HostEvent)) error {
	return func(ctx context.Context, emit func(bgagent.HostEvent)) error {
		return b.Starter.Events(ctx, func(e bgagent.HostEvent) {
			if e.Kind != kind {
				emit(e)
			}
		})
	}
}

func neverEndsEvents(b *badStarter) {
	b.events = func(ctx context.Context, emit func(bgagent.HostEvent)) error {
		err := b.Starter.Events(ctx, emit)
		time.Sleep(time.Minute)
		return err
	}
}

func countsMessages(b *badRunner) {
	b.messages = func(ctx context.Context, id string, after bgagent.Cursor, most int) (bgagent.Page, error) {
		page, err := b.Runner.Messages(ctx, id, "", 1000)
		from, _ := strconv.Atoi(string(after))
		from = min(from, len(page.Messages))
		to := min(from+most, len(page.Messages))
		page.More = to < len(page.Messages)
		page.Messages, page.Next = page.Messages[from:to], bgagent.Cursor(strconv.Itoa(to))
		return page, err
	}
}

func startsAnew(b *badRunner) {
	b.messages = func(ctx context.Context, id string, _ bgagent.Cursor, most int) (bgagent.Page, error) {
		return b.Runner.Messages(ctx, id, "", most)
	}
}

func ignoresMax(b *badRunner) {
	b.messages = func(ctx context.Context, id string, after bgagent.Cursor, _ int) (bgagent.Page, error) {
		return b.Runner.Messages(ctx, id, after, 1000)
	}
}

func newestFirst(page *bgagent.Page) { slices.Reverse(page.Messages) }

func forgetsAll(b *badRunner) {
	b.forget = func(string) {
		b.mu.Lock()
		defer b.mu.Unlock()
		clear(b.sessions)
	}
}

func renamesNotices(b *badRunner) {
	var mu sync.Mutex
	n := 0
	b.notify = func(ctx context.Context, id string, notice bgagent.Notice) error {
		mu.Lock()
		n++
		if n > 1 {
			notice.ID += "." + strconv.Itoa(n)
		}
		mu.Unlock()
		return b.Runner.Notify(ctx, id, notice)
	}
}

// idleFirst delays each message until after the event that should follow it.
func idleFirst(b *badStarter) {
	b.events = func(ctx context.Context, emit func(bgagent.HostEvent)) error {
		var held []bgagent.HostEvent
		return b.Starter.Events(ctx, func(e bgagent.HostEvent) {
			if e.Kind == bgagent.HostMessage {
				held = append(held, e)
				return
			}
			emit(e)
			for _, e := range held {
				emit(e)
			}
			held = nil
		})
	}
}

// endsEarly makes RunTurn return after one second, before the late pieces of the answer
// arrive.
func endsEarly(b *badRunner) {
	b.run = func(ctx context.Context, id string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
		if !strings.HasPrefix(p.Text, "late") {
			return b.Runner.RunTurn(ctx, id, p, r)
		}
		over := make(chan ended, 1)
		go func() {
			end, err := b.Runner.RunTurn(ctx, id, p, r)
			over <- ended{end, err}
		}()
		select {
		case e := <-over:
			return e.TurnEnd, e.err
		case <-time.After(time.Second):
			return bgagent.TurnEnd{Stop: bgagent.StopEndOfTurn}, nil
		}
	}
}

// repeatsEnds makes RunTurn report the end of every tool call twice.
func repeatsEnds(b *badRunner) {
	b.run = func(ctx context.Context, id string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
		return b.Runner.RunTurn(ctx, id, p, bgagent.NewReporter(func(x bgagent.Report) {
			switch x.Kind {
			case bgagent.ReportText:
				r.Text(x.Text)
			case bgagent.ReportAsking:
				r.Asking(x.Text)
			case bgagent.ReportTool:
				r.Tool(x.Tool)
				if !x.Tool.State.InFlight() {
					r.Tool(x.Tool)
				}
			}
		}))
	}
}
