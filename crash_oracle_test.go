package bgagent_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/bgagenttest"
)

type attemptOf struct {
	task string
	no   int
}

// playBook records what can be observed from outside the processes.
type playBook struct {
	*sync.Mutex
	began     time.Time
	faults    []string
	trace     []string
	accepted  map[attemptOf]string // prompt of each accepted attempt
	uncertain []string             // prompts of launches and resumes with an uncertain result
	refused   map[string]bool      // prompts of launches and resumes that were refused
	cancels   map[attemptOf]time.Time
	shown     map[attemptOf]shownEnd
	ended     map[attemptOf]int // number of EventEnded events
	super     map[attemptOf]bool
	turns     []*playedTurn
	notices   []playedNotice
	read      map[attemptOf]bool // attempts that Run has returned as ended
	created   []string           // titles of the sessions that the manager told the client to create

	sent   map[[2]string]bool // messages that were accepted, by task and text
	denied map[string]bool    // messages that were refused

	secondWrites int
	unheard      map[string]bool // ids of prompts whose refused turns left nothing in the session
	last         bool            // the last process, which only reads, has begun
	before       string          // summary of the events before the last process
}

// shownEnd is an attempt's end, as a caller has seen it.
type shownEnd struct {
	status bgagent.Status
	cause  bgagent.Cause
	result string
}

func (e shownEnd) String() string { return fmt.Sprintf("%s (%s, %q)", e.status, e.cause, e.result) }

type playedTurn struct {
	prompt bgagent.Prompt
	began  time.Time
	said   []string // all texts that could be the answer
}

type playedNotice struct {
	life   int
	at     time.Time
	notice bgagent.Notice
}

func newPlayBook() playBook {
	return playBook{
		Mutex: &sync.Mutex{}, began: time.Now(), accepted: map[attemptOf]string{}, refused: map[string]bool{}, cancels: map[attemptOf]time.Time{},
		shown: map[attemptOf]shownEnd{}, ended: map[attemptOf]int{}, super: map[attemptOf]bool{}, read: map[attemptOf]bool{},
		sent: map[[2]string]bool{}, denied: map[string]bool{}, unheard: map[string]bool{},
	}
}

func (b *playBook) logLocked(format string, args ...any) {
	b.trace = append(b.trace, fmt.Sprintf("%10v ", time.Since(b.began))+fmt.Sprintf(format, args...))
}

func (b *playBook) fault(format string, args ...any) {
	b.Lock()
	defer b.Unlock()
	b.faultLocked(format, args...)
}

func (b *playBook) faultLocked(format string, args ...any) {
	b.logLocked("FAULT "+format, args...)
	b.faults = append(b.faults, fmt.Sprintf(format, args...))
}

// The method "launched" is called with the result of Launch or Resume.
func (b *playBook) launched(l *process, prompt string, t bgagent.Task, err error) {
	alive := l.alive()
	b.Lock()
	defer b.Unlock()
	b.logLocked("life %d: %q launched or resumed: %s.%d %v (alive %v)", l.no, prompt, t.ID, t.Attempt, err, alive)
	switch {
	case err == nil:
		b.accepted[attemptOf{t.ID, t.Attempt}] = prompt
	case !alive || errors.Is(err, bgagent.ErrUncertain):
		b.uncertain = append(b.uncertain, prompt)
	default:
		b.refused[prompt] = true
	}
}

// The method "returned" is called with a task that Run has returned. It ignores a task that has
// not ended.
func (b *playBook) returned(t bgagent.Task) {
	b.Lock()
	defer b.Unlock()
	if t.Status.Terminal() {
		b.read[attemptOf{t.ID, t.Attempt}] = true
		b.showsLocked(t, "Run")
	}
}

func (b *playBook) cancelled(l *process, t bgagent.Task, err error) {
	alive := l.alive()
	b.Lock()
	defer b.Unlock()
	b.logLocked("life %d: cancelled %s.%d %s: %v (alive %v)", l.no, t.ID, t.Attempt, t.Status, err, alive)
	if err == nil {
		b.cancels[attemptOf{t.ID, t.Attempt}] = time.Now()
	}
}

