package bgagent

import (
	"hash/maphash"
	"math"
	"slices"
	"strings"

	"github.com/bgagent/bgagent/internal/mdtext"
)

// sight holds the observations of an attempt's turn. A runner's turn is observed through its
// reporter, and a starter's turn through messages, statuses and events.
type sight struct {
	turn
	promptID string
	old      map[string]struct{}   // messages of earlier turns that the client might still return
	past     pastMessages          // last messages of earlier attempts, which the client might still return
	calls    map[callKey]*toolCall // tool calls seen in messages
	open     map[string]*toolCall  // tool calls in flight, keyed by the agent's ids
	prog     progress              // progress in all turns
	counted  spent                 // part of the field "prog" that was counted towards budgets; see state_budget.go
	base     spent                 // value of the field "counted" at the beginning of the turn
	flying   int                   // number of tool calls in flight
	thought  string                // reasoning of the last turn that had any
	thinks   strings.Builder       // pieces of a runner's reasoning
	reported bool                  // the runner has sent a report in this turn
	knownTo  int64                 // time up to which all tool calls are known
	before   int                   // number of tool calls in earlier turns
	repeats  repeats               // latest sequence of identical tool calls
	retry    *retrying             // requests that the program repeats on its own; nil if there are none
	compacts int                   // compactions in a row without an answer or a tool call
	pieces   strings.Builder       // pieces of a runner's text; there can be thousands of pieces of a few bytes each

	c        judged
	lookAt   int64        // time by which the session must be polled again; 0 means that the next sweep is early enough
	looking  bool         // a goroutine is polling the session
	again    bool         // another poll was requested during the current one
	answered int64        // when the client last reported the status
	lost     bool         // a status query after the time in the field "answered" did not return the status
	lostWhy  string       // error of the status query that set the field "lost"
	polled   int64        // when a poll was last judged
	said     SessionState // status in the event that requested the next poll
	needRead bool         // events were lost since the last read
	readAt   int64        // when the messages were last read
	revision string
	hint     *hint
	todos    int32 // number of open todos, from events or reads
	todosAt  int64 // when the todos were last known; 0 if they never were

	todosLive bool // events report the todos
	doubted   bool // events reported that the turn ended badly, so the messages were requested again before the verdict
	foreign   bool // the turn began in an earlier process
}

// nothingSeen is the sight of every attempt that has shown nothing yet. The attempts share
// it, because most runners in a burst of short tasks never report anything. It is never written to.
var nothingSeen sight

// The method "seen" returns the attempt's own sight. If the attempt still shares nothingSeen, it
// gets its own sight.
func (a *attempt) seen() *sight {
	if a.sight == &nothingSeen {
		a.sight = &sight{repeats: repeats{most: a.t.st.cfg.RepeatedCalls}}
	}
	return a.sight
}

// The type "judged" holds the values that are passed from one judgement of the turn to the next.
type judged struct {
	counters
	needsTodos bool
}

// The type "turn" is the part of a sight that is reset when a turn begins.
type turn struct {
	msgs     map[string]seenMessage
	count    int
	output   bool // the agent has produced output since the last prompt
	begun    bool // the agent has begun a message
	finished bool // the newest message of the agent will no longer change
	stop     StopReason
	err      string
	provider *ProviderError // set if the agent's newest message says that the provider refused a request
	text     string         // text of the newest message that has any
	textAt   int            // index of the message that contains the text in the field "text"
	newest   int            // index of the agent's newest message
	from     int            // index of the last prompt; earlier messages do not answer it
	finger   uint64         // fingerprint of all messages; changes whenever a message changes
	afterUse bool           // a tool call followed the text, so the next text replaces it
}

// seenMessage holds the data that the sight keeps about a message.
type seenMessage struct {
	index int
	hash  uint64
	told  int64 // when an event last reported the message; 0 if none did
	usage Usage
}

// hint holds the data from an error event.
type hint struct {
	stop     StopReason
	err      string
	provider *ProviderError
	at       int64
	finger   uint64 // fingerprint of the turn when the event came
}

