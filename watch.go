package bgagent

import (
	"hash/maphash"
	"math"
	"slices"
	"strings"
)

// watch is what a running turn has shown so far: of a runner through its
// reporter, of a starter through messages, statuses and events.
type watch struct {
	turn
	promptID string
	old      map[string]struct{}   // messages of earlier turns that might still be returned
	past     pastMessages          // the last ones of earlier attempts, for the same reason
	calls    map[callKey]*toolCall // those that messages have told
	open     map[string]*toolCall  // those in flight, by the id that the agent gave them
	prog     progress              // of all turns
	flying   int                   // tools in flight
	reported bool                  // a runner has reported something
	pieces   strings.Builder       // of a runner's text: there may be thousands, each of a few bytes

	c        judged
	lookAt   int64        // when the session is to be looked at again; 0 for with the next sweep
	looking  bool         // a goroutine looks at it
	again    bool         // something came meanwhile
	answered int64        // when the client last told the session's status
	polled   int64        // when a poll was last judged
	said     SessionState // the status of the event because of which it is to be looked at
	needRead bool         // events have been lost since it was last read
	readAt   int64        // when it was last read
	revision string
	hint     *hint
	todos    int32 // open ones, as events or reads tell
	todosAt  int64 // when that was known; 0 for never

	todosLive bool // events tell them
	doubted   bool // it was read once more before it ended badly by what events told
}

// nothingSeen is the watch of every attempt that has shown nothing yet: most
// runners in a burst of short tasks never do. It is never written to.
var nothingSeen watch

// seen returns the attempt's own watch.
func (a *attempt) seen() *watch {
	if a.w == &nothingSeen {
		a.w = &watch{}
	}
	return a.w
}

// judged is what the last observation has left.
type judged struct {
	counters
	needsTodos bool
}

// turn is the part of a watch that begins anew with every turn.
type turn struct {
	msgs     map[string]seenMessage
	count    int
	output   bool // the agent has brought something forth since the last prompt
	begun    bool // there is a message of the agent
	finished bool // the newest one will not change any more
	stop     StopReason
	err      string
	text     string // of the newest one that has some
	textAt   int
	newest   int
	from     int    // messages before this one are older than the last prompt
	finger   uint64 // changes when any message does
	afterUse bool   // text has been followed by a tool call: the next text begins anew
}

// seenMessage is what is remembered of a message.
type seenMessage struct {
	index int
	hash  uint64
	told  int64 // when an event last told it
	usage Usage
}

// hint is what an error event has told.
type hint struct {
	stop   StopReason
	err    string
	at     int64
	finger uint64 // of what was known of the turn by then
}

// maxOld bounds how many messages of earlier turns are remembered.
const maxOld = 1000

// pastMessages are the hashes of the ids of the last messages of a session. An
// abort, or a server that is slow, may change these when the next attempt has
// begun; no older one was ever seen to change.
type pastMessages [4]uint64

// last returns the last messages that the watch has seen.
func (w *watch) last(seed maphash.Seed) (past pastMessages) {
	for id, seen := range w.msgs {
		if back := w.count - 1 - seen.index; back < len(past) {
			past[back] = maphash.String(seed, id)
		}
	}
	return past
}

// begin starts a new turn.
func (w *watch) begin(promptID string, now int64) {
	if len(w.old) > maxOld {
		w.old = nil
	}
	for id := range w.msgs {
		w.isOld(id)
	}
	w.turn = turn{}
	w.pieces.Reset()
	w.forgetCalls()
	w.promptID, w.hint, w.reported = promptID, nil, false
	w.c = judged{counters: counters{began: now, changed: now}}
	w.answered, w.lookAt, w.again, w.said = now, 0, false, SessionUnknown
	w.todosAt, w.todosLive, w.doubted = 0, false, false
}

// isOld notes that a message belongs to an earlier turn.
func (w *watch) isOld(id string) {
	if w.old == nil {
		w.old = map[string]struct{}{}
	}
	w.old[id] = struct{}{}
}

func (w *watch) inFlight() int { return w.flying }

// toolCall is one call of a tool.
type toolCall struct{ state ToolState }

// callKey tells the calls in the messages of a turn apart. Their ids may not:
// some model servers give every call the same one.
type callKey struct {
	message, id string
	n           int // among those of the message with this id
}

// tool notes how far a tool call has got, and reports whether it is a new one:
// a call that has ended and comes again under its id is another call.
func (w *watch) tool(t MessageTool) (isNew bool) {
	call := w.open[t.ID]
	if isNew = call == nil; isNew {
		call = &toolCall{state: ToolDone}
	}
	w.callState(call, t)
	return isNew
}