// The method "opens" is called with the tasks that a process shows when it begins.
func (b *playBook) opens(l *process, tasks []bgagent.Task) {
	b.Lock()
	defer b.Unlock()
	b.logLocked("life %d begins with %s", l.no, strings.Join(brief(tasks), "; "))
	for _, t := range tasks {
		if t.Status.Terminal() {
			b.showsLocked(t, "a new process")
		} else if end, is := b.shown[attemptOf{t.ID, t.Attempt}]; is {
			b.faultLocked("%s.%d was shown as %s, but a new process shows it as %s", t.ID, t.Attempt, end.status, t.Status)
		}
	}
}

func (b *playBook) showsLocked(t bgagent.Task, by string) {
	key := attemptOf{t.ID, t.Attempt}
	end := shownEnd{t.Status, t.Cause, t.Result}
	if was, is := b.shown[key]; is && was != end {
		b.faultLocked("%s.%d was shown as %v, but %s shows it as %v", t.ID, t.Attempt, was, by, end)
	}
	b.shown[key] = end
}

func (b *playBook) creates(title string) {
	b.Lock()
	defer b.Unlock()
	b.created = append(b.created, title)
}

func (b *playBook) event(l *process, e bgagent.Event) {
	b.Lock()
	defer b.Unlock()
	t := e.Task
	key := attemptOf{t.ID, t.Attempt}
	b.logLocked("life %d: %s %s.%d %s %s %s", l.no, e.Kind, t.ID, t.Attempt, t.Status, t.Phase, t.Cause)
	switch e.Kind {
	case bgagent.EventEnded:
		if b.ended[key]++; b.ended[key] > 1 {
			b.faultLocked("%s.%d ended %d times", t.ID, t.Attempt, b.ended[key])
		}
		if b.super[key] {
			b.faultLocked("%s.%d ended, but was also superseded", t.ID, t.Attempt)
		}
		b.showsLocked(t, "an event")
	case bgagent.EventSuperseded:
		b.super[key] = true
		if b.ended[key] > 0 {
			b.faultLocked("%s.%d was superseded after its end", t.ID, t.Attempt)
		}
	}
}

func (b *playBook) notice(l *process, n bgagent.Notice) {
	b.Lock()
	defer b.Unlock()
	b.logLocked("life %d: notice %s: %d items", l.no, n.ID, len(n.Items))
	b.notices = append(b.notices, playedNotice{l.no, time.Now(), n})
}

func (b *playBook) turn(p bgagent.Prompt) *playedTurn {
	b.Lock()
	defer b.Unlock()
	b.logLocked("turn %s begins: %q", p.ID, p.Text)
	t := &playedTurn{prompt: p, began: time.Now(), said: []string{"ok"}}
	b.turns = append(b.turns, t)
	if p.Notice != nil {
		b.notices = append(b.notices, playedNotice{0, time.Now(), *p.Notice})
	}
	return t
}

func (b *playBook) turnOver(t *playedTurn) {
	b.Lock()
	defer b.Unlock()
	b.logLocked("turn %s is over", t.prompt.ID)
}

func (b *playBook) says(p *playedTurn, t *bgagenttest.Turn, text string) {
	b.Lock()
	p.said = append(p.said, text)
	b.Unlock()
	t.Say(text)
}

// The method "happened" returns a summary of the events so far.
func (b *playBook) happened() string {
	b.Lock()
	defer b.Unlock()
	return fmt.Sprintf("%d turns, %d notices, ends %v", len(b.turns), len(b.notices), slices.Sorted(maps.Keys(b.endedBy())))
}

func (b *playBook) endedBy() map[string]int {
	out := map[string]int{}
	for key, n := range b.ended {
		out[fmt.Sprint(key)] = n
	}
	return out
}

// storedState contains the fields that the oracle reads from a task's record in the store.
type storedState struct {
	Attempt int
	Status  bgagent.Status
	Cause   bgagent.Cause
	Notice  bgagent.NoticeState
	End     struct{ Result string }
	Past    []bgagent.Attempt
	Letters []struct {
		Key   string
		State bgagent.MessageState
	}

	result, prompt string
}

