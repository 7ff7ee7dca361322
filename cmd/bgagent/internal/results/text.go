package results

import (
	"io"

	"github.com/bgagent/bgagent"
)

// Text is an answer in memory or in a file.
type Text interface {
	// Size returns the number of bytes that CopyTo writes.
	Size() int64
	// CopyTo writes the answer. It can be called more than once.
	CopyTo(w io.Writer) error
	// Note describes the missing part of the answer. If the answer is whole, the note is empty.
	Note() string
}

// held is an answer in memory.
type held struct{ text, note string }

func (h held) Size() int64  { return int64(len(h.text)) }
func (h held) Note() string { return h.note }

// CopyTo implements [Text].
func (h held) CopyTo(w io.Writer) error {
	_, err := io.WriteString(w, h.text)
	return err
}

// resultOf returns the result in a task's record.
func resultOf(t bgagent.Task) Text {
	h := held{text: t.Result}
	if t.Cut {
		h.note = "cut: this is only the beginning of the answer"
	}
	return h
}
