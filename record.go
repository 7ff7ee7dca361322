package bgagent

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"
	"time"
)

// This file defines the contents of the records that a [Store] keeps, and makes these records from
// the state. Times in records are wall times, because each process starts its own manager clock.

// recordVersion is the version of the records that this code writes. Records of a newer version
// cannot be read.
const recordVersion = 1

// taskRecord is the record that a store keeps for a task. The texts of the task can be long, so the
// store keeps them separately. The record contains their names; see textOf.
type taskRecord struct {
	Version     int               `json:"v"`
	Parent      string            `json:"parent"`
	Title       string            `json:"title"`
	Agent       string            `json:"agent"`
	Model       string            `json:"model,omitempty"`
	Client      string            `json:"client,omitempty"`
	Depth       int               `json:"depth"`
	Rules       []Permission      `json:"rules,omitempty"` // rules from Config.AgentPermissions
	Call        string            `json:"call,omitempty"`
	CallHash    uint64            `json:"call_hash,omitempty"`
	ResumeHash  uint64            `json:"resume_hash,omitempty"`
	Foreground  bool              `json:"foreground,omitempty"`
	Metadata    map[string]string `json:"metadata,omitempty"`
	System      string            `json:"system,omitempty"`
	Directory   string            `json:"directory,omitempty"`
	Attempt     int32             `json:"attempt"`
	Queued      time.Time         `json:"queued"`
	Status      Status            `json:"status"`
	Cause       Cause             `json:"cause,omitempty"`
	Notice      NoticeState       `json:"notice,omitempty"`
	Batch       uint32            `json:"batch,omitempty"`        // number of the parent's batch that contains the task's end
	PastBatches []uint32          `json:"past_batches,omitempty"` // batch numbers of the earlier attempts, in the order of Past
	Reclaimable bool              `json:"reclaimable,omitempty"`
	Unsaid      string            `json:"unsaid,omitempty"` // name of the text that holds the prompts that never reached the session
	Past        []Attempt         `json:"past,omitempty"`
	QueueEnds   time.Time         `json:"queue_ends,omitzero"` // when the queue time to live expires
	Session     *sessionRecord    `json:"session,omitempty"`
	Sessions    int32             `json:"sessions,omitempty"` // number of earlier sessions, if the task has no session
	Run         *runRecord        `json:"run,omitempty"`      // set while an attempt runs or is being stopped
	End         *endRecord        `json:"end,omitempty"`      // set once the task has ended
	Restarts    int32             `json:"restarts,omitempty"`
	Outlived    int32             `json:"outlived,omitempty"`
	Burnt       int32             `json:"burnt,omitempty"` // highest attempt number that was withdrawn and must not be used again
	Budget      *budgetRecord     `json:"budget,omitempty"`
	Letters     []letterRecord    `json:"letters,omitempty"`      // messages to the task
	ModelChosen bool              `json:"model_chosen,omitempty"` // the host chose the model; if this is false, as in records of earlier versions, no fallback replaces the model
	Fallen      *fallenRecord     `json:"fallen,omitempty"`       // set if the task runs on a fallback of its model

	Questions    []questionRecord `json:"questions,omitempty"`
	LastQuestion int32            `json:"last_question,omitempty"` // number of the latest question that a runner asked
	AskedFrom    time.Time        `json:"asked_from,omitzero"`     // when a question paused the clocks of the turn
}

// sessionRecord is the part of a task's record that describes its session.
type sessionRecord struct {
	ID     string `json:"id"`
	Cursor Cursor `json:"cursor,omitempty"`
	Gone   bool   `json:"gone,omitempty"`
	Stuck  bool   `json:"stuck,omitempty"`
	Number int32  `json:"number,omitempty"` // number of sessions that the task had before this session
	Saved  []byte `json:"saved,omitempty"`  // data that the client saved

	Instance string `json:"instance,omitempty"` // id of the manager that used the session last
	Home     string `json:"home,omitempty"`     // where the session lives; see SessionHome
}

