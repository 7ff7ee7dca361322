package answers

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"github.com/bgagent/bgagent"
)

const (
	// inMemory is the maximum number of bytes of a text that stay in memory. A manager keeps the same number of
	// bytes of an answer. Longer answers are rare, so few answers need a file.
	inMemory = 256 << 10

	// clientMax is the minimum number of bytes that remain of a message after a client has cut it.
	// Therefore, a shorter message is complete.
	clientMax = 1 << 20

	// maxStarts limits how many possible beginnings of the last message are kept.
	maxStarts = 256
)

// tape is the text of one turn since its last tool call.
type tape struct {
	keeper *Keeper

	mu     sync.Mutex
	tools  map[string]struct{}
	used   bool    // a tool was called after the last text
	size   int64   // length of the text, including bytes that are not kept
	starts []int64 // offsets at which messages might begin, oldest first; offset 0 is left out
	memory []byte
	file   *os.File // holds the text if it is too long for memory
	failed error    // why the rest of the text is not kept
	closed bool     // the text is no longer needed
}

// The method "take" adds the report x to the tape.
func (t *tape) take(x bgagent.Report) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.closed:
	case x.Kind == bgagent.ReportTool:
		if _, known := t.tools[x.Tool.ID]; known {
			t.startLocked(t.size) // the report may be about a new call with the same id, and a message can begin after a call
			return
		}
		t.tools[strings.Clone(x.Tool.ID)] = struct{}{}
		t.used = true
	case x.Kind == bgagent.ReportText && x.Text != "":
		if t.used {
			t.resetLocked()
			t.used = false
		}
		if strings.HasPrefix(x.Text, "\n\n") { // a separator between messages
			t.startLocked(t.size + 2)
		}
		t.writeLocked(x.Text)
	}
}

// startLocked records that a message might begin at the offset.
func (t *tape) startLocked(at int64) {
	if n := len(t.starts); n > 0 && t.starts[n-1] == at {
		return
	}
	t.starts = append(t.starts[max(0, len(t.starts)-maxStarts+1):], at)
}

// resetLocked discards the text.
func (t *tape) resetLocked() {
	t.size, t.starts, t.memory, t.failed = 0, nil, t.memory[:0], nil
	if t.file != nil {
		_ = t.file.Close()
		t.file = nil
	}
}

// writeLocked adds text. Bytes beyond the Keeper's limit are counted but not kept.
func (t *tape) writeLocked(text string) {
	room := t.keeper.most - t.size
	t.size += int64(len(text))
	if room <= 0 || t.failed != nil {
		return
	}
	text = text[:min(int64(len(text)), room)]
	if t.file == nil && len(t.memory)+len(text) <= inMemory {
		t.memory = append(t.memory, text...)
		return
	}
	if t.file == nil {
		if t.file, t.failed = t.keeper.newFile(); t.failed != nil {
			return
		}
		if _, t.failed = t.file.Write(t.memory); t.failed != nil {
			return
		}
		t.memory = nil
	}
	_, t.failed = t.file.WriteString(text)
}

// The method "end" is called at the end of the turn. If the last message is whole, it is the answer
// and replaces the reported text. If the client might have cut the message, the reported text is
// kept, because it can be longer.
func (t *tape) end(end bgagent.TurnEnd) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed && end.Text != "" && len(end.Text) < clientMax {
		t.resetLocked()
		t.writeLocked(end.Text)
	}
}

// answer returns the part of the text that starts with the task's result, or nil if
// there is no such part.
func (t *tape) answer(task bgagent.Task) *Answer {
	t.mu.Lock()
	defer t.mu.Unlock()
	if task.Result == "" {
		return nil
	}
	for i := len(t.starts); i >= 0; i-- {
		var from int64
		if i > 0 {
			from = t.starts[i-1]
		}
		if from, ok := t.beginsLocked(from, task.Result); ok {
			return &Answer{tape: t, from: from, note: t.noteLocked(from)}
		}
	}
	return nil
}

// beginsLocked reports whether the text at the offset starts with the given beginning, and returns
// the exact offset. If necessary, white space at the offset is skipped, because clients drop it.
func (t *tape) beginsLocked(from int64, beginning string) (int64, bool) {
	const space = 4 << 10
	b := make([]byte, len(beginning)+len(beginning)/8+space)
	n, err := io.ReadFull(t.readerLocked(from), b)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return 0, false
	}
	for _, text := range [][]byte{b[:n], bytes.TrimLeft(b[:n], " \t\r\n")} {
		if strings.HasPrefix(strings.ToValidUTF8(string(text), "\ufffd"), beginning) {
			return from + int64(n-len(text)), true
		}
	}
	return 0, false
}

// noteLocked returns a note about the missing part of the text after the offset. It
// returns "" if no part is missing.
func (t *tape) noteLocked(from int64) string {
	whole, kept := t.size-from, t.keptLocked()-from
	switch {
	case t.failed != nil:
		return fmt.Sprintf("cut: the answer has %d bytes; only the first %d could be kept: %v", whole, kept, t.failed)
	case whole > kept:
		return fmt.Sprintf("cut: the answer has %d bytes; only the first %s are kept", whole, size(kept))
	}
	return ""
}

// size formats a number of bytes.
func size(n int64) string {
	if n >= 1<<20 && n%(1<<20) == 0 {
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%d bytes", n)
}

func (t *tape) kept() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.keptLocked()
}

// keptLocked returns how many bytes of the text are kept.
func (t *tape) keptLocked() int64 {
	if t.file == nil {
		return int64(len(t.memory))
	}
	info, err := t.file.Stat()
	if err != nil {
		return 0
	}
	return info.Size()
}

// reader returns a reader of the text after the offset.
func (t *tape) reader(from int64) io.Reader {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.readerLocked(from)
}

func (t *tape) readerLocked(from int64) io.Reader {
	if t.file == nil {
		return bytes.NewReader(t.memory[min(from, int64(len(t.memory))):])
	}
	return io.NewSectionReader(t.file, from, t.keeper.most)
}

// close discards the text. After that, nothing is recorded. A nil tape is allowed.
func (t *tape) close() {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.resetLocked()
	t.memory, t.closed = nil, true
}

// The method "empty" reports whether there is no text.
func (t *tape) empty() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.size == 0
}
