package hammer

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bgagent/bgagent"
)

// oracle records the activities at the hosts and the reports of the manager, and compares
// them. For each contradiction, it adds a description to the field "faults". A run ends at the
// first fault.
type oracle struct {
	mu     sync.Mutex
	seed   uint64
	m      *bgagent.BackgroundManager
	faults []string
	trace  []string
	began  time.Time

	limits    bgagent.Limits
	limitsAt  time.Time // time of the last change to the limits
	closedAt  time.Time // time of the first call to Close
	runs      map[*activity]struct{}
	granted   map[string]bool // tasks whose session was created, but that have had no prompt since
	forced    map[string]bool // tasks that were running when the process began; their slots can exceed the limits
	suspects  []suspect
	promptIDs map[string]bool
	repeats   map[string]bool         // ids of refused prompts that left nothing in the session
	unheard   map[string]bool         // ids of the notices that were sent with the prompts in repeats
	refused   map[string]time.Time    // time of the first failure, by prompt id; only for prompts that could not reach the host
	answers   map[attemptKey][]string // prompt ids of each attempt
	draws     map[string]uint64

	seq       uint64
	ends      map[attemptKey]bgagent.Cause
	notices   map[attemptKey]bgagent.NoticeState
	overran   map[attemptKey]*life // the process that gave up waiting for the attempt to stop
	quiets    map[attemptKey]int
	aborted   map[string]bool                // sessions that were aborted
	seen      map[attemptKey]map[string]bool // ids of the notices about the attempt that were shown to a host
	delivered map[attemptKey]string          // id of the delivered notice about the attempt
	carrier   map[attemptKey]*life           // the process that delivered that notice
	found     map[attemptKey]bool            // notices that were settled, but not given up, in the store when the process began
	overLimit int
	life      *life
	pulls     map[attemptKey]bool     // whether the last delivery of the notice was a pull, such as a call to TakeNotice
	pulled    map[attemptKey]bool     // latest values of the field "pulls" in earlier processes; a later process might not know about the pull
	deaths    []time.Time             // when processes ended
	noParent  map[string]bool         // sessions that were reported as deleted
	deleted   map[string]bool         // tasks for which Forget was called, and whether it has succeeded
	earlier   map[attemptKey]bool     // notices that an earlier process settled; a later process might not know this
	super     map[attemptKey]bool     // attempts that were superseded
	messages  map[sentMessage]bool    // messages that were accepted
	named     map[sentMessage]bool    // messages that were reported as unconsumed when the task ended
	got       map[sentMessage]string  // ids of the prompts with these messages
	chosen    map[openQuestion]string // the answers that count
	options   map[string]*answering   // by the subject of the question
	again     map[string][]string     // for each task, the prompts that continue an interrupted turn
	calls     map[string]*host        // hosts of the prompts that the current process sent; some of the prompts might not have arrived
	healed    bool
	heal      chan struct{}
	rate      float64 // probability of a fault
	// storeDelay is an upper bound for the time between the grant of a slot and the next call to
	// the host. It is needed because, with a store, the manager writes in between. In a run with
	// crashes, some of these writes fail and are repeated.
	storeDelay time.Duration
	stubborn   bool // whether the hosts ignore the contexts of calls
	lasting    bool // whether every turn takes at least 30 s
}

type attemptKey struct {
	task string
	no   int
}

// activity is an action at a host that needs a slot: the creation of a session, the delivery of a prompt, or
// a turn.
type activity struct {
	what  string
	key   attemptKey
	model string
	agent string
	lied  bool

	prompt string
	life   *life // process that made the call; nil for a turn on a server
	parked bool  // whether the turn waits for an answer and has no slot
	orphan bool  // whether the turn continues after the end of its process
}

type suspect struct {
	pool  string
	limit int
	at    time.Duration
	who   []*activity
}

func newOracle(seed uint64) *oracle {
	return &oracle{
		seed: seed, began: time.Now(), runs: map[*activity]struct{}{}, granted: map[string]bool{}, promptIDs: map[string]bool{}, refused: map[string]time.Time{}, repeats: map[string]bool{}, unheard: map[string]bool{},
		answers: map[attemptKey][]string{}, draws: map[string]uint64{}, ends: map[attemptKey]bgagent.Cause{},
		notices: map[attemptKey]bgagent.NoticeState{}, overran: map[attemptKey]*life{}, quiets: map[attemptKey]int{},
		aborted: map[string]bool{}, seen: map[attemptKey]map[string]bool{}, delivered: map[attemptKey]string{}, carrier: map[attemptKey]*life{}, found: map[attemptKey]bool{}, pulls: map[attemptKey]bool{}, pulled: map[attemptKey]bool{}, earlier: map[attemptKey]bool{},
		super: map[attemptKey]bool{}, noParent: map[string]bool{}, deleted: map[string]bool{}, calls: map[string]*host{},
		messages: map[sentMessage]bool{}, named: map[sentMessage]bool{}, got: map[sentMessage]string{}, again: map[string][]string{}, chosen: map[openQuestion]string{}, options: map[string]*answering{}, heal: make(chan struct{}),
	}
}