// runRecord is the part of a task's record that describes an attempt that is running or being
// stopped.
type runRecord struct {
	Attempt   int32     `json:"attempt"`
	Started   time.Time `json:"started"`
	Phase     Phase     `json:"phase"`
	Turn      int32     `json:"turn,omitempty"`       // number of the last turn whose prompt might have reached the session
	Prompt    string    `json:"prompt,omitempty"`     // id of the last turn's prompt
	PromptOf  string    `json:"prompt_of,omitempty"`  // name of the last turn's prompt text
	TurnStart time.Time `json:"turn_start,omitzero"`  // start of the turn; zero between turns
	Since     time.Time `json:"since,omitzero"`       // start of the time to live; zero if it counts from Started
	Ran       int64     `json:"ran,omitempty"`        // nanoseconds spent in earlier turns
	Text      string    `json:"text,omitempty"`       // name of the latest text that a turn produced
	Output    bool      `json:"output,omitempty"`     // an earlier turn produced output
	ToolCalls int       `json:"tool_calls,omitempty"` // number of tool calls in earlier turns
	Waits     bool      `json:"waits,omitempty"`      // the attempt is parked
	EndCause  Cause     `json:"end_cause,omitempty"`  // cause with which the attempt ends if no further turn begins
	Stopping  bool      `json:"stopping,omitempty"`   // something other than the agent ended the attempt, whose turn might still be running
	Overrun   bool      `json:"overrun,omitempty"`    // the attempt missed its stopping deadline
	OpenTodos int32     `json:"open_todos,omitempty"` // number of open todos after the last turn
	Heard     bool      `json:"heard,omitempty"`      // the session has received the prompt of the attempt that this attempt replaced
	Instance  string    `json:"instance,omitempty"`   // id of the manager that hands over the prompt, or handed it over
	Before    Cursor    `json:"before,omitempty"`     // position in the session before the prompt
	Notice    string    `json:"notice,omitempty"`     // id of the notice that is the prompt, until the notice is settled

	Refused *refusedRecord `json:"refused,omitempty"` // set if the provider refused the last turns, or if the turn could not begin because other turns were refused

	Counted usedRecord `json:"counted,omitzero"` // how much of the used budget the last turn accounts for
}

// endRecord is the part of a task's record that describes how an attempt ended.
type endRecord struct {
	Started   time.Time `json:"started,omitzero"`
	Ended     time.Time `json:"ended"`
	Activity  time.Time `json:"activity,omitzero"`
	Reason    string    `json:"reason,omitempty"`
	Result    string    `json:"result,omitempty"` // name of the result's text
	Turns     int32     `json:"turns,omitempty"`
	ToolCalls int       `json:"tool_calls,omitempty"`
	LastTool  string    `json:"last_tool,omitempty"`
	LastText  string    `json:"last_text,omitempty"`
	LastAt    time.Time `json:"last_at,omitzero"`
	Todos     []Todo    `json:"todos,omitempty"`
	Usage     Usage     `json:"usage,omitzero"`
	OpenTodos int32     `json:"open_todos,omitempty"`
	Partial   bool      `json:"partial,omitempty"`
	Thought   bool      `json:"thought,omitempty"`
	Cut       bool      `json:"cut,omitempty"`
	Dropped   bool      `json:"dropped,omitempty"`
	Unsaid    bool      `json:"unsaid,omitempty"`
}

// nodeRecord is the record that a store keeps for a session that delegates. The tasks' own records
// say whether their ends must still be reported to the session. If the session's record contained
// this information, the end of each task would mean rewriting the information about all tasks of the
// session.
type nodeRecord struct {
	Version int              `json:"v"`
	Parent  string           `json:"parent,omitempty"` // id of the parent session, if the session was looked up or its task has expired
	Dir     string           `json:"dir,omitempty"`
	Gone    bool             `json:"gone,omitempty"`
	Lapsed  bool             `json:"lapsed,omitempty"`
	Scope   bool             `json:"scope,omitempty"`
	Batch   uint32           `json:"batch,omitempty"`  // number of the open batch
	Notice  *envelopeRecord  `json:"notice,omitempty"` // notice that is being delivered
	Handed  []envelopeRecord `json:"handed,omitempty"` // unacknowledged notices that were handed out or sent, or are about to be
	Account *accountRecord   `json:"account,omitempty"`
}

const (
	managerKey = "manager"  // key of the manager's own record
	sessionKey = "session:" // prefix of the key of a session's record
)

// managerRecord is the record that a store keeps for the manager itself.
type managerRecord struct {
	Version  int       `json:"v"`
	Instance string    `json:"instance"`
	Seen     time.Time `json:"seen"`            // when the manager is last known to have been running
	Clock    time.Time `json:"clock"`           // the same moment as Seen, on the clock of the other records; that clock does not advance while the machine sleeps
	Clean    bool      `json:"clean,omitempty"` // the manager was suspended

	Crashed time.Time `json:"crashed,omitzero"`  // when the previous manager is last known to have been running, if it was not suspended
	Careful bool      `json:"careful,omitempty"` // attempts are being continued one at a time
}

// memberRecord refers to one attempt that has ended.
type memberRecord struct {
	Task    string `json:"task"`
	Attempt int32  `json:"attempt"`
}

