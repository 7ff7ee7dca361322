package bgagent

import (
	"hash/maphash"
	"math"
	"slices"
	"strings"

	"github.com/bgagent/bgagent/internal/mdtext"
)

// sight is what a turn has shown so far: a runner's turn through its reporter, a starter's turn
// through messages, statuses and events.
type sight struct {
	turn
	promptID string
	old      map[string]struct{}   // messages of earlier turns that the client may still return
	past     pastMessages          // likewise, the last messages of earlier attempts
	calls    map[callKey]*toolCall // calls seen in messages
	open     map[string]*toolCall  // calls in flight, by the agent's id
	prog     progress              // of all turns
	flying   int                   // number of tool calls in flight
	thought  string                // reasoning of the last turn that had any
	thinks   strings.Builder       // pieces of a runner's reasoning
	reported bool                  // a runner has reported something
	pieces   strings.Builder       // pieces of a runner's text: there may be thousands of a few bytes each

	c        judged
	lookAt   int64        // when to look at the session again; 0 for the next sweep
	looking  bool         // a goroutine is looking
	again    bool         // something changed during the look
	answered int64        // when the client last told the status
	lost     bool         // asked since then, it has not told the status
	lostWhy  string       // its error
	polled   int64        // when a poll was last judged
	said     SessionState // status carried by the event that requested the pending look
	needRead bool         // events were lost since the last read
	readAt   int64        // when the session was last read
	revision string
	hint     *hint
	todos    int32 // open todos, from events or reads
	todosAt  int64 // when they were last known; 0 for never

	todosLive bool // events tell the todos
	doubted   bool // events told of a bad end, so the session is read once more first
}

// nothingSeen is the sight of every attempt that has shown nothing yet. Most runners in a burst of
// short tasks never show anything. It is never written to.
var nothingSeen sight

// seen returns the attempt's own sight. It creates one if the attempt still shares nothingSeen.
func (a *attempt) seen() *sight {
	if a.sight == &nothingSeen {
		a.sight = &sight{}
	}
	return a.sight
}

// judged is what judge remembers between observations.
type judged struct {
	counters
	needsTodos bool
}

// turn is the part of a sight that begins anew with every turn.
type turn struct {
	msgs     map[string]seenMessage
	count    int
	output   bool // the agent has produced output since the last prompt
	begun    bool // the agent has begun a message
	finished bool // its newest message will not change any more
	stop     StopReason
	err      string
	text     string // text of the newest message that has any
	textAt   int
	newest   int
	from     int    // messages before this index are older than the last prompt
	finger   uint64 // changes whenever a message does
	afterUse bool   // a tool call followed the text, so the next text begins anew
}

// seenMessage is what the sight remembers about a message.
type seenMessage struct {
	index int
	hash  uint64
	told  int64 // when an event last told it
	usage Usage
}

// hint is what an error event told.
type hint struct {
	stop   StopReason
	err    string
	at     int64
	finger uint64 // fingerprint of the turn when the event came
}

// maxOld bounds how many messages of earlier turns are remembered.
const maxOld = 1000

// pastMessages are hashes of the ids of a session's last messages. An abort or a slow server may
// still change these messages after the next attempt has begun. Older ones were never seen to
// change.
type pastMessages [4]uint64

// last returns the last messages of the turn.
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
	s.pieces.Reset()
	s.thinks.Reset()
	s.forgetCalls()
	s.promptID, s.hint, s.reported = promptID, nil, false
	s.c = judged{counters: counters{began: now, changed: now}}
	s.answered, s.lookAt, s.again, s.said = now, 0, false, SessionUnknown
	s.lost, s.lostWhy = false, ""
	s.todos, s.todosAt, s.todosLive, s.doubted = 0, 0, false, false
}

// readAfresh forgets the messages of the turn, because all messages of the session are about to be
// read again: the client has lost the position of the cursor.
func (s *sight) readAfresh() {
	for id, seen := range s.msgs {
		s.prog.usage = s.prog.usage.minus(seen.usage)
		delete(s.msgs, id)
	}
	counted := map[*toolCall]bool{}
	for _, call := range s.calls {
		counted[call] = true
	}
	s.prog.toolCalls -= len(counted)
	s.forgetCalls()
	s.turn = turn{msgs: s.msgs}
}

// isOld notes that a message belongs to an earlier turn.
func (s *sight) isOld(id string) {
	if s.old == nil {
		s.old = map[string]struct{}{}
	}
	s.old[id] = struct{}{}
}