// maxOld is the maximum number of message ids kept from earlier turns. If there are more when a turn
// begins, only the ids of the previous turn are kept.
const maxOld = 1000

// pastMessages holds hashes of the ids of a session's last messages. An abort or a slow server might
// still change these messages after the next attempt has begun. Older messages have never been seen
// to change.
type pastMessages [4]uint64

// pastTurns holds the last messages of the earlier turns of a session.
type pastTurns struct {
	ids pastMessages
	use *pastUsage // usage of these messages; nil if no budget is set
}

// rememberLast records the last messages of the attempt's turn in the session.
func (st *state) rememberLast(a *attempt) {
	ids := a.sight.last(st.seed)
	if past := a.t.sess.past; past == nil || past.ids != ids {
		a.t.sess.past = &pastTurns{ids: ids}
	}
}

// The method "last" returns the hashes of the turn's last messages.
func (s *sight) last(seed maphash.Seed) (past pastMessages) {
	for id, seen := range s.msgs {
		if back := s.count - 1 - seen.index; back < len(past) {
			past[back] = maphash.String(seed, id)
		}
	}
	return past
}

// begin starts a new turn.
func (s *sight) begin(promptID string, now int64) {
	if len(s.old) > maxOld {
		s.old = nil
	}
	for id := range s.msgs {
		s.isOld(id)
	}
	s.turn = turn{}
	s.base = s.counted
	s.pieces.Reset()
	s.thinks.Reset()
	s.forgetCalls()
	s.promptID, s.hint, s.reported = promptID, nil, false
	s.c = judged{counters: counters{began: now, changed: now}}
	s.answered, s.lookAt, s.again, s.said = now, 0, false, SessionUnknown
	s.lost, s.lostWhy, s.retry = false, "", nil
	s.repeats.reset()
	s.todos, s.todosAt, s.todosLive, s.doubted, s.foreign = 0, 0, false, false, false
	s.knownTo, s.before, s.compacts = now, s.prog.toolCalls, 0
}

// readAfresh forgets the messages of the turn, because all messages of the session are about to be
// read again: the client could not continue from the position of the cursor.
func (s *sight) readAfresh() {
	for id, seen := range s.msgs {
		s.prog.usage = s.prog.usage.minus(seen.usage)
		delete(s.msgs, id)
	}
	s.uncount()
	s.turn, s.knownTo = turn{msgs: s.msgs}, longAgo
}

// uncount removes the calls of the turn from the counts, because their messages are about to be
// read again, or belong to an earlier turn.
func (s *sight) uncount() {
	counted := map[*toolCall]bool{}
	for _, call := range s.calls {
		counted[call] = true
	}
	s.prog.toolCalls -= len(counted)
	if len(counted) > 0 {
		s.knownTo = longAgo // it is unknown when the calls began
	}
	s.forgetCalls()
	s.repeats.reset()
}

// longAgo is earlier than any time that the manager uses. Adding a time to it does not overflow.
const longAgo = math.MinInt64 / 2

// isOld records that a message belongs to an earlier turn.
func (s *sight) isOld(id string) {
	if s.old == nil {
		s.old = map[string]struct{}{}
	}
	s.old[id] = struct{}{}
}

func (s *sight) inFlight() int { return s.flying }

// toolCall is one call to a tool.
type toolCall struct {
	state ToolState
	name  string
	input Digest
	began int64 // the earliest time at which the call might have begun
}

// newCall returns the record of a call that is seen for the first time. If the call has already
// ended, it might have begun at any time after knownTo.
func (s *sight) newCall(t MessageTool, now int64) *toolCall {
	call := &toolCall{state: ToolDone, name: t.Name, began: now}
	if !t.State.InFlight() {
		call.began = s.knownTo
	}
	return call
}

// callKey identifies a call in the messages of a turn. The id alone does not identify a call,
// because some model servers give every call the same id.
type callKey struct {
	message, id string
	n           int // index among the message's calls with this id
}

