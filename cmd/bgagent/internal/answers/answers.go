// Package answers keeps the whole text of answers for a program that writes them to
// files. A manager keeps only the beginning of a long answer, so that thousands of
// answers fit into memory.
package answers

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/bgagent/bgagent"
)

// Max is the default maximum number of bytes that are kept of an answer.
const Max = 64 << 20

// A Keeper stores the texts of turns. It is safe for concurrent use.
type Keeper struct {
	most  int64
	mu    sync.Mutex
	spool func() (*os.File, error)
	kept  map[string][]*tape // by task id: the tape of the last earlier turn with text, if any, and then the tape of the latest turn
}

// New returns a Keeper. The argument "most" is the maximum number of bytes that the Keeper keeps of each
// answer; 0 means Max.
func New(most int64) *Keeper {
	if most == 0 {
		most = Max
	}
	return &Keeper{most: most, kept: map[string][]*tape{}}
}

// SpoolTo sets the function that creates files for long texts. Before it is called, only the beginning of a
// long text is kept.
func (k *Keeper) SpoolTo(spool func() (*os.File, error)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.spool = spool
}

// errNoPlace is returned if a long text is recorded before SpoolTo is called.
var errNoPlace = errors.New("there is no place to keep it")

func (k *Keeper) newFile() (*os.File, error) {
	k.mu.Lock()
	spool := k.spool
	k.mu.Unlock()
	if spool == nil {
		return nil, errNoPlace
	}
	return spool()
}

// Record returns a reporter for a turn of the prompt's task. The reporter keeps the text, and passes
// every report on to r. The returned function must be called with the turn's TurnEnd. A nil Keeper
// returns r itself and does not record anything.
func (k *Keeper) Record(p bgagent.Prompt, r *bgagent.Reporter) (*bgagent.Reporter, func(bgagent.TurnEnd)) {
	if k == nil {
		return r, func(bgagent.TurnEnd) {}
	}
	t := &tape{keeper: k, tools: map[string]struct{}{}}
	k.add(p.Task, t)
	passOn := bgagent.NewReporter(func(x bgagent.Report) {
		t.take(x)
		forward(r, x)
	})
	return passOn, t.end
}

// The method "add" makes t the latest tape of a task. Of the earlier tapes, only the last one with
// text is kept, because an attempt's last text is its answer.
func (k *Keeper) add(task string, t *tape) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var before *tape
	for _, old := range k.kept[task] {
		if !old.empty() {
			before.close()
			before = old
		}
	}
	k.kept[task] = nil
	if before != nil {
		k.kept[task] = append(k.kept[task], before)
	}
	k.kept[task] = append(k.kept[task], t)
}

// The function "forward" passes the report x on to the reporter r.
func forward(r *bgagent.Reporter, x bgagent.Report) {
	switch x.Kind {
	case bgagent.ReportText:
		r.Text(x.Text)
	case bgagent.ReportReasoning:
		r.Reasoning(x.Text)
	case bgagent.ReportTool:
		r.Tool(x.Tool)
	case bgagent.ReportTodos:
		r.Todos(x.Todos)
	case bgagent.ReportUsage:
		r.Usage(x.Usage)
	case bgagent.ReportAsking:
		r.Asking(x.Text)
	case bgagent.ReportActivity:
		r.Activity()
	case bgagent.ReportState:
		r.SaveState(x.Saved)
	case bgagent.ReportCompaction:
		r.Compaction()
	case bgagent.ReportRetrying:
		r.Retrying(*x.Provider, x.RetryAt)
	}
}

// Take returns the whole answer of an ended task whose result was cut. It returns nil if the result
// was not cut, or if no kept text starts with the result. The caller must close the answer.
func (k *Keeper) Take(task bgagent.Task) *Answer {
	k.mu.Lock()
	tapes := k.kept[task.ID]
	delete(k.kept, task.ID)
	k.mu.Unlock()
	var found *Answer
	for _, t := range slices.Backward(tapes) {
		if task.Cut && found == nil {
			found = t.answer(task)
		}
		if found == nil || found.tape != t {
			t.close()
		}
	}
	return found
}

// Message searches the messages of the task's session. It returns the last message that starts with the
// task's result, or nil if there is none. Use it for clients that read turns from a server's messages. The
// caller must close the answer.
func (k *Keeper) Message(ctx context.Context, from bgagent.MessageReader, task bgagent.Task) *Answer {
	var text string
	for cursor, more := bgagent.Cursor(""), true; more; {
		page, err := from.Messages(ctx, task.Session, cursor, 0)
		if err != nil {
			return nil
		}
		for _, m := range page.Messages {
			if m.Role == bgagent.RoleAgent && strings.HasPrefix(strings.ToValidUTF8(m.Text, "\ufffd"), task.Result) {
				text = m.Text
			}
		}
		more = page.More && page.Next != cursor
		cursor = page.Next
	}
	if text == "" {
		return nil
	}
	t := &tape{keeper: k}
	t.take(bgagent.Report{Kind: bgagent.ReportText, Text: text})
	return t.answer(task)
}

// Answer is the whole text of an answer, or the part of it that is kept.
type Answer struct {
	tape *tape
	from int64
	note string
}

// Size returns the number of bytes that CopyTo writes.
func (a *Answer) Size() int64 { return a.tape.kept() - a.from }

// Whole returns the answer's length in bytes before the answer was cut, and whether it was cut.
func (a *Answer) Whole() (bytes int64, cut bool) {
	return a.tape.size - a.from, a.note != ""
}

// Note describes the missing part of the answer. If the answer is whole, the note is empty.
func (a *Answer) Note() string { return a.note }

// CopyTo writes the text. It can be called more than once.
func (a *Answer) CopyTo(w io.Writer) error {
	_, err := io.Copy(w, a.tape.reader(a.from))
	return err
}

// Close frees the answer's memory and file.
func (a *Answer) Close() { a.tape.close() }
