// Package transcript keeps the beginning and the end of the output of tasks'
// programs, for standard output and standard error separately.
package transcript

import (
	"fmt"
	"io"
	"sync"

	"github.com/bgagent/bgagent/internal/cleantext"
)

// Kept is the number of bytes that are kept from the beginning of a stream. The same number is kept from its
// end.
const Kept = 1 << 20

// Keeper keeps the output of tasks' programs until the tasks end. It is safe for concurrent
// use. For each task, it holds at most 4*Kept bytes: the beginning and the end of each of two
// streams. If the programs print less, it holds everything that they print.
type Keeper struct {
	secrets *Secrets

	mu    sync.Mutex
	tasks map[string]*Log
}

// New returns a Keeper that masks the secrets in the logs that it writes.
func New(secrets *Secrets) *Keeper { return &Keeper{secrets: secrets, tasks: map[string]*Log{}} }

// Printed adds output from a task's program. Stream 1 is standard output. Any other number means standard
// error.
func (k *Keeper) Printed(task string, stream int, p []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	l := k.tasks[task]
	if l == nil {
		l = &Log{secrets: k.secrets}
		k.tasks[task] = l
	}
	if stream == 1 {
		l.out.add(p)
	} else {
		l.errs.add(p)
	}
}

// Take removes the output of a task's programs from the Keeper and returns it. It returns nil if
// the programs did not print anything.
func (k *Keeper) Take(task string) *Log {
	k.mu.Lock()
	defer k.mu.Unlock()
	l := k.tasks[task]
	delete(k.tasks, task)
	return l
}

// Log is the output of a task's programs.
type Log struct {
	secrets   *Secrets
	out, errs stream
}

// CopyTo writes the log without escape sequences and control characters. Secrets are replaced with
// their names. If part of a stream was not kept, a line says how many bytes are missing.
func (l *Log) CopyTo(w io.Writer) error {
	for _, part := range []struct {
		title string
		*stream
	}{{"standard error", &l.errs}, {"standard output", &l.out}} {
		if part.size == 0 {
			continue
		}
		head, tail, left := part.text(l.secrets)
		if _, err := fmt.Fprintf(w, "== %s, %d bytes ==\n", part.title, part.size); err != nil {
			return err
		}
		if err := section(w, head); err != nil {
			return err
		}
		if left == 0 {
			continue
		}
		if _, err := fmt.Fprintf(w, "[… %d bytes are left out here …]\n", left); err != nil {
			return err
		}
		if err := section(w, tail); err != nil {
			return err
		}
	}
	return nil
}

// The function "section" writes a text and makes sure that it ends with a line break.
func section(w io.Writer, text string) error {
	text = cleantext.String(text)
	if text == "" || text[len(text)-1] != '\n' {
		text += "\n"
	}
	_, err := io.WriteString(w, text)
	return err
}

// stream holds the beginning and the end of one output stream.
type stream struct {
	size int64
	head []byte
	tail []byte // the latest bytes after those in the field "head"; a ring buffer after it has become full
	next int    // index of the oldest byte in the ring
}

func (s *stream) add(p []byte) {
	s.size += int64(len(p))
	n := min(Kept-len(s.head), len(p))
	s.head = append(s.head, p[:n]...)
	p = p[n:]
	if len(p) > Kept {
		p = p[len(p)-Kept:]
	}
	n = min(Kept-len(s.tail), len(p))
	s.tail = append(s.tail, p[:n]...)
	for p = p[n:]; len(p) > 0; p = p[n:] {
		n = copy(s.tail[s.next:], p)
		s.next = (s.next + n) % Kept
	}
}

// text returns the text of the stream. If no bytes are missing, the result "head" is the whole
// text. Otherwise, the results "head" and "tail" are the beginning and the end of the text, and the
// result "left" is the number of missing bytes between them. Secrets are masked. If a secret was
// cut at the gap, its remaining part is removed.
func (s *stream) text(secrets *Secrets) (head, tail string, left int64) {
	tail = string(s.tail[s.next:]) + string(s.tail[:s.next])
	if left = s.size - int64(len(s.head)+len(s.tail)); left == 0 {
		return secrets.Mask(string(s.head) + tail), "", 0
	}
	n, _ := secrets.complete(string(s.head))
	return secrets.Mask(string(s.head[:n])), secrets.withoutBegin(secrets.Mask(tail)), left
}
