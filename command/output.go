package command

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/jsonlines"
)

// Decoder decodes one JSON object that a program printed. It calls the methods of o to report the
// content of the object. For an unknown object, it does not call any method. The line is valid
// JSON. The decoder must not use the slice after the call.
type Decoder func(line []byte, o *Output)

// Output receives the events of a turn from a [Decoder]. It reports them to the manager, and
// keeps the answer and other data for the end of the turn. Its methods return immediately.
type Output struct {
	r      *bgagent.Reporter
	turn   int           // number of the turn in the session; the first turn has number 1
	before bgagent.Usage // usage of the session before the turn
	memory any           // state that the decoder keeps for the next turn; used only by the decoder

	mu      sync.Mutex
	cleaner jsonlines.Cleaner // cleans the current message
	acted   time.Time         // when activity was last reported
	known   bool
	strange bool // whether the decoder has called notKnown for the current line
	session string
	text    []byte // text of the current message
	last    string // text of the last finished message that has text
	lastErr string
	closed  bool // whether the next text begins a new message
	called  bool // whether a tool was called after the last text; the manager then begins a new message
	tools   []bgagent.MessageTool
	total   bgagent.Usage // usage of the session; valid if the field "totaled" is true
	totaled bool
	end     *ending
	sealed  bool // whether the reported end is final
	draft   draft
	broken  *ending // error after which the agent has done nothing; nil if there is no such error
	round   round
	parts   parts
	used    bgagent.Usage // usage that has not been reported yet; see reportUsage
	told    bgagent.Usage // usage of the turn that has been reported

	failed *bgagent.ProviderError // failure at the provider after which the agent has done nothing; nil if there is none
	tries  int                    // number of requests for the current answer, as far as the program has shown them; see retries
	status int                    // status of the last refused request for the current answer, if only standard error shows it
	step   func(want bgagent.ProviderNextStep, session string, called bool) bgagent.ProviderNextStep

	background []string       // work that the program still does in the background
	waited     bool           // whether the end was reported while the field "background" was not empty
	denied     []string       // names of refused tools
	times      map[string]int // number of calls per id; only for ids that several calls have used
}

// ending describes how the program reported that a turn ended.
type ending struct {
	stop    bgagent.StopReason
	text    string
	problem string
}

// maxText is the maximum number of bytes kept per message. It is a little more than the manager
// keeps, so the manager notices if a message is too long.
const maxText = 1<<20 + 4

// maxTools is the maximum number of tool calls that are kept for Messages.
const maxTools = 1000

// Limits for the other data that is kept from a program's output, in bytes.
const (
	maxName    = 200      // name of a tool, and id of a call
	maxSession = 4 << 10  // program's id for a session
	maxProblem = 64 << 10 // text of an error
)

// The function "short" returns the id, or a short substitute for a long id. The substitute does not
// share memory with the id.
func short(id string) string {
	if len(id) <= maxName {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	return cut(id, maxName/2) + "…" + hex.EncodeToString(sum[:16])
}

func newOutput(r *bgagent.Reporter, turn int, before bgagent.Usage) *Output {
	return &Output{r: r, turn: turn, before: before}
}

// Known marks the line as known. A decoder calls Known for a line that it knows but that contains
// nothing to report. All other methods also mark the line as known. If a program does not print any
// known line, it is not the expected program.
func (o *Output) Known() { o.locked(func() {}) }

// notKnown marks the current line as not understood. The mark counts even if earlier lines were
// known.
func (o *Output) notKnown() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.strange = true
}

// The method "understood" reports whether the line that was just decoded is treated as understood.
// After the first known line, every line is treated as understood unless the decoder calls
// notKnown, because newer versions of a program print lines that its decoder does not know.
func (o *Output) understood() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	strange := o.strange
	o.strange = false
	return o.known && !strange
}

func (o *Output) locked(f func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.known = true
	f()
}

// Session reports the program's id for the session.
func (o *Output) Session(id string) {
	o.locked(func() {
		if id != "" && len(id) <= maxSession {
			o.session = strings.Clone(id)
		}
	})
}

// Text reports a piece of the agent's current message. After a call to End, text is reported only as
// activity, unless [Output.GoesOn] is called.
func (o *Output) Text(piece string) { o.write(piece, false) }

// Message reports a whole message. It also ends the previous message. As in all other text,
// escape sequences and control characters are removed.
func (o *Output) Message(text string) { o.write(text, true) }

func (o *Output) write(s string, whole bool) {
	told, late := "", false
	o.locked(func() {
		if s != "" {
			o.actsLocked()
		}
		if late = o.end != nil; late {
			return
		}
		if whole {
			told = o.closeLocked()
			s = jsonlines.Clean(s)
		} else {
			s = o.cleaner.Clean(s)
		}
		told += o.addLocked(s)
		if whole {
			o.closeLocked()
		}
	})
	switch {
	case late:
		o.Activity()
	case told != "":
		o.r.Text(told)
	}
}

