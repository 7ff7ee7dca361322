package command

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/jsonlines"
)

// Decoder reads one JSON object that a program has printed, and tells the Output
// what it says. An object that it does not know is ignored: it calls nothing. The
// line is valid JSON, and only during the call.
type Decoder func(line []byte, o *Output)

// Output is told by a [Decoder] what happens in a turn. It passes it on to the
// manager and keeps what the end of the turn needs. Its methods return at once.
type Output struct {
	r      *bgagent.Reporter
	turn   int           // number of the turn in the session, from 1
	before bgagent.Usage // what the session had used before the turn
	memory any           // what the decoder keeps for the next turn of the session; for it alone

	mu      sync.Mutex
	cleaner jsonlines.Cleaner // of the message that is being written
	acted   time.Time         // when activity was last passed on
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

	background []string       // what the program still does beside the turn
	waited     bool           // the end was told while there was some
	denied     []string       // the names of tools that were refused
	times      map[string]int // how many calls had an id, where it were several
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

// Text tells a piece of the message that the agent writes. What comes after the
// end of the turn is not the agent's answer, and counts as activity only; see
// [Output.GoesOn].
func (o *Output) Text(piece string) { o.write(piece, false) }

// Message tells a whole message. It ends the one before. Escape sequences and
// control characters are removed, here and wherever text is told.
func (o *Output) Message(text string) { o.write(text, true) }

func (o *Output) write(s string, whole bool) {
	told, late := "", false
	o.locked(func() {
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

// addLocked adds to the message that is being written, and returns what to tell.
func (o *Output) addLocked(s string) string {
	if s == "" {
		return ""
	}
	between := ""
	if o.closed {
		// Pieces that follow each other without a tool call between them are one
		// text to the manager.
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

// closeLocked ends the message that is being written. It returns what the end of
// it adds to the text.
func (o *Output) closeLocked() (rest string) {
	rest = o.addLocked(o.cleaner.Rest())
	if len(o.text) > 0 && !o.closed { // else it has been copied
		o.last, o.closed = string(o.text), true
	}
	return rest
}

// completes tells a whole message of which pieces may have been told: what those do
// not have is told.
func (o *Output) completes(text string) {
	text = jsonlines.Clean(text)
	rest, told := "", false
	o.locked(func() {
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

// Reasoning tells that the agent is thinking, and what.
func (o *Output) Reasoning(piece string) {
	o.Known()
	if piece = jsonlines.Clean(piece); piece != "" {
		o.r.Reasoning(piece)
	}
}

// Tool tells of a tool call, or how far it has got. The id need only be unique
// among the calls that have not ended: a call that is told by its name once more,
// after one of that id has ended, is another one.
func (o *Output) Tool(id, name string, state bgagent.ToolState) {
	id = strconv.Itoa(o.turn) + "." + short(id)
	t := bgagent.MessageTool{ID: id, Name: oneLine(cut(jsonlines.Clean(name), maxName)), State: state}
	told, late := "", false
	o.locked(func() {
		i := o.indexLocked(t.ID)
		if late = o.end != nil && (i < 0 || o.tools[i].State >= bgagent.ToolDone); !late {
			told, late = o.toolLocked(&t)
		}
	})
	if late {
		o.Activity()
		return
	}
	if t.Name == "" {
		t.Name = "tool"
	}
	if told != "" {
		o.r.Text(told)
	}
	o.r.Tool(t)
}

// toolLocked notes a call, gives it what is known of it, and returns the text
// that is to be told before it. It reports whether the call had ended before:
// then nothing is to be told of it, as that would count it again.
func (o *Output) toolLocked(t *bgagent.MessageTool) (text string, ended bool) {
	i := -1
	if times := o.times[t.ID]; times > 1 {
		i = o.indexLocked(again(t.ID, times))
	} else {
		i = o.indexLocked(t.ID)
	}
	if i >= 0 && t.Name != "" && o.tools[i].State >= bgagent.ToolDone && len(o.tools) < maxTools {
		if o.times == nil {
			o.times = map[string]int{}
		}
		o.times[t.ID] = max(o.times[t.ID], 1) + 1
		t.ID, i = again(t.ID, o.times[t.ID]), -1
	}
	if i >= 0 {
		if t.Name == "" && o.tools[i].State >= bgagent.ToolDone {
			return "", true
		}
		if t.ID = o.tools[i].ID; t.Name == "" {
			t.Name = o.tools[i].Name
		}
		o.tools[i] = *t
		return "", false
	}
	if len(o.tools) < maxTools {
		o.tools = append(o.tools, *t)
	}
	rest := o.closeLocked()
	o.called = true
	return rest, false
}

func (o *Output) indexLocked(id string) int {
	return slices.IndexFunc(o.tools, func(x bgagent.MessageTool) bool { return x.ID == id })
}

// again is the id of the nth call that the program has given this one.
func again(id string, n int) string { return id + "#" + strconv.Itoa(n) }

// Todos tells the agent's whole todo list.
func (o *Output) Todos(list []bgagent.Todo) {
	o.Known()
	for i := range list {
		list[i].Text = jsonlines.Clean(list[i].Text)
	}
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
// before this one too. When that is less than was told in those, the program has
// begun to count anew.
func (o *Output) TotalUsage(u bgagent.Usage) {
	var delta bgagent.Usage
	o.locked(func() {
		from := o.before
		if o.totaled {
			from = o.total
		} else if u.InputTokens < from.InputTokens || u.OutputTokens < from.OutputTokens || u.Cost < from.Cost {
			from = bgagent.Usage{}
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

// Activity tells that something has happened that no other method tells. It is
// passed on once a second at most.
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

// Problem tells of an error that need not be the end of the turn. When the turn
// fails without a word, it is named.
func (o *Output) Problem(text string) {
	o.locked(func() { o.lastErr = bounded(text) })
	o.r.Activity()
}

// bounded returns what can be kept of a problem.
func bounded(text string) string { return strings.Clone(jsonlines.Clean(cut(text, maxProblem))) }

// Denied tells that the agent was refused a tool. The reason of a turn that ends
// badly names it.
func (o *Output) Denied(tool string) {
	o.locked(func() {
		if len(o.denied) < maxDenied {
			o.denied = append(o.denied, oneLine(cut(jsonlines.Clean(tool), maxName)))
		}
	})
}

const maxDenied = 100

// End tells that the turn has ended, and how. Text is the agent's whole answer;
// when it is empty the last message counts. Problem says what went wrong. When
// a program says so several times, the last time counts.
func (o *Output) End(stop bgagent.StopReason, text, problem string) {
	text = jsonlines.Clean(cut(text, maxText))
	o.conclude(&ending{stop, text, bounded(problem)})
}

// GoesOn takes back what End has told: what follows belongs to the turn again.
func (o *Output) GoesOn() { o.conclude(nil) }

func (o *Output) conclude(end *ending) {
	rest := ""
	o.locked(func() {
		if o.sealed {
			return
		}
		rest = o.closeLocked()
		o.end, o.waited = end, end != nil && len(o.background) > 0
	})
	if rest != "" {
		o.r.Text(rest)
	}
}

// Background tells what the program itself still does beside the turn, such as a
// command that runs in the background: the whole list. As long as there is
// something, what End has told is not the end, for the agent hears of it and goes
// on. A program that exits before then has broken off.
func (o *Output) Background(work []string) {
	o.locked(func() {
		o.background = o.background[:0]
		for _, w := range work {
			o.background = append(o.background, oneLine(cut(jsonlines.Clean(w), maxName)))
		}
	})
}

// seal makes what was said of the end final, if anything was.
func (o *Output) seal() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sealed = o.end != nil && len(o.background) == 0
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

	background, denied []string
}

// said returns what has been told so far.
func (o *Output) said() said {
	o.mu.Lock()
	defer o.mu.Unlock()
	return said{
		known: o.known, session: o.session, text: o.answerLocked(), lastErr: o.lastErr, end: o.end,
		tools: slices.Clone(o.tools), total: o.total, totaled: o.totaled,
		background: slices.Clone(o.background), denied: slices.Clone(o.denied),
	}
}

// brief is the part of said that costs nothing.
type brief struct {
	known, sealed bool
	over          bool // the turn has ended, as far as is known
	waited        bool // the end was told while the program did something in the background
	session       string
}

func (o *Output) brief() brief {
	o.mu.Lock()
	defer o.mu.Unlock()
	return brief{
		known: o.known, sealed: o.sealed, over: o.end != nil && len(o.background) == 0,
		waited: o.waited, session: o.session,
	}
}

// cut returns at most n bytes of s, and no half rune. What it has cut off is not
// held on to.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(strings.Clone(s[:max(n, 0)]), "")
}