// The method "empty" reports whether the record contains no information.
func (x *nodeRecord) empty() bool {
	return x.Parent == "" && x.Dir == "" && !x.Gone && !x.Lapsed && !x.Scope && x.Batch == 0 && x.Notice == nil && x.Handed == nil && x.Account == nil
}

// envelopeRecord describes a notice that might have been handed out. It contains the whole notice,
// because a repeated delivery must be identical.
type envelopeRecord struct {
	Notice  Notice         `json:"notice"`
	Owed    []memberRecord `json:"owed,omitempty"`
	Closed  []memberRecord `json:"closed,omitempty"`
	Omitted int            `json:"omitted,omitempty"`
	Tries   int            `json:"tries,omitempty"`
	Pushes  int            `json:"pushes,omitempty"` // number of processes that pushed the notice
	Since   time.Time      `json:"since"`
}

// textOf returns the name of one of a task's texts. The name consists of the kind of the text and
// the numbers that distinguish it from other texts of the same kind. The text with a given name
// never changes.
func textOf(what string, numbers ...int32) string {
	for _, n := range numbers {
		what += "." + strconv.Itoa(int(n))
	}
	return what
}

// The type "recorded" is a record with the texts to which it refers.
type recorded struct {
	rec    StoreRecord
	texts  []StoreText
	prompt string // name of the last prompt's text, or ""
}

// notePrompt remembers the name of a prompt's text when the record that refers to the text is put
// into a batch.
func (m *mark) notePrompt(name string) {
	if name == "" || name == m.prompts[0] {
		return
	}
	if turnOf(name) != turnOf(m.prompts[0]) {
		m.prompts[1] = m.prompts[0]
	}
	m.prompts[0] = name
}

// turnOf returns the part of a prompt's name that contains the numbers of the attempt and the turn.
func turnOf(name string) string {
	if parts := strings.SplitN(name, ".", 4); len(parts) == 4 {
		return strings.TrimSuffix(name, "."+parts[3])
	}
	return name // an earlier version of the library wrote the name
}

// promptOf returns the name of the turn's prompt text if the store contains that text. Several
// prompts can be stored for one turn, because a prompt is written before it is handed over, and
// another prompt can then replace it. The last one counts.
func (m *mark) promptOf(turn string) string {
	for _, name := range m.prompts {
		if _, has := m.texts[name]; has && (turnOf(name) == turn) {
			return name
		}
	}
	return ""
}

// The method "name" adds a text to the record and returns the name of the text. If the text is
// empty, it does not add anything and returns "".
func (r *recorded) name(name, text string) string {
	if text == "" {
		return ""
	}
	r.texts = append(r.texts, StoreText{Record: r.rec.Key, Name: name, Text: text})
	return name
}

func (r *recorded) data(v any) {
	b, err := encodeExactly(v)
	if err != nil {
		panic("bgagent: bug: a record cannot be encoded: " + err.Error())
	}
	r.rec.Data = b
}

// storedHash returns a hash of the strings that is the same in every process. It is never 0.
func storedHash(parts ...string) uint64 {
	h := sha256.New()
	for _, s := range parts {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(s))))
		h.Write([]byte(s))
	}
	return max(binary.BigEndian.Uint64(h.Sum(nil)), 1)
}

// image returns a string that changes whenever the record must be written again. The texts of the
// record are not part of the string.
func (r *recorded) image() string {
	return strconv.FormatBool(r.rec.Due) + r.rec.Root + "\n" + string(r.rec.Data)
}