// messageTool is tool for the n-th call of that id in a message, which may be
// read again and again.
func (w *watch) messageTool(message string, n int, t MessageTool) (isNew bool) {
	key := callKey{message, t.ID, n}
	call := w.calls[key]
	if call == nil {
		// Its result may stand in a message of its own.
		if call = w.open[t.ID]; call == nil || n > 0 || t.State.InFlight() {
			isNew, call = true, &toolCall{state: ToolDone}
		}
		if w.calls == nil {
			w.calls = map[callKey]*toolCall{}
		}
		w.calls[key] = call
	}
	w.callState(call, t)
	return isNew
}

// callState notes the state of a call, which is in flight exactly while it is
// counted as such.
func (w *watch) callState(call *toolCall, t MessageTool) {
	switch was, is := call.state.InFlight(), t.State.InFlight(); {
	case is && !was:
		w.flying++
		if w.open == nil {
			w.open = map[string]*toolCall{}
		}
		w.open[t.ID] = call
	case was && !is:
		w.flying--
		if w.open[t.ID] == call {
			delete(w.open, t.ID)
		}
	}
	call.state = t.State
}

// forgetCalls forgets the calls of an earlier turn.
func (w *watch) forgetCalls() {
	clear(w.calls)
	clear(w.open)
	w.flying = 0
}

// message notes a message that is new or has changed, and reports whether
// anything of it had not been known.
func (w *watch) message(seed maphash.Seed, msg *Message, p *progress, now int64) (changed bool) {
	if _, old := w.old[msg.ID]; old || slices.Contains(w.past[:], maphash.String(seed, msg.ID)) {
		return false
	}
	hash := hashMessage(seed, msg)
	seen, known := w.msgs[msg.ID]
	if known && seen.hash == hash {
		return false
	}
	if !known {
		seen.index = w.count
		w.count++
		if w.msgs == nil {
			w.msgs = map[string]seenMessage{}
		}
	}
	if msg.Role == RoleUser && !known {
		seen.index = w.prompted(msg, seen.index, p)
	}
	w.finger += hash - seen.hash
	p.usage = p.usage.plus(msg.Usage).minus(seen.usage)
	seen.hash, seen.usage = hash, msg.Usage
	w.msgs[msg.ID] = seen
	if msg.Role == RoleAgent {
		w.agentMessage(seen.index, msg, p, now)
	}
	return true
}

// prompted is called for a message by a user: only what comes after it is an
// answer. It returns the index of the message.
func (w *watch) prompted(msg *Message, index int, p *progress) int {
	if msg.PromptID == w.promptID && w.promptID != "" {
		// What was returned before our own prompt belongs to an earlier turn.
		for id, seen := range w.msgs {
			if seen.told == 0 { // an event may tell the answer before the prompt is read
				w.isOld(id)
				continue
			}
			p.usage = p.usage.minus(seen.usage)
			w.finger -= seen.hash
		}
		fresh := turn{msgs: map[string]seenMessage{}, count: 1, finger: w.finger}
		w.turn = fresh
		w.forgetCalls()
		return 0
	}
	w.output, w.begun, w.finished, w.stop, w.err = false, false, false, StopUntold, ""
	w.from = index
	return index
}

// toldBy notes that the message was told by an event, and wasTold reports whether
// one has told it since: then what was asked for before is older.
func (w *watch) toldBy(id string, now int64) {
	if seen, ok := w.msgs[id]; ok {
		seen.told = now
		w.msgs[id] = seen
	}
}

func (w *watch) wasTold(id string, since int64) bool { return w.msgs[id].told > since }

func (w *watch) agentMessage(index int, msg *Message, p *progress, now int64) {
	if index >= w.from && (msg.Text != "" || msg.Reasoning != "" || len(msg.Tools) > 0) {
		w.output = true
	}
	var same map[string]int
	if len(msg.Tools) > 1 {
		same = make(map[string]int, len(msg.Tools))
	}
	for _, t := range msg.Tools {
		if w.messageTool(msg.ID, same[t.ID], t) {
			p.toolCalls++
		}
		p.lastTool = t.Name
		if same != nil {
			same[t.ID]++
		}
	}
	if msg.Text != "" {
		p.lastText, p.lastTextA = tail(msg.Text), now
		if index >= w.textAt {
			w.text, w.textAt = msg.Text, index
		}
	}
	if index >= max(w.newest, w.from) {
		w.newest, w.begun = index, true
		w.finished, w.stop, w.err = msg.Finished, msg.Stop, msg.Error
	}
}