// The method "tool" stores the state of a tool call and reports whether the call is new. If the id
// of a call that has ended is used again, it stands for a new call.
func (s *sight) tool(t MessageTool, now int64) (isNew bool) {
	call := s.open[t.ID]
	if isNew = call == nil; isNew {
		call = s.newCall(t, now)
	}
	s.callState(call, t, isNew, now)
	return isNew
}

// messageTool does the same as the method "tool", but for the n-th call with this id in a message.
// A message can be read many times, and its calls are then not new.
func (s *sight) messageTool(message string, n int, t MessageTool, now int64) (isNew bool) {
	key := callKey{message, t.ID, n}
	call := s.calls[key]
	if call == nil {
		// The result of a call can be in a separate message.
		if call = s.open[t.ID]; call == nil || n > 0 || t.State.InFlight() {
			isNew, call = true, s.newCall(t, now)
		}
		if s.calls == nil {
			s.calls = map[callKey]*toolCall{}
		}
		s.calls[key] = call
	}
	s.callState(call, t, isNew, now)
	return isNew
}

// callState sets the state of a call and updates the set and the number of calls in flight. When
// the call ends, callState compares it with the calls before it.
func (s *sight) callState(call *toolCall, t MessageTool, isNew bool, now int64) {
	if t.Input != 0 {
		call.input = t.Input
	}
	was, is := call.state.InFlight(), t.State.InFlight()
	if !is && (was || isNew) {
		s.repeats.ended(call, t, now)
	}
	switch {
	case is && !was:
		s.flying++
		if s.open == nil {
			s.open = map[string]*toolCall{}
		}
		s.open[t.ID] = call
	case was && !is:
		s.flying--
		if s.open[t.ID] == call {
			delete(s.open, t.ID)
		}
	}
	call.state = t.State
}

// forgetCalls forgets all calls seen so far.
func (s *sight) forgetCalls() {
	clear(s.calls)
	clear(s.open)
	s.flying = 0
}

// The method "message" stores a message and reports whether it was new or had changed.
func (s *sight) message(seed maphash.Seed, msg *Message, p *progress, now int64) (changed bool) {
	if _, old := s.old[msg.ID]; old || slices.Contains(s.past[:], maphash.String(seed, msg.ID)) {
		return false
	}
	hash := hashMessage(seed, msg)
	seen, known := s.msgs[msg.ID]
	if known && seen.hash == hash {
		return false
	}
	if !known {
		seen.index = s.count
		s.count++
		if s.msgs == nil {
			s.msgs = map[string]seenMessage{}
		}
	}
	if msg.Role == RoleUser && !known {
		seen.index = s.prompted(msg, seen.index, p)
	}
	s.finger += hash - seen.hash
	p.usage = p.usage.plus(msg.Usage).minus(seen.usage)
	seen.hash, seen.usage = hash, msg.Usage
	s.msgs[msg.ID] = seen
	if msg.Role == RoleAgent {
		s.agentMessage(seen.index, msg, p, now)
	}
	return true
}

// The method "prompted" is called for a new user message. Only later messages count as an answer to
// it. The method returns the index of the message in the turn.
func (s *sight) prompted(msg *Message, index int, p *progress) int {
	if msg.PromptID == s.promptID && s.promptID != "" {
		// Messages that were read before the prompt of this turn belong to an earlier turn. A message
		// that an event reported might belong to this turn. Such a message is only forgotten, so
		// that it counts if the client returns it again.
		for id, seen := range s.msgs {
			if seen.told == 0 { // no event has reported the message
				s.isOld(id)
				continue
			}
			p.usage = p.usage.minus(seen.usage)
			s.finger -= seen.hash
		}
		fresh := turn{msgs: map[string]seenMessage{}, count: 1, finger: s.finger}
		s.turn = fresh
		s.uncount()
		return 0
	}
	s.output, s.begun, s.finished, s.stop, s.err, s.provider = false, false, false, StopUntold, "", nil
	s.from = index
	return index
}

// toldBy records when an event reported the message.
func (s *sight) toldBy(id string, now int64) {
	if seen, ok := s.msgs[id]; ok {
		seen.told = now
		s.msgs[id] = seen
	}
}