func (s *sight) inFlight() int { return s.flying }

// toolCall is one call of a tool.
type toolCall struct{ state ToolState }

// callKey identifies a call in the messages of a turn. The id alone does not: some model servers
// give every call the same id.
type callKey struct {
	message, id string
	n           int // index among the message's calls with this id
}

// tool notes the state of a tool call and reports whether the call is new. If a call has ended, its
// id names a new call when it comes again.
func (s *sight) tool(t MessageTool) (isNew bool) {
	call := s.open[t.ID]
	if isNew = call == nil; isNew {
		call = &toolCall{state: ToolDone}
	}
	s.callState(call, t)
	return isNew
}

// messageTool does what tool does, for the n-th call with this id in a message. A message may be read
// many times.
func (s *sight) messageTool(message string, n int, t MessageTool) (isNew bool) {
	key := callKey{message, t.ID, n}
	call := s.calls[key]
	if call == nil {
		// The result of a call may be in a message of its own.
		if call = s.open[t.ID]; call == nil || n > 0 || t.State.InFlight() {
			isNew, call = true, &toolCall{state: ToolDone}
		}
		if s.calls == nil {
			s.calls = map[callKey]*toolCall{}
		}
		s.calls[key] = call
	}
	s.callState(call, t)
	return isNew
}

// callState sets the state of a call and keeps the count of calls in flight.
func (s *sight) callState(call *toolCall, t MessageTool) {
	switch was, is := call.state.InFlight(), t.State.InFlight(); {
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

// forgetCalls forgets the calls of the earlier turn.
func (s *sight) forgetCalls() {
	clear(s.calls)
	clear(s.open)
	s.flying = 0
}

// message notes a new or changed message and reports whether it told anything new.
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

// prompted handles a user message: only later messages are an answer to it. It returns the index of
// the message.
func (s *sight) prompted(msg *Message, index int, p *progress) int {
	if msg.PromptID == s.promptID && s.promptID != "" {
		// Messages before our own prompt belong to an earlier turn.
		for id, seen := range s.msgs {
			if seen.told == 0 { // an event may tell the answer before the prompt is read
				s.isOld(id)
				continue
			}
			p.usage = p.usage.minus(seen.usage)
			s.finger -= seen.hash
		}
		fresh := turn{msgs: map[string]seenMessage{}, count: 1, finger: s.finger}
		s.turn = fresh
		s.forgetCalls()
		return 0
	}
	s.output, s.begun, s.finished, s.stop, s.err = false, false, false, StopUntold, ""
	s.from = index
	return index
}

// toldBy records when an event told the message. wasTold reports whether an event told it later
// than since: then a read that began at since is older.
func (s *sight) toldBy(id string, now int64) {
	if seen, ok := s.msgs[id]; ok {
		seen.told = now
		s.msgs[id] = seen
	}
}

func (s *sight) wasTold(id string, since int64) bool { return s.msgs[id].told > since }

func (s *sight) agentMessage(index int, msg *Message, p *progress, now int64) {
	if index >= s.from && (msg.Text != "" || msg.Reasoning != "" || len(msg.Tools) > 0) {
		s.output = true
	}
	var same map[string]int
	if len(msg.Tools) > 1 {
		same = make(map[string]int, len(msg.Tools))
	}
	for _, t := range msg.Tools {
		if s.messageTool(msg.ID, same[t.ID], t) {
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
		s.finished, s.stop, s.err = msg.Finished, msg.Stop, msg.Error
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

// cost returns u.Cost, or 0 if it is not a finite number. Such a value could never be subtracted
// again, and JSON cannot hold it.
func (u Usage) cost() float64 {
	if math.IsNaN(u.Cost) || math.IsInf(u.Cost, 0) {
		return 0
	}
	return u.Cost
}

// glimpse is how many bytes of the end of a text are compared or shown while a turn runs.
const glimpse = 200

// maxTurnText bounds the text that is collected from a runner's reports.
const maxTurnText = maxResultUnreadable + 4

// reporter returns the reporter of the turn that begins. Each turn has its own, so that late
// reports of an earlier turn are dropped.
func (a *attempt) reporter() *Reporter {
	if a.turn == 1 && a.rep.a == nil { // false if the call is made again
		a.rep.a, a.rep.turn = a, 1
		return &a.rep
	}
	return &Reporter{a: a, turn: a.turn}
}