// The method "judge" compares the events with the manager's promises; l is the last process.
func (p *play) judge(l *process) {
	b := &p.book
	runner, starter := p.fakes()
	if now := b.happened(); b.last && now != b.before {
		b.fault("a process that had nothing to do did something: before %s, now %s", b.before, now)
	}
	for _, v := range append(runner.Violations(), starter.Violations()...) {
		b.fault("a client saw: %s", v)
	}
	said := map[[2]string]bgagenttest.Receipt{}
	for _, r := range append(runner.Received(), starter.Received()...) {
		if r.Times+r.Repeats > r.Lost+1 {
			b.fault("%s got %s %d times, and lost it %d times", r.Session, r.ID, r.Times+r.Repeats, r.Lost)
		}
		if was, is := said[[2]string{r.Session, r.Text}]; is && was.Times > was.Lost && !b.unheard[was.ID] && !strings.Contains(r.Text, "The request was:") {
			b.fault("%s got the text of %s again, as prompt %s", r.Session, was.ID, r.ID)
		}
		said[[2]string{r.Session, r.Text}] = r
	}
	states := p.stored(l)
	b.Lock()
	defer b.Unlock()
	for key, prompt := range b.accepted {
		x, is := states[key.task]
		if !is || x.Attempt < key.no {
			b.faultLocked("%s.%d (%q) was accepted, but the store does not have it", key.task, key.no, prompt)
		}
	}
	for key, end := range b.shown {
		if x, is := states[key.task]; is && x.Attempt == key.no && (x.Status != end.status || x.Cause != end.cause || x.result != end.result) {
			b.faultLocked("%s.%d was shown as %v, but the store has %v", key.task, key.no, end, shownEnd{x.Status, x.Cause, x.result})
		}
	}
	for id, x := range states {
		b.judgeTask(p, id, x)
	}
	known := slices.Collect(maps.Values(b.accepted))
	for _, x := range states {
		known = append(known, x.prompt)
	}
	for _, title := range b.created {
		if !slices.Contains(known, title) {
			b.faultLocked("a session was created for %q, which the store does not have", title)
		}
	}
	b.judgeTurns()
	b.judgeMessages(states)
	if f := p.fault; f.again == 0 && (f.fate == bgagenttest.FateAnswered || f.fate == bgagenttest.FateUnknown || f.fate == bgagenttest.FateLost) {
		for _, r := range runner.Received() {
			if strings.Contains(r.Text, "The request was:") {
				b.faultLocked("%s continues a turn that was not cut off, or whose session might have the prompt", r.ID)
			}
		}
	}
	b.judgeNotices(states)
	for id, status := range p.sc.ends(p, states) {
		if states[id].Status != status {
			b.faultLocked("%s ends as %s for %s, not as %s", id, states[id].Status, states[id].Cause, status)
		}
	}
	if n := runner.Peak(""); p.sc.cfg.Limits.Default > 0 && n > p.sc.cfg.Limits.Default {
		b.faultLocked("%d turns ran at the same time, with a limit of %d", n, p.sc.cfg.Limits.Default)
	}
	if n := starter.Peak(""); p.sc.cfg.Limits.Default > 0 && n > p.sc.cfg.Limits.Default {
		b.faultLocked("%d turns ran at the same time, with a limit of %d", n, p.sc.cfg.Limits.Default)
	}
}

// The method "stored" returns all tasks in the store.
func (p *play) stored(l *process) map[string]*storedState {
	out := map[string]*storedState{}
	for _, r := range p.memory.Records() {
		if r.Kind != bgagent.StoreTask {
			continue
		}
		x := &storedState{}
		if err := json.Unmarshal(r.Data, x); err != nil {
			p.book.fault("the record of %s: %v", r.Key, err)
		}
		read := func(name string) string {
			text, err := l.store.Text(context.Background(), r.Key, name)
			if err != nil {
				p.book.fault("the text %s of %s: %v", name, r.Key, err)
			}
			return text
		}
		if x.End.Result != "" {
			x.result = read(x.End.Result)
		}
		x.prompt = read(fmt.Sprintf("prompt.%d", x.Attempt))
		out[r.Key] = x
	}
	return out
}