// recordTask makes the record of a task.
func (st *state) recordTask(t *task) (r recorded) {
	root, _ := t.up.root()
	r.rec = StoreRecord{
		Key: t.id(), Kind: StoreTask, Due: t.isDue(), Parent: t.up.session, Root: root.session, Agent: t.kind.key.agent,
		Status: t.status, Launched: st.wall(t.queued),
	}
	if t.sess != nil {
		r.rec.Session = t.sess.id
	}
	k := t.kind
	x := taskRecord{
		Version: recordVersion, Parent: t.up.session, Title: t.title, Agent: k.key.agent, Model: k.key.model, Client: k.key.client,
		Depth: k.key.depth, Rules: k.agentRules, Call: t.call, Foreground: t.is(flagForeground), Attempt: t.no, Queued: st.wall(t.queued),
		Status: t.status, Cause: t.cause, Notice: t.notice, Reclaimable: t.is(flagReclaimable), ModelChosen: !k.key.named, Fallen: recordFallen(t),
	}
	mark := st.storing.task(t)
	x.Restarts, x.Outlived = mark.restarts, mark.outlived
	if mark.burnt > t.no {
		x.Burnt = mark.burnt
	}
	if st.isHanded(t, t.no) {
		x.Notice, r.rec.Due = NoticeOwed, true
	}
	r.name(textOf("prompt", t.no), t.text)
	if m := t.more; m != nil {
		x.Metadata, x.System, x.Directory, x.Past = m.metadata, m.system, m.directory, m.past
		x.CallHash, x.ResumeHash = m.call, m.again
		x.Budget = recordBudgetOf(m.budget)
		x.Unsaid = r.name("unsaid."+contentID(m.unsaid), m.unsaid)
		if m.ttl != nil {
			x.QueueEnds = st.wall(m.ttl.at)
		}
	}
	if x.QueueEnds.IsZero() {
		x.QueueEnds = mark.queueEnds
	}
	for i, p := range x.Past {
		if st.isHanded(t, int32(p.Number)) {
			x.Past = slices.Clone(x.Past)
			x.Past[i].Notice, r.rec.Due = NoticeOwed, true
		}
	}
	x.PastBatches = mark.past
	if t.fin != nil {
		x.Batch = mark.batch
	}
	if s := t.sess; s != nil {
		x.Session = &sessionRecord{ID: s.id, Cursor: s.cursor, Gone: s.gone, Stuck: s.stuck, Number: mark.sessions, Saved: mark.saved,
			Instance: cmp.Or(mark.instance, st.storing.instance), Home: mark.home}
	} else {
		x.Sessions = mark.sessions
	}
	x.Letters = t.recordLetters(&r)
	if b := t.questions(); b != nil {
		x.Questions, x.LastQuestion, x.AskedFrom = t.recordQuestions(&r), b.last, st.wall(b.from)
	}
	if t.run != nil {
		x.Run = st.recordRun(t.run, &r)
	}
	if t.fin != nil {
		x.End = st.recordEnd(t, &r)
		r.rec.Ended = x.End.Ended
	}
	r.data(&x)
	return r
}

// isDue reports whether the task's record must be loaded when the store is opened again, because
// the task can still change or is still needed.
func (t *task) isDue() bool {
	return t.live() || t.run != nil || t.notice == NoticeOwed || t.is(flagReclaimable) || t.owesPast() || t.sess != nil && t.sess.own != nil
}

// recordRun makes the record of an attempt that is running or being stopped. If the attempt is
// about to hand over its next prompt, the record already counts the prompt as handed over, because
// the record is written first.
func (st *state) recordRun(a *attempt, r *recorded) *runRecord {
	mark := st.storing.task(a.t)
	x := &runRecord{
		Attempt: a.no, Started: st.wall(a.started), Phase: a.recordedPhase(), TurnStart: st.wall(a.turnStart), Ran: a.ran,
		Output: a.output, Waits: a.betweenTurns() || a.unsealed() || a.stillParked(), EndCause: a.endCause, Stopping: a.ended, Overrun: a.overrun || mark.overrun, Heard: a.heard,
		OpenTodos: a.openTodos, ToolCalls: a.earlierCalls(), Turn: a.turn, Before: mark.before, Instance: cmp.Or(mark.instance, st.storing.instance),
	}
	if x.Since = st.wall(mark.since); !x.Waits {
		x.Counted = st.countedInTurn(a, mark)
	}
	if a.recovering && !a.ended && x.TurnStart.IsZero() {
		x.TurnStart = st.wall(mark.turnStart)
	}
	if env := a.notice; env != nil && env.sealed() {
		x.Notice = env.notice.ID
	}
	if a.stillParked() {
		x.TurnStart = time.Time{}
	}
	switch {
	case a.catchingUp: // the session must be read before the prompt is handed over
		x.Turn--
	case a.promptDue():
		x.Turn++
	}
	if x.Turn > 0 {
		x.Prompt = a.t.promptID(a.no, x.Turn)
		if x.Turn > 1 || a.prompt != joined(a.t.unsaid(), a.t.text) { // the prompt differs from the task's own prompt
			name := textOf("prompt", a.no, x.Turn)
			if a.stillParked() { // the attempt's prompt is already that of the next turn
				x.PromptOf = mark.promptOf(name)
			} else {
				x.PromptOf = cmp.Or(r.name(name+"."+contentID(a.prompt), a.prompt), mark.promptOf(name))
				r.prompt = x.PromptOf
			}
		}
	}
	x.Refused = st.recordRefused(a, r)
	x.Text = mark.said
	if a.text != "" {
		x.Text = r.name("turn."+contentID(a.text), a.text)
	}
	return x
}