// draw returns a source of random numbers for one call. The numbers depend on the seed, on the
// kind and the name, and on the number of earlier draws for the same kind and name. They do
// not depend on when other goroutines make their calls.
func (o *oracle) draw(kind, name string) *rand.Rand {
	o.mu.Lock()
	key := kind + " " + name
	n := o.draws[key]
	o.draws[key]++
	o.mu.Unlock()
	h := fnv.New64a()
	fmt.Fprintf(h, "%d %s %d", o.seed, key, n)
	return rand.New(rand.NewPCG(o.seed, h.Sum64()))
}

func (o *oracle) log(format string, args ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.logLocked(format, args...)
}

func (o *oracle) logLocked(format string, args ...any) {
	o.trace = append(o.trace, fmt.Sprintf("%12v ", time.Since(o.began))+fmt.Sprintf(format, args...))
}

func (o *oracle) fault(format string, args ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.faultLocked(format, args...)
}

func (o *oracle) faultLocked(format string, args ...any) {
	o.logLocked("FAULT "+format, args...)
	o.faults = append(o.faults, fmt.Sprintf(format, args...))
}

func (o *oracle) isHealed() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.healed
}

// healAll stops the injection of faults and releases all hanging calls.
func (o *oracle) healAll() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.healed {
		o.healed = true
		close(o.heal)
		o.logLocked("the host is healed")
	}
}

// The method "broken" decides at random whether to inject a fault.
func (o *oracle) broken(r *rand.Rand) bool {
	x := r.Float64()
	return !o.isHealed() && x < o.rate
}

// limit holds the name of a pool or cap and the maximum number of its slots.
type limit struct {
	name string
	most int
}

// limitsLocked returns the pool and the caps that apply to an activity under the current
// limits.
func (o *oracle) limitsLocked(model, agent string) []limit {
	all := []limit{o.poolLocked(model, agent)}
	if n := o.limits.Agent[agent]; n > 0 {
		all = append(all, limit{"cap " + agent, n})
	}
	if o.limits.Total > 0 {
		all = append(all, limit{"total", o.limits.Total})
	}
	return all
}

func (o *oracle) poolLocked(model, agent string) limit {
	def := o.limits.Default
	if model == "" {
		if o.limits.Agent[agent] != 0 {
			def = bgagent.Unlimited
		}
		return limit{"agent " + agent, def}
	}
	provider, bare, _ := strings.Cut(model, "/")
	if n := o.limits.Model[model]; n != 0 {
		return limit{"model " + model, n}
	}
	if n := o.limits.Model[bare]; n != 0 {
		return limit{"model " + bare, n}
	}
	if n := o.limits.Provider[provider]; n != 0 {
		return limit{"provider " + provider, n}
	}
	return limit{"default " + model, def}
}

// begin records the start of an activity. If grant is true, the attempt got its slot under the current
// limits. In that case, the method "begin" also checks that these limits allow the activity.
func (o *oracle) begin(a *activity, grant bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.logLocked("%s of %s.%d begins", a.what, a.key.task, a.key.no)
	o.runs[a] = struct{}{}
	if !grant || o.forced[a.key.task] || o.limitsAt.Equal(time.Now()) || time.Since(o.limitsAt) < o.storeDelay {
		return
	}
	for _, l := range o.limitsLocked(a.model, a.agent) {
		o.suspectLocked(l)
	}
}

// suspectLocked records a suspect if more attempts are running than the limit allows.
func (o *oracle) suspectLocked(l limit) {
	var who []*activity
	tasks := map[attemptKey]bool{}
	for b := range o.runs {
		if !b.lied && !b.parked && !tasks[b.key] && slices.Contains(o.limitsLocked(b.model, b.agent), l) {
			tasks[b.key] = true
			who = append(who, b)
		}
	}
	if l.most != bgagent.Unlimited && len(who) > l.most {
		o.suspects = append(o.suspects, suspect{l.name, l.most, time.Since(o.began), who})
	}
}

