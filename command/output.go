package command

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/bgagent/bgagent"
)

// Decoder reads one line that a program has printed, without the end of the
// line, and tells the Output what it says. A line that it does not know is
// ignored: it calls nothing. The line is only valid during the call.
type Decoder func(line []byte, o *Output)

// Output is told by a [Decoder] what happens in a turn. It passes it on to the
// manager and keeps what the end of the turn needs. Its methods return at once.
type Output struct {
	r      *bgagent.Reporter
	turn   int           // number of the turn in the session, from 1
	before bgagent.Usage // what the session had used before the turn

	mu      sync.Mutex
	known   bool
	session string
	text    []byte // of the message that is being written
	last    string // the last whole message with any text
	lastErr string
	closed  bool // what comes now belongs to a new message
	called  bool // a tool was called since there was text: the manager begins anew
	tools   []bgagent.MessageTool
	total   bgagent.Usage // of the session, where the program tells it
	totaled bool
	end     *ending
	sealed  bool // end is final
}

// ending is how a program says that its turn has ended.
type ending struct {
	stop    bgagent.StopReason
	text    string
	problem string
}

// maxText bounds the text that is kept of one message, a little above what the
// manager keeps, so that it can see that there was more.
const maxText = 1<<20 + 4

// maxTools bounds the tool calls that are kept for Messages.
const maxTools = 1000

// What else a program says is bounded, too, whatever it prints.
const (
	maxName    = 200 // bytes of the name of a tool, and of the id of a call
	maxSession = 4 << 10
	maxProblem = 64 << 10
)

// short returns the id, or one that stands for it when it is long. It holds on to
// nothing that the id is a part of.
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

// Known says that the line was one of the program's, though there is nothing to
// tell. The other methods imply it. A program none of whose lines are known is
// not the one that was expected.
func (o *Output) Known() { o.locked(func() {}) }

func (o *Output) locked(f func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.known = true
	f()
}

// Session tells the program's own id of the session.
func (o *Output) Session(id string) {
	o.locked(func() {
		if id != "" && len(id) <= maxSession {
			o.session = strings.Clone(id)
		}
	})
}

// Text tells a piece of the message that the agent writes.
func (o *Output) Text(piece string) { o.write(piece, false) }

// Message tells a whole message. It ends the one before.
func (o *Output) Message(text string) { o.write(text, true) }

func (o *Output) write(s string, whole bool) {
	if s == "" {
		o.Known()
		return
	}
	between := ""
	o.locked(func() {
		if whole {
			o.closeLocked()
		}
		if o.closed {
			// Pieces that follow each other without a tool call between them
			// are one text to the manager.
			if !o.called {
				between = "\n\n"
			}
			o.text, o.closed = o.text[:0], false
		}
		o.called = false
		if room := maxText - len(o.text); room > 0 {
			o.text = append(o.text, s[:min(room, len(s))]...)
		}
		if whole {
			o.closeLocked()
		}
	})
	o.r.Text(between + s)
}

func (o *Output) closeLocked() {
	if len(o.text) > 0 && !o.closed { // else it has been copied
		o.last, o.closed = string(o.text), true
	}
}

// Reasoning tells that the agent is thinking, and what.
func (o *Output) Reasoning(piece string) {
	o.Known()
	if piece != "" {
		o.r.Reasoning(piece)
	}
}

// Tool tells of a tool call, or how far it has got. The id need only be unique
// in the turn.
func (o *Output) Tool(id, name string, state bgagent.ToolState) {
	t := bgagent.MessageTool{ID: strconv.Itoa(o.turn) + "." + short(id), Name: cut(name, maxName), State: state}
	o.locked(func() {
		i := slices.IndexFunc(o.tools, func(x bgagent.MessageTool) bool { return x.ID == t.ID })
		switch {
		case i >= 0:
			if t.Name == "" {
				t.Name = o.tools[i].Name
			}
			o.tools[i] = t
			return
		case len(o.tools) < maxTools:
			o.tools = append(o.tools, t)
		}
		o.closeLocked()
		o.called = true
	})
	if t.Name == "" {
		t.Name = "tool"
	}
	o.r.Tool(t)
}

// Todos tells the agent's whole todo list.
func (o *Output) Todos(list []bgagent.Todo) {
	o.Known()
	o.r.Todos(list)
}

// Usage tells what was used since it was last told.
func (o *Output) Usage(u bgagent.Usage) {
	o.Known()
	u = bgagent.Usage{InputTokens: max(u.InputTokens, 0), OutputTokens: max(u.OutputTokens, 0), Cost: max(u.Cost, 0)}
	if u != (bgagent.Usage{}) {
		o.r.Usage(u)
	}
}

// TotalUsage tells what the session has used since its beginning, in the turns
// before this one too.
func (o *Output) TotalUsage(u bgagent.Usage) {
	var delta bgagent.Usage
	o.locked(func() {
		from := o.before
		if o.totaled {
			from = o.total
		}
		delta = bgagent.Usage{
			InputTokens:  max(u.InputTokens-from.InputTokens, 0),
			OutputTokens: max(u.OutputTokens-from.OutputTokens, 0),
			Cost:         max(u.Cost-from.Cost, 0),
		}
		o.total, o.totaled = u, true
	})
	o.Usage(delta)
}

// Activity tells that something has happened that no other method tells.
func (o *Output) Activity() {
	o.Known()
	o.r.Activity()
}

// Problem tells of an error that need not be the end of the turn. When the turn
// fails without a word, it is named.
func (o *Output) Problem(text string) {
	o.locked(func() { o.lastErr = strings.Clone(cut(text, maxProblem)) })
	o.r.Activity()
}

// End tells that the turn has ended, and how. Text is the agent's whole answer;
// when it is empty the last message counts. Problem says what went wrong. When
// a program says so several times, the last time counts.
func (o *Output) End(stop bgagent.StopReason, text, problem string) {
	o.conclude(&ending{stop, cut(text, maxText), strings.Clone(cut(problem, maxProblem))})
}

// GoesOn takes back what End has told.
func (o *Output) GoesOn() { o.conclude(nil) }

func (o *Output) conclude(end *ending) {
	o.locked(func() {
		if !o.sealed {
			o.end = end
		}
	})
}

// seal makes what was said of the end final, if anything was.
func (o *Output) seal() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sealed = o.end != nil
	return o.sealed
}

// answer returns the agent's last message, as far as it has got.
func (o *Output) answerLocked() string {
	switch {
	case o.end != nil && o.end.text != "":
		return o.end.text
	case len(o.text) > 0:
		return string(o.text)
	}
	return o.last
}

// said is what an Output has been told in the end.
type said struct {
	known   bool
	session string
	text    string
	lastErr string
	end     *ending
	tools   []bgagent.MessageTool
	total   bgagent.Usage
	totaled bool
}

// said returns what has been told so far.
func (o *Output) said() said {
	o.mu.Lock()
	defer o.mu.Unlock()
	return said{
		known: o.known, session: o.session, text: o.answerLocked(), lastErr: o.lastErr, end: o.end,
		tools: slices.Clone(o.tools), total: o.total, totaled: o.totaled,
	}
}

// brief is the part of said that costs nothing.
type brief struct {
	known, over, sealed bool
	session             string
}

func (o *Output) brief() brief {
	o.mu.Lock()
	defer o.mu.Unlock()
	return brief{known: o.known, over: o.end != nil, sealed: o.sealed, session: o.session}
}

// cut returns at most n bytes of s, and no half rune. What it has cut off is not
// held on to.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(strings.Clone(s[:max(n, 0)]), "")
}