// earlierCalls returns the number of tool calls in the turns before the current one. The calls of the
// current turn are not recorded: if the turn continues, the next process reads them again.
func (a *attempt) earlierCalls() int {
	if a.turnStart > 0 {
		return a.sight.before
	}
	return a.sight.prog.toolCalls
}

// promptDue reports whether the attempt is waiting to hand over its next prompt.
func (a *attempt) promptDue() bool { return a.handsOverNext() && !a.mustCatchUp() }

// handsOverNext is like promptDue, but does not check whether the session must be read first.
func (a *attempt) handsOverNext() bool {
	return a.stage == stagePrompt && !a.recovering && (!a.inCall || a.restoring) && a.live() && !a.unsealed()
}

// mustCatchUp reports whether the session must be read before the attempt hands over its next
// prompt. If the prompt were recorded as handed over before that read, old messages would count as
// its answer. They might belong to earlier attempts, or to a refused turn that continues: some
// servers append the next messages to the refused turn, without a new prompt in between.
func (a *attempt) mustCatchUp() bool {
	return a.cl.starter && (a.no > 1 && a.turn == 0 || a.goesOnUnanswered())
}

// goesOnUnanswered reports whether the attempt's next or current turn continues a turn that the
// provider refused.
func (a *attempt) goesOnUnanswered() bool { return a.refused != nil && a.refused.unanswered != "" }

// stillParked reports whether the session must be read before the refused turn continues. In that
// case, the record still describes the attempt as parked.
func (a *attempt) stillParked() bool {
	return a.live() && a.cl.starter && a.goesOnUnanswered() && (a.catchingUp || a.handsOverNext())
}

// The method "unsealed" reports whether the attempt's next prompt is a notice that has no text yet.
// Until the notice has its text, the attempt's record describes the attempt as parked.
func (a *attempt) unsealed() bool { return a.notice != nil && !a.notice.sealed() }

// contentID returns an id that is derived from the text. Different texts have different ids.
func contentID(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:16])
}

// recordEnd makes the record that describes the end of the task's latest attempt.
func (st *state) recordEnd(t *task, r *recorded) *endRecord {
	f := t.fin
	x := &endRecord{
		Started: st.wall(f.started), Ended: st.wall(f.ended), Activity: st.wall(f.activity), Reason: f.reason, Turns: f.turns,
		OpenTodos: f.todos, Partial: f.partial, Thought: f.thought(), Cut: f.cut(), Unsaid: f.unsaid,
		Result: cmp.Or(r.name(textOf("result", t.no), f.result), st.storedResult(t)),
	}
	x.Dropped = t.is(flagDropped) && x.Result == ""
	if p := f.prog; p != nil {
		x.ToolCalls, x.LastTool, x.LastText, x.LastAt = p.toolCalls, p.lastTool, p.lastText, st.wall(p.lastTextA)
		x.Todos, x.Usage = p.todos, p.usage
	}
	return x
}

// recordEnvelope makes the record of a sealed notice.
func (st *state) recordEnvelope(env *envelope) envelopeRecord {
	x := envelopeRecord{Notice: env.notice, Omitted: env.omitted, Tries: env.tries, Pushes: env.pushes, Since: st.wall(env.since)}
	for _, d := range env.debts {
		x.Owed = append(x.Owed, memberRecord{d.t.id(), d.no})
	}
	for _, c := range env.closed {
		x.Closed = append(x.Closed, memberRecord{c.t.id(), c.no})
	}
	return x
}

// nodeKey returns the key of the record of a session that delegates.
func nodeKey(session string) string { return sessionKey + session }

// recordNode makes the record of a session that delegates. ok is false if the record would not add
// anything to the records of the session's tasks.
func (st *state) recordNode(n *node) (r recorded, ok bool) {
	r.rec = StoreRecord{Key: nodeKey(n.session), Kind: StoreSession, Due: true}
	x := nodeRecord{Version: recordVersion, Dir: n.dir, Gone: n.gone, Lapsed: n.lapsed, Scope: n.scope, Batch: st.storing.batchOf(n), Account: st.recordAccount(n)}
	if n.up != nil {
		x.Parent = n.up.session
	}
	if env := n.env; env != nil && env.sealed() {
		e := st.recordEnvelope(env)
		x.Notice = &e
	}
	for _, env := range n.handedOut() {
		if env.sealed() {
			x.Handed = append(x.Handed, st.recordEnvelope(env))
		}
	}
	if x.empty() {
		return r, false
	}
	r.data(&x)
	return r, true
}