// runsLocked reports whether an activity of the attempt is running.
func (o *oracle) runsLocked(task string, no int) bool {
	for a := range o.runs {
		if a.key == (attemptKey{task, no}) {
			return true
		}
	}
	return false
}

func (o *oracle) end(a *activity) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, ok := o.runs[a]; ok {
		o.logLocked("%s of %s.%d is over", a.what, a.key.task, a.key.no)
	}
	delete(o.runs, a)
}

// The method "clear" examines the suspects. It must be called after all events have been read. It ignores
// attempts that did not stop in time, because the manager reported them with EventOverLimit. If the
// process died, the report might have been lost, so the method "clear" ignores all ended attempts.
func (o *oracle) clear() {
	o.mu.Lock()
	defer o.mu.Unlock()
	died := o.life != nil && o.life.over.Load()
	for _, s := range o.suspects {
		n := 0
		var names []string
		for _, a := range s.who {
			_, ended := o.ends[a.key]
			if o.overran[a.key] == nil && !a.lied && !(died && ended) {
				n++
				names = append(names, fmt.Sprintf("%s of %s.%d", a.what, a.key.task, a.key.no))
			}
		}
		if n > s.limit {
			o.faultLocked("at %v: %d run in pool %q with a limit of %d: %v", s.at, n, s.pool, s.limit, names)
		}
	}
	o.suspects = nil
}

// slotIsNew reports whether a slot that was granted at the given time was granted under the
// current limits. Slots that were granted under earlier limits may exceed the current limits.
func (o *oracle) slotIsNew(at time.Time) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return at.Add(-o.storeDelay).After(o.limitsAt)
}

// The method "refuse" records that a prompt could not reach the host. The task keeps its slot. The
// prompt may be sent again.
func (o *oracle) refuse(l *life, p bgagent.Prompt, at time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if l.over.Load() { // the process has ended, so another process may have sent the prompt
		return
	}
	o.logLocked("prompt %s cannot reach the host", p.ID)
	delete(o.promptIDs, p.ID)
	if _, again := o.refused[p.ID]; !again {
		o.refused[p.ID] = at
	}
}

// prompted is called for each prompt and checks the rules that apply to every prompt. If the process has
// ended, it does nothing and returns false.
func (o *oracle) prompted(l *life, f *host, session string, p bgagent.Prompt) bool {
	key := attemptKey{p.Task, p.Attempt}
	t, err := l.m.Get(p.Task)
	o.mu.Lock()
	defer o.mu.Unlock()
	if l.over.Load() {
		return false
	}
	o.logLocked("prompt %s into %s (turn %d)", p.ID, session, p.Turn)
	now := time.Now()
	if o.promptIDs[p.ID] {
		o.faultLocked("prompt %s arrived twice", p.ID)
	}
	o.promptIDs[p.ID], o.calls[p.ID] = true, f
	o.answers[key] = append(o.answers[key], p.ID)
	o.messageLocked(p)
	switch {
	case err != nil:
		o.faultLocked("prompt %s of an unknown task: %v", p.ID, err)
	case t.Session != session:
		o.faultLocked("prompt %s goes to %s, but the task's session is %s", p.ID, session, t.Session)
	case t.Attempt != p.Attempt && t.Queued.Before(now):
		o.faultLocked("prompt %s of attempt %d during attempt %d", p.ID, p.Attempt, t.Attempt)
	case t.Attempt == p.Attempt && t.Status.Terminal() && t.Ended.Before(now):
		o.faultLocked("prompt %s after the task ended (%s)", p.ID, t.Cause)
	case t.Status == bgagent.Pending && t.Attempt == p.Attempt:
		o.faultLocked("prompt %s while the task is pending", p.ID)
	}
	if !o.closedAt.IsZero() && o.closedAt.Before(now) {
		o.faultLocked("prompt %s after Close", p.ID)
	}
	if p.Notice != nil {
		o.shownLocked(*p.Notice)
	}
	return true
}