func (b *playBook) judgeTask(p *play, id string, x *storedState) {
	if !x.Status.Terminal() {
		b.faultLocked("at rest, the store has %s.%d as %s", id, x.Attempt, x.Status)
		return
	}
	if !x.Notice.Settled() {
		b.faultLocked("at rest, the notice of %s.%d is %q", id, x.Attempt, x.Notice)
	}
	if b.refused[x.prompt] && !slices.Contains(slices.Collect(maps.Values(b.accepted)), x.prompt) {
		b.faultLocked("%s.%d (%q) was refused, but the store has it", id, x.Attempt, x.prompt)
	}
	if x.Status != bgagent.Completed {
		return
	}
	result := b.judgeAnswers(id, x)
	for _, t := range b.turns {
		// A result with answers to messages begins with the text of the last turn that did not answer
		// a message. This turn can belong to an earlier attempt.
		mine := t.prompt.Task == id && (t.prompt.Attempt == x.Attempt || result != x.result)
		if mine && (slices.Contains(t.said, result) || result == strings.Join(t.said[1:], "")) {
			return
		}
	}
	b.faultLocked("%s.%d has a result that its agent did not give: %q", id, x.Attempt, x.result)
}

func (b *playBook) judgeTurns() {
	for _, t := range b.turns {
		key := attemptOf{t.prompt.Task, t.prompt.Attempt}
		if at, is := b.cancels[key]; is && t.began.After(at) {
			b.faultLocked("turn %s began after its attempt was cancelled", t.prompt.ID)
		}
		for prompt := range b.refused {
			if t.prompt.Text == prompt && !slices.Contains(slices.Collect(maps.Values(b.accepted)), prompt) {
				b.faultLocked("turn %s began, although %q was refused", t.prompt.ID, prompt)
			}
		}
		for prev, at := range b.cancels {
			if prev.task == key.task && key.no > prev.no && t.began.After(at) && b.accepted[key] == "" && b.super[prev] {
				b.faultLocked("turn %s continues a cancelled attempt", t.prompt.ID)
			}
		}
	}
}

// judgeNotices checks which ends were reported to which sessions.
func (b *playBook) judgeNotices(states map[string]*storedState) {
	told := map[attemptOf][]playedNotice{}
	texts := map[string]string{}
	for _, n := range b.notices {
		if was, is := texts[n.notice.ID]; is && was != n.notice.Text {
			b.faultLocked("the notice %s has two texts:\n%s\n%s", n.notice.ID, was, n.notice.Text)
		}
		texts[n.notice.ID] = n.notice.Text
		for _, it := range n.notice.Items {
			key := attemptOf{it.Task, it.Attempt}
			if it.ID != itemID(it.Task, it.Attempt) {
				b.faultLocked("the item about %v has the id %s", key, it.ID)
			}
			for _, before := range told[key] {
				if before.notice.ID != n.notice.ID {
					b.faultLocked("%v was reported by the notices %s and %s", key, before.notice.ID, n.notice.ID)
				} else if before.life == n.life && n.life > 0 {
					b.faultLocked("one process reported %v twice", key)
				}
			}
			told[key] = append(told[key], n)
			if x := states[it.Task]; x != nil && x.Attempt == it.Attempt && x.Status != it.Status {
				b.faultLocked("%v was reported as %s, but is %s", key, it.Status, x.Status)
			}
		}
	}
	for id, x := range states {
		for _, past := range x.Past {
			key := attemptOf{id, past.Number}
			if past.Cause != bgagent.CauseSuperseded && (!past.Notice.Settled() || past.Notice == bgagent.NoticeDelivered && len(told[key]) == 0) {
				b.faultLocked("the notice of %v is %q, but the end was reported %d times", key, past.Notice, len(told[key]))
			}
		}
		key := attemptOf{id, x.Attempt}
		if x.Notice == bgagent.NoticeDelivered && len(told[key]) == 0 {
			b.faultLocked("the notice of %v counts as delivered, but nobody got it", key)
		}
		if x.Notice == bgagent.NoticeRead && !b.read[key] {
			b.faultLocked("the notice of %v counts as read, but nobody read it", key)
		}
	}
}