// addLocked adds a piece to the current message. It returns the text to report.
func (o *Output) addLocked(s string) string {
	if s == "" {
		return ""
	}
	between := ""
	if o.closed {
		// The manager joins pieces into one text if no tool call is between them, so an empty line
		// separates the messages.
		if !o.called {
			between = "\n\n"
		}
		o.text, o.closed = o.text[:0], false
	}
	o.called = false
	if room := maxText - len(o.text); room > 0 {
		o.text = append(o.text, s[:min(room, len(s))]...)
	}
	return between + s
}

// closeLocked ends the current message. It returns the text that the cleaner still held back, which
// the caller must report.
func (o *Output) closeLocked() (rest string) {
	rest = o.addLocked(o.cleaner.Rest())
	if len(o.text) > 0 && !o.closed { // if the message is already closed, o.last contains its text
		o.last, o.closed = string(o.text), true
	}
	return rest
}

// The method "completes" reports a whole message. If pieces of the message have been reported
// before, it reports only the rest.
func (o *Output) completes(text string) {
	text = jsonlines.Clean(text)
	rest, told := "", false
	o.locked(func() {
		if text != "" {
			o.actsLocked()
		}
		if o.end != nil || o.closed || len(o.text) == 0 {
			return
		}
		rest = o.addLocked(o.cleaner.Rest())
		var more string
		if more, told = strings.CutPrefix(text, string(o.text)); told {
			rest += o.addLocked(more)
			o.closeLocked()
		}
	})
	if rest != "" {
		o.r.Text(rest)
	}
	if !told {
		o.Message(text)
	}
}

// Reasoning reports a piece of the agent's reasoning.
func (o *Output) Reasoning(piece string) {
	o.Known()
	if piece = jsonlines.Clean(piece); piece != "" {
		o.acts()
		o.r.Reasoning(piece)
	}
}

// Todos reports the agent's whole todo list.
func (o *Output) Todos(list []bgagent.Todo) {
	o.Known()
	for i := range list {
		list[i].Text = jsonlines.Clean(list[i].Text)
	}
	o.r.Todos(list)
}

// Usage reports the usage since the last call to Usage. If one line reports both the usage and the
// end of the turn, Usage and [Output.End] can be called in either order.
func (o *Output) Usage(u bgagent.Usage) {
	o.Known()
	u = bgagent.Usage{InputTokens: max(u.InputTokens, 0), OutputTokens: max(u.OutputTokens, 0), Cost: possible(u.Cost)}
	o.locked(func() { o.used = more(o.used, u) })
}

// mostCost is larger than the cost of any real turn. Sums of costs up to this limit stay finite.
const mostCost = 1e12

// The function "possible" returns the cost, or 0 if no turn can have this cost. Without this check,
// an infinite cost or NaN would keep the state of the session from being saved, because JSON cannot
// represent such a value.
func possible(cost float64) float64 {
	if cost >= 0 && cost <= mostCost { // false for NaN
		return cost
	}
	return 0
}

// reportUsage reports the usage of the last line. Usage that the program prints with the end of the turn is
// held back until the end, so that a budget that is used up at the end does not change how the turn ends.
func (o *Output) reportUsage() {
	var u bgagent.Usage
	o.mu.Lock()
	if o.end == nil {
		u, o.used = o.used, u
		o.told = more(o.told, u)
	}
	o.mu.Unlock()
	if u != (bgagent.Usage{}) {
		o.r.Usage(u)
	}
}

// TotalUsage reports the usage of the whole session, including its earlier turns. If the usage is
// less than before the turn, the program is assumed to have restarted its count. If TotalUsage is
// called several times, the largest figures are used.
func (o *Output) TotalUsage(u bgagent.Usage) {
	var delta bgagent.Usage
	u.Cost = possible(u.Cost)
	o.locked(func() {
		if u == (bgagent.Usage{}) { // if the total were zero, the next turn would count all earlier usage again
			return
		}
		from := o.before
		if o.totaled {
			from = o.total
		} else if u.InputTokens < from.InputTokens || u.OutputTokens < from.OutputTokens || u.Cost < from.Cost {
			from = bgagent.Usage{}
		}
		delta = less(u, from)
		o.total, o.totaled = most(u, o.total), true
	})
	o.Usage(delta)
}

// Activity reports activity that no other method reports. It is passed on to the manager at
// most once per second.
func (o *Output) Activity() {
	now, due := time.Now(), false
	o.locked(func() {
		if due = now.Sub(o.acted) >= time.Second; due {
			o.acted = now
		}
	})
	if due {
		o.r.Activity()
	}
}