func hashMessage(seed maphash.Seed, msg *Message) uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	h.WriteString(msg.ID)
	h.WriteByte(0)
	h.WriteString(itoa(len(msg.Text)) + "/" + itoa(len(msg.Reasoning)))
	h.WriteString(tail(msg.Text))
	h.WriteString(tail(msg.Reasoning))
	h.WriteByte(byte(msg.Stop))
	if msg.Finished {
		h.WriteByte(1)
	}
	for _, t := range msg.Tools {
		h.WriteString(t.ID)
		h.WriteByte(byte(t.State))
	}
	return h.Sum64() | 1
}

func (u Usage) plus(v Usage) Usage {
	return Usage{u.InputTokens + v.InputTokens, u.OutputTokens + v.OutputTokens, u.Cost + v.cost()}
}

func (u Usage) minus(v Usage) Usage {
	return Usage{u.InputTokens - v.InputTokens, u.OutputTokens - v.OutputTokens, u.Cost - v.cost()}
}

// cost leaves out what is no number: nothing could ever be taken from it again,
// and JSON has no such values.
func (u Usage) cost() float64 {
	if math.IsNaN(u.Cost) || math.IsInf(u.Cost, 0) {
		return 0
	}
	return u.Cost
}

// tail returns the end of a text, at most 200 bytes.
func tail(s string) string {
	const most = 200
	if len(s) <= most {
		return s
	}
	i := len(s) - most
	for i < len(s) && s[i]&0xC0 == 0x80 { // not in the middle of a rune
		i++
	}
	return s[i:]
}

// maxTurnText bounds the text that is collected from a runner's pieces.
const maxTurnText = maxResultUnreadable + 4

// reporter returns the reporter of the turn that begins. Each turn has its own,
// so that what an earlier one still says is dropped.
func (a *attempt) reporter() *Reporter {
	if a.turn == 1 && a.rep.a == nil { // else the call is made again
		a.rep.a, a.rep.turn = a, 1
		return &a.rep
	}
	return &Reporter{a: a, turn: a.turn}
}

// report takes a report of the given turn.
func (a *attempt) report(turn int32, r Report) {
	a.m.update(func(now int64) {
		if a.live() && a.turn == turn && a.turnStart > 0 {
			a.m.reportLocked(a, r, now)
		}
	})
}

// reportLocked takes one report of a runner.
func (m *BackgroundManager) reportLocked(a *attempt, r Report, now int64) {
	w := a.seen()
	p := &w.prog
	if o := a.cl.out; o != nil && o.trying == a {
		m.reachedLocked(a.cl, now)
	}
	changed, quick := true, true
	switch r.Kind {
	case ReportText:
		if changed = r.Text != ""; changed {
			if w.afterUse {
				w.pieces.Reset()
				w.afterUse = false
			}
			w.pieces.WriteString(cutAtRune(r.Text, maxTurnText-w.pieces.Len()))
			w.text = w.pieces.String()
			w.output, quick = true, false
			p.lastText, p.lastTextA = tail(w.text), now
		}
	case ReportReasoning:
		if changed = r.Text != ""; changed {
			w.output, quick = true, false
		}
	case ReportTool:
		if w.tool(r.Tool) {
			p.toolCalls++
			w.afterUse = true
		}
		p.lastTool, w.output = r.Tool.Name, true
	case ReportTodos:
		p.todos, p.todosSeen = r.Todos, true
	case ReportUsage:
		p.usage, quick = p.usage.plus(r.Usage), false
	case ReportAsking:
		m.askingLocked(a, r.Text)
	case ReportActivity:
		quick = false
	default:
		return
	}
	if !changed {
		return
	}
	a.activity, w.reported = now, true
	m.deadlineLocked(a, now)
	m.progressedLocked(a, quick, now)
}

// askingLocked notes that the agent asks something, or does not any more.
func (m *BackgroundManager) askingLocked(a *attempt, question string) {
	a.w.prog.detail = title(question, "")
	if question != "" {
		m.phaseLocked(a, PhaseAsking)
	} else if a.phase == PhaseAsking {
		m.phaseLocked(a, PhaseTurn)
	}
}

// newsPause is how long pieces of text wait for each other before they become
// an event.
const newsPause = int64(100e6)

// progressedLocked tells subscribers of progress; what comes in small pieces
// only every now and then.
func (m *BackgroundManager) progressedLocked(a *attempt, quick bool, now int64) {
	if quick || now-a.lastNews >= newsPause {
		a.lastNews = now
		m.emitLocked(EventProgress, a.t)
	}
}