// wasTold reports whether an event reported the message after the given time. If a read of the
// messages began at the given time and such an event followed, the read might have returned an older
// version of the message.
func (s *sight) wasTold(id string, since int64) bool { return s.msgs[id].told > since }

// The method "wrote" is called for each piece of a runner's text.
func (s *sight) wrote(piece string, now int64) {
	if !mdtext.Invisible(piece) {
		s.compacts = 0
		if s.afterUse { // text after a tool call replaces the text before it
			s.pieces.Reset()
			s.afterUse = false
		}
	}
	s.pieces.WriteString(mdtext.Head(piece, maxTurnText-s.pieces.Len()))
	s.text = s.pieces.String()
	s.output = true
	s.prog.lastText, s.prog.lastTextA = mdtext.Tail(s.text, glimpse), now
}

func (s *sight) agentMessage(index int, msg *Message, p *progress, now int64) {
	if msg.Provider != nil { // the text of such a message describes the failure and is not an answer
		if index >= max(s.newest, s.from) {
			s.newest, s.begun, s.finished, s.stop, s.err, s.provider = index, true, msg.Finished, msg.Stop, msg.Error, msg.Provider.clone()
		}
		return
	}
	if index >= s.from && (msg.Text != "" || msg.Reasoning != "" || len(msg.Tools) > 0) {
		s.output = true
	}
	var same map[string]int
	if len(msg.Tools) > 1 {
		same = make(map[string]int, len(msg.Tools))
	}
	for _, t := range msg.Tools {
		if s.messageTool(msg.ID, same[t.ID], t, now) {
			p.toolCalls++
		}
		p.lastTool = t.Name
		if same != nil {
			same[t.ID]++
		}
	}
	if msg.Reasoning != "" && index >= s.from {
		s.thought = mdtext.Head(msg.Reasoning, maxResult)
	}
	if !mdtext.Invisible(msg.Text) {
		p.lastText, p.lastTextA = mdtext.Tail(msg.Text, glimpse), now
		if index >= s.textAt {
			s.text, s.textAt = msg.Text, index
		}
	}
	if index >= max(s.newest, s.from) {
		s.newest, s.begun = index, true
		s.finished, s.stop, s.err, s.provider = msg.Finished, msg.Stop, msg.Error, nil
	}
}

func hashMessage(seed maphash.Seed, msg *Message) uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	h.WriteString(msg.ID)
	h.WriteByte(0)
	h.WriteString(itoa(len(msg.Text)) + "/" + itoa(len(msg.Reasoning)))
	h.WriteString(mdtext.Tail(msg.Text, glimpse))
	h.WriteString(mdtext.Tail(msg.Reasoning, glimpse))
	h.WriteByte(byte(msg.Stop))
	if msg.Finished {
		h.WriteByte(1)
	}
	if msg.Provider != nil {
		h.WriteByte(2 + byte(msg.Provider.Kind))
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
	return Usage{u.InputTokens - v.InputTokens, u.OutputTokens - v.OutputTokens, u.cost() - v.cost()}
}

// cost returns u.Cost, or 0 if u.Cost is not a finite number. A value that is not finite could not
// be subtracted from a sum again after it was added, and JSON could not represent it.
func (u Usage) cost() float64 {
	if math.IsNaN(u.Cost) || math.IsInf(u.Cost, 0) {
		return 0
	}
	return u.Cost
}

// glimpse is how many bytes at the end of the agent's text are compared or shown while a turn is
// running.
const glimpse = 200

// maxTurnText is the maximum size of the text that is collected from a runner's reports.
const maxTurnText = maxResultUnreadable + 4

// reporter returns the reporter of the turn that is about to begin. Each turn has its own, so that
// late reports from an earlier turn are dropped.
func (a *attempt) reporter() *Reporter {
	if a.turn == 1 && a.rep.a == nil { // if a.rep.a is set, the call for the first turn is repeated and needs a new reporter
		a.rep.a, a.rep.turn = a, 1
		return &a.rep
	}
	return &Reporter{a: a, turn: a.turn}
}