// The method "event" checks and records one event from the manager of the process l. It must be
// called for each event.
func (o *oracle) event(l *life, e bgagent.Event) {
	o.mu.Lock()
	defer o.mu.Unlock()
	t := e.Task
	key := attemptKey{t.ID, t.Attempt}
	if l.over.Load() && e.Kind != bgagent.EventEnded && e.Kind != bgagent.EventSuperseded {
		if _, known := o.notices[key]; e.Kind == bgagent.EventNotice && !known { // recorded now, because the next process might not settle the notice again
			o.notices[key], o.earlier[key] = t.Notice, true
		}
		return
	}
	o.logLocked("event %s %s.%d %s %s %s", e.Kind, t.ID, t.Attempt, t.Status, t.Phase, t.Cause)
	if l == o.life && !l.over.Load() {
		if e.Kind == bgagent.EventMissed || o.seq != 0 && e.Seq != o.seq+1 {
			o.faultLocked("event %d after %d (%s)", e.Seq, o.seq, e.Kind)
		}
		o.seq = e.Seq
	}
	_, ended := o.ends[key]
	switch e.Kind {
	case bgagent.EventLaunched, bgagent.EventResumed:
		if t.Status != bgagent.Pending {
			o.faultLocked("the status of %s.%d changes from %s to %s", t.ID, t.Attempt, t.Status, e.Kind)
		}
	case bgagent.EventStarted, bgagent.EventPhase, bgagent.EventProgress:
		if ended || t.Status != bgagent.Running && e.Kind != bgagent.EventPhase {
			o.faultLocked("%s of %s.%d, which is %s", e.Kind, t.ID, t.Attempt, t.Status)
		}
	case bgagent.EventEnded:
		if ended {
			o.faultLocked("%s.%d ended twice", t.ID, t.Attempt)
		}
		delete(o.forced, t.ID)
		o.ends[key] = t.Cause
		if !t.Status.Terminal() || t.Cause.Status() != t.Status {
			o.faultLocked("%s.%d ended as %s for %s", t.ID, t.Attempt, t.Status, t.Cause)
		}
		o.endedLocked(t)
		o.resultLocked(t)
	case bgagent.EventSuperseded:
		if ended || o.super[key] {
			o.faultLocked("%s.%d is superseded after its end", t.ID, t.Attempt)
		}
		o.super[key] = true
	case bgagent.EventNotice:
		if was, twice := o.notices[key]; twice && !o.earlier[key] {
			o.faultLocked("notice of %s.%d settled twice: %s, %s", t.ID, t.Attempt, was, t.Notice)
		}
		if !t.Notice.Settled() {
			o.faultLocked("notice of %s.%d settled as %q", t.ID, t.Attempt, t.Notice)
		}
		o.notices[key] = t.Notice
		delete(o.earlier, key)
	case bgagent.EventOverLimit:
		// The attempt that did not stop may be older than the attempt in the event. Newer attempts may have
		// been queued and cancelled while they waited for the older attempt.
		for no := t.Attempt; no > 0; no-- {
			o.overran[attemptKey{t.ID, no}] = l
			if o.runsLocked(t.ID, no) {
				break
			}
		}
		o.overLimit++
		// If stopping an attempt has crashed the process several times, the next process immediately gives
		// up on stopping it, without a call to Abort.
		if t.Session != "" && o.closedAt.IsZero() && !o.aborted[t.Session] && time.Since(l.began) > time.Second {
			o.faultLocked("%s.%d was given up, but its session %s was never aborted", t.ID, t.Attempt, t.Session)
		}
	case bgagent.EventQuiet:
		if o.quiets[key]++; o.quiets[key] > 2 {
			o.faultLocked("%s.%d became quiet twice", t.ID, t.Attempt)
		}
	}
}

func (o *oracle) invariant(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.faults) == 0 {
		o.faultLocked("invariant: %v\n%s", err, debug.Stack())
	}
}

// isOver reports whether the task's attempt missed its stopping deadline.
func (o *oracle) isOver(t bgagent.Task) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.overran[attemptKey{t.ID, t.Attempt}] != nil
}

func (o *oracle) manager() *bgagent.BackgroundManager {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.m
}

// The method "abort" records that a session is about to be aborted.
func (o *oracle) abort(session string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.logLocked("abort of %s", session)
	o.aborted[session] = true
}

// resultLocked checks that the result of a completed attempt is an answer to a prompt of that
// attempt. An attempt that replaced others also has the answers to the messages that those attempts
// received.
func (o *oracle) resultLocked(t bgagent.Task) {
	if t.Status != bgagent.Completed || t.Result == "" {
		return
	}
	for no := t.Attempt; no == t.Attempt || o.super[attemptKey{t.ID, no}]; no-- {
		for _, id := range o.answers[attemptKey{t.ID, no}] {
			if strings.Contains(t.Result, "answer to "+id+";") {
				return
			}
		}
	}
	o.faultLocked("%s.%d completed (%s) with a foreign result: %.100q", t.ID, t.Attempt, t.Cause, t.Result)
}