// Problem reports an error that does not necessarily end the turn. If the turn fails and the program
// gives no reason, the last problem becomes part of the turn's error.
func (o *Output) Problem(text string) {
	o.locked(func() { o.lastErr = bounded(text) })
	o.r.Activity()
}

// The function "bounded" cleans the text of a problem, and cuts it if it is too long.
func bounded(text string) string { return strings.Clone(jsonlines.Clean(cut(text, maxProblem))) }

// Denied reports that the use of a tool was refused. If the turn ends badly, the reason names
// the tool.
func (o *Output) Denied(tool string) {
	o.locked(func() {
		if len(o.denied) < maxDenied {
			o.denied = append(o.denied, oneLine(cut(jsonlines.Clean(tool), maxName)))
		}
	})
}

const maxDenied = 100

// End reports that the turn has ended and why. text is the agent's whole answer; if text is empty,
// the last message is the answer. problem describes the failure, if any. If End is called several
// times without [Output.GoesOn] in between, the call with the worst stop reason is used. If several
// stop reasons are equally bad, the last of these calls is used. If that call has no text, the text
// from another call is the answer.
func (o *Output) End(stop bgagent.StopReason, text, problem string) {
	text = jsonlines.Clean(cut(text, maxText))
	o.conclude(&ending{stop, text, bounded(problem)})
}

// GoesOn withdraws the end that an earlier call to End reported, because the turn continues. If that
// end was a failure, the turn can succeed only if the agent does something after the call to GoesOn.
func (o *Output) GoesOn() { o.conclude(nil) }

func (o *Output) conclude(end *ending) {
	rest := ""
	o.tellDraft()
	o.locked(func() {
		if o.sealed {
			return
		}
		rest = o.closeLocked()
		o.endLocked(end, o.broken)
		o.waited = end != nil && len(o.background) > 0
	})
	if rest != "" {
		o.r.Text(rest)
	}
}

// Background reports the whole list of work that the program does in the background, such as
// running commands. While the list is not empty, a call to End does not end the turn, because the
// agent gets the results and continues. If the program exits while the list is not empty and End
// reported success, the turn is reported as interrupted. Any other reported end remains valid.
func (o *Output) Background(work []string) {
	o.locked(func() {
		o.background = o.background[:0]
		for _, w := range work {
			o.background = append(o.background, oneLine(cut(jsonlines.Clean(w), maxName)))
		}
	})
}

// The method "seal" makes the reported end final. It reports false if no end was reported, or if
// there is work in the background.
func (o *Output) seal() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sealed = o.end != nil && len(o.background) == 0
	return o.sealed
}

// answerLocked returns the agent's answer so far.
func (o *Output) answerLocked() string {
	switch {
	case o.end != nil && o.end.text != "":
		return o.end.text
	case len(o.text) > 0:
		return string(o.text)
	}
	return o.last
}

// said is a copy of the data received by an Output.
type said struct {
	known   bool
	session string
	text    string
	lastErr string
	end     *ending
	tools   []bgagent.MessageTool
	total   bgagent.Usage
	totaled bool
	used    bgagent.Usage // usage that was not reported yet
	whole   bgagent.Usage // usage of the whole turn
	failed  *bgagent.ProviderError
	tries   int
	status  int

	background, denied []string
}

// The method "said" returns a copy of the data that the Output has received so far.
func (o *Output) said() said {
	o.mu.Lock()
	defer o.mu.Unlock()
	return said{
		known: o.known, session: o.session, text: o.answerLocked(), lastErr: o.lastErr, end: o.end,
		tools: slices.Clone(o.tools), total: o.total, totaled: o.totaled, used: o.used, whole: more(o.told, o.used), failed: o.failed, tries: o.tries, status: o.status,
		background: slices.Clone(o.background), denied: slices.Clone(o.denied),
	}
}

// brief is a copy of a few fields of an Output. Making a brief is cheaper than making a said.
type brief struct {
	known, sealed bool
	over          bool // whether an end was reported and no work is left in the background
	waited        bool // whether the end was reported while there was work in the background
	wrote, called bool // wrote: whether the agent has written text; called: whether it has called a tool
	session       string
}

func (o *Output) brief() brief {
	o.mu.Lock()
	defer o.mu.Unlock()
	return brief{
		known: o.known, sealed: o.sealed, over: o.end != nil && len(o.background) == 0,
		waited: o.waited, wrote: len(o.text) > 0 || o.last != "", called: len(o.tools) > 0, session: o.session,
	}
}

// The function "cut" returns at most n bytes of s, without splitting a character. A shortened
// result does not share memory with s.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(strings.Clone(s[:max(n, 0)]), "")
}
