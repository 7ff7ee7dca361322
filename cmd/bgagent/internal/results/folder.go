// Package results writes what has become of tasks into a folder: one file for
// each task, and an index of all of them.
package results

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode"

	"github.com/bgagent/bgagent"
)

// IndexName is the name of the index in its folder.
const IndexName = "index.json"

// Entry is one task in the index.
type Entry struct {
	Number      int            `json:"number"` // in the list, from 1
	ID          string         `json:"id,omitempty"`
	Description string         `json:"description"`
	Agent       string         `json:"agent"`
	Model       string         `json:"model,omitempty"`
	Status      bgagent.Status `json:"status"`
	Cause       bgagent.Cause  `json:"cause,omitempty"`
	Reason      string         `json:"reason,omitempty"`
	Queued      time.Time      `json:"queued,omitzero"`
	Started     time.Time      `json:"started,omitzero"`
	Ended       time.Time      `json:"ended,omitzero"`
	Seconds     float64        `json:"seconds"` // from start to end
	ToolCalls   int            `json:"tool_calls"`
	Input       int64          `json:"input_tokens,omitempty"`
	Output      int64          `json:"output_tokens,omitempty"`
	Cost        float64        `json:"cost,omitempty"`    // US dollars
	File        string         `json:"file,omitempty"`    // in the folder; empty when it could not be written
	Problem     string         `json:"problem,omitempty"` // why not
	Partial     bool           `json:"partial,omitempty"` // the file does not hold a finished answer
	Cut         bool           `json:"cut,omitempty"`     // the file holds only the beginning of the answer
}

// EntryOf describes a task.
func EntryOf(number int, t bgagent.Task) Entry {
	e := Entry{
		Number: number, ID: t.ID, Description: t.Description, Agent: t.Agent, Model: t.Model,
		Status: t.Status, Cause: t.Cause, Reason: t.Reason,
		Queued: t.Queued, Started: t.Started, Ended: t.Ended,
		ToolCalls: t.Progress.ToolCalls,
		Input:     t.Progress.Usage.InputTokens, Output: t.Progress.Usage.OutputTokens, Cost: t.Progress.Usage.Cost,
		Partial: t.Partial, Cut: t.Cut,
	}
	if t.Status.Terminal() {
		e.Seconds = Seconds(t.Duration(t.Ended))
	}
	return e
}

// Seconds returns d in seconds with three digits after the point. The quotient
// of whole milliseconds is the number that prints so; d.Round(…).Seconds() adds
// two numbers, and 1.602 becomes 1.6019999999999999.
func Seconds(d time.Duration) float64 {
	return float64(d.Round(time.Millisecond).Milliseconds()) / 1000
}

// Index is what the index of a folder holds.
type Index struct {
	Began       time.Time `json:"began"`
	Ended       time.Time `json:"ended,omitzero"` // of the run: zero while tasks run, and for ever after a crash
	Interrupted bool      `json:"interrupted,omitempty"`
	Tasks       []Entry   `json:"tasks"`
}

// Folder is a folder that this run alone writes into. Its methods must not be
// called concurrently.
type Folder struct {
	dir    string
	create func(path string) (io.WriteCloser, error) // a new file
}

// Open makes the folder, or takes over one that is empty. Nothing that stands
// there already is ever written over: the error says so when there is something.
func Open(dir string) (*Folder, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("making the folder for the results: %w", err)
	}
	old, err := os.ReadDir(dir)
	switch {
	case err != nil:
		return nil, fmt.Errorf("looking into the folder for the results: %w", err)
	case len(old) > 0:
		return nil, fmt.Errorf("the folder %s is not empty (it has %s), and nothing is overwritten; name a new one", dir, old[0].Name())
	}
	return &Folder{dir, createNew}, nil
}

// OpenNew makes a folder that has not been there: base, or base-2, base-3 and so
// on where other runs were faster.
func OpenNew(base string) (*Folder, error) {
	dir := base
	for n := 2; ; n++ {
		err := os.Mkdir(dir, 0o755)
		if err == nil {
			return &Folder{dir, createNew}, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("making the folder for the results: %w", err)
		}
		dir = fmt.Sprintf("%s-%d", base, n)
	}
}

func createNew(path string) (io.WriteCloser, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
}

// Dir returns the path of the folder.
func (f *Folder) Dir() string { return f.dir }

// Write writes the file of a task that has ended and returns its name: the
// answer as it is, or after a line that says why there is no whole one. When the
// disk is full, or the file cannot be written for another reason, the error is a
// [*WriteError] and there is no file.
func (f *Folder) Write(number int, t bgagent.Task) (string, error) {
	name := fmt.Sprintf("%03d-%s.md", number, slug(t.Description))
	text := t.Result
	if t.Status != bgagent.Completed || text == "" {
		head := t.Status.String() + ": " + cmp.Or(t.Reason, t.Cause.String(), "no answer")
		text = strings.TrimRight(head+"\n\n"+text, "\n")
	}
	return name, f.put(name, []byte(strings.TrimRight(text, "\n")+"\n"))
}

// WriteIndex writes the index, in place of the one that it has written before.
func (f *Folder) WriteIndex(x Index) error {
	b, err := json.MarshalIndent(x, "", "  ")
	if err != nil {
		return fmt.Errorf("writing the index: %w", err)
	}
	return f.put(IndexName, append(b, '\n'))
}

// WriteError is why a file is not there.
type WriteError struct {
	Path string
	Err  error
}

// Error implements error.
func (e *WriteError) Error() string { return "writing " + e.Path + ": " + e.Err.Error() }

// Unwrap returns the reason.
func (e *WriteError) Unwrap() error { return e.Err }

// put writes a file whole or not at all.
func (f *Folder) put(name string, data []byte) error {
	path := filepath.Join(f.dir, name)
	part := path + ".part"
	w, err := f.create(part)
	if err != nil {
		return &WriteError{path, reason(err)}
	}
	_, err = w.Write(data)
	if err = errors.Join(err, w.Close()); err == nil {
		err = os.Rename(part, path)
	}
	if err != nil {
		_ = os.Remove(part)
		return &WriteError{path, reason(err)}
	}
	return nil
}

// reason leaves out the path that the system's errors name once more, and that
// it is of the part that is being written.
func reason(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// maxSlug is how many characters of a title stand in the name of a file.
const maxSlug = 40

// slug makes a part of a file's name of a title.
func slug(title string) string {
	var b strings.Builder
	dash := false
	for _, r := range strings.ToLower(title) {
		switch {
		case b.Len() >= maxSlug:
		case r < unicode.MaxASCII && (unicode.IsLetter(r) || unicode.IsDigit(r)):
			if dash && b.Len() > 0 {
				b.WriteByte('-')
			}
			b.WriteRune(r)
			dash = false
		default:
			dash = true
		}
	}
	return cmp.Or(b.String(), "task")
}
