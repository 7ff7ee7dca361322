// Package results writes the results of tasks into a folder: one file per task, and
// an index of all of them.
package results

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/cleantext"
)

// Folder is a folder that only this run writes into. It stays open, so that nothing
// is written elsewhere even if something else takes its path. Its methods must not
// be called concurrently, except Spool.
type Folder struct {
	dir    string
	root   *os.Root
	lock   *os.File                                          // the folder, locked while it is open
	create func(name string, mode fs.FileMode) (file, error) // makes a new file
}

// file is a file that is being written.
type file interface {
	io.WriteCloser
	Stat() (fs.FileInfo, error)
}

// Open makes the folder, or takes over an empty one. It never overwrites anything:
// if the folder has something in it, Open returns an error that says so.
func Open(dir string) (*Folder, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("making the folder for the results: %w", err)
	}
	return hold(dir)
}

// OpenNew makes a folder that did not exist: base, or base-2, base-3 and so on if
// others were faster.
func OpenNew(base string) (*Folder, error) {
	dir := base
	for n := 2; ; n++ {
		err := os.Mkdir(dir, 0o755)
		if err == nil {
			return holdNew(dir)
		}
		if !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("making the folder for the results: %w", err)
		}
		dir = fmt.Sprintf("%s-%d", base, n)
	}
}

// hold opens and locks a folder, which must be empty.
func hold(dir string) (*Folder, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("opening the folder for the results: %w", reason(err))
	}
	f := &Folder{dir: dir, root: root}
	f.create = f.createNew
	err = f.claim()
	old := ""
	if err == nil {
		old, err = f.firstName()
	}
	if err == nil && old != "" {
		err = fmt.Errorf("the folder %s is not empty (it has %s), and nothing is overwritten; name a new folder", dir, old)
	} else if err != nil {
		err = fmt.Errorf("reading the folder for the results: %w", err)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// holdNew is hold for a folder that was just made. It refuses another folder or a
// link in its place.
func holdNew(dir string) (*Folder, error) {
	f, err := hold(dir)
	if err != nil {
		return nil, err
	}
	if info, err := os.Lstat(dir); err != nil || !f.is(info) {
		return nil, errors.Join(fmt.Errorf("the folder %s was replaced as soon as it was made; name another one", dir), f.Close())
	}
	return f, nil
}

// firstName returns the name of something in the folder, or "" if it is empty.
func (f *Folder) firstName() (string, error) {
	d, err := f.root.Open(".")
	if err != nil {
		return "", err
	}
	defer d.Close()
	names, err := d.Readdirnames(1)
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return "", err
	}
	return names[0], nil
}

// createNew makes a file that did not exist. It follows no link.
func (f *Folder) createNew(name string, mode fs.FileMode) (file, error) {
	return f.root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, mode)
}

// is reports whether the info describes the folder itself.
func (f *Folder) is(info fs.FileInfo) bool {
	own, err := f.root.Stat(".")
	return err == nil && os.SameFile(own, info)
}

// Close closes and unlocks the folder.
func (f *Folder) Close() error {
	if f.lock != nil {
		_ = f.lock.Close()
	}
	return f.root.Close()
}

// Dir returns the path under which the folder was opened.
func (f *Folder) Dir() string { return f.dir }

// Where returns where the folder is now. That is its path or, if the path names
// something else, the path that the system knows. Then moved is true, and the path
// is empty if the system does not know it.
func (f *Folder) Where() (path string, moved bool) {
	if info, err := os.Stat(f.dir); err == nil && f.is(info) {
		return f.dir, false
	}
	return f.place(), true
}

// Spool returns a new file in the folder that has no name. It is gone when it is
// closed or the program ends. It is safe for concurrent use.
func (f *Folder) Spool() (*os.File, error) {
	for {
		name := partName("spool")
		s, err := f.root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return nil, reason(err)
		}
		_ = f.root.Remove(name) // where an open file cannot be removed, its name says what it is
		return s, nil
	}
}

// partName returns a name that nobody else can have taken on purpose.
func partName(name string) string {
	return name + "." + strings.ToLower(rand.Text()[:8]) + ".part"
}

// Write writes the file of an ended task and returns its name. The file holds the
// cleaned answer. If there is no whole answer, its first line says why. If the file
// lacks part of the answer, its end says so. The answer is read from text, or from
// the task's own result if text is nil. If the disk is full, or the file cannot be
// written for another reason, the error is a [*WriteError] and there is no file.
func (f *Folder) Write(number int, t bgagent.Task, text Text) (string, error) {
	if text == nil {
		text = resultOf(t)
	}
	return f.named(titleOf(number, t), ".md", shared, func(w io.Writer) error { return writeAnswer(w, t, text) })
}

// WriteLog writes the log of a task, which only the user may read, and returns its
// name. An error is a [*WriteError].
func (f *Folder) WriteLog(number int, t bgagent.Task, log interface{ CopyTo(io.Writer) error }) (string, error) {
	return f.named(titleOf(number, t), ".log", private, log.CopyTo)
}

// The modes of files. Results are for everybody who may read the folder.
const (
	shared  = fs.FileMode(0o644)
	private = fs.FileMode(0o600)
)

func titleOf(number int, t bgagent.Task) string {
	return fmt.Sprintf("%03d-%s", number, slug(t.Description))
}

// named writes a file under its title, or under its title and a number if something
// is in the way.
func (f *Folder) named(title, suffix string, mode fs.FileMode, write func(io.Writer) error) (string, error) {
	var err error
	for try := 1; try <= maxNames; try++ {
		name := title + suffix
		if try > 1 {
			name = fmt.Sprintf("%s-%d%s", title, try, suffix)
		}
		if err = f.put(name, mode, write); err == nil {
			return name, nil
		}
		if !inTheWay(err) {
			break
		}
	}
	return title + suffix, err
}

// maxNames is how many names are tried if something is in the way that a file cannot
// replace.
const maxNames = 9

// inTheWay reports whether a file cannot have its name because something else has
// it, such as a folder that an agent has made.
func inTheWay(err error) bool {
	return errors.Is(err, fs.ErrExist) || errors.Is(err, syscall.EISDIR) || errors.Is(err, syscall.ENOTEMPTY) || errors.Is(err, errReplaced)
}

// writeAnswer writes the content of a task's file.
func writeAnswer(w io.Writer, t bgagent.Task, text Text) error {
	out := &trimmed{w: w}
	if t.Status != bgagent.Completed || text.Size() == 0 {
		head := t.Status.String() + ": " + cmp.Or(t.Reason, t.Cause.String(), "no answer")
		if _, err := io.WriteString(out, cleantext.String(head)+"\n\n"); err != nil {
			return err
		}
	}
	clean := cleantext.NewWriter(out)
	if err := text.CopyTo(clean); err != nil {
		return err
	}
	if err := clean.Flush(); err != nil {
		return err
	}
	end := "\n"
	if note := text.Note(); note != "" {
		end = "\n\n[" + note + "]\n"
	}
	_, err := io.WriteString(w, end)
	return err
}

// trimmed passes on everything but the line ends at the end.
type trimmed struct {
	w    io.Writer
	held int // line ends that may be the last ones
}

// Write implements io.Writer.
func (t *trimmed) Write(b []byte) (int, error) {
	body := bytes.TrimRight(b, "\n")
	if len(body) > 0 {
		for t.held > 0 {
			n := min(t.held, len(lineEnds))
			if _, err := io.WriteString(t.w, lineEnds[:n]); err != nil {
				return 0, err
			}
			t.held -= n
		}
		if _, err := t.w.Write(body); err != nil {
			return 0, err
		}
	}
	t.held += len(b) - len(body)
	return len(b), nil
}

const lineEnds = "\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n"

// WriteIndex writes the index in place of the previous one.
func (f *Folder) WriteIndex(x Index) error {
	b, err := json.MarshalIndent(x, "", "  ")
	if err != nil {
		return fmt.Errorf("writing the index: %w", err)
	}
	return f.put(IndexName, shared, func(w io.Writer) error {
		_, err := w.Write(append(b, '\n'))
		return err
	})
}

// WriteError says why a file could not be written.
type WriteError struct {
	Path string
	Err  error
}

// Error implements error.
func (e *WriteError) Error() string { return "writing " + e.Path + ": " + e.Err.Error() }

// Unwrap returns the reason.
func (e *WriteError) Unwrap() error { return e.Err }

// errReplaced is the reason if something has replaced a file while it was written.
var errReplaced = errors.New("something replaced it while it was written")

// put writes a file whole or not at all. It writes under another name, which nobody
// can have taken, and then renames the file. The rename replaces whatever has the
// name. It follows no link and writes into no existing file.
func (f *Folder) put(name string, mode fs.FileMode, write func(io.Writer) error) error {
	part := partName(name)
	w, err := f.create(part, mode)
	if err != nil {
		return &WriteError{filepath.Join(f.dir, name), reason(err)}
	}
	written, err := w.Stat()
	if err == nil {
		err = write(w)
	}
	if err = errors.Join(err, w.Close()); err == nil {
		err = f.root.Rename(part, name)
	}
	if err == nil {
		if now, e := f.root.Lstat(name); e != nil || !os.SameFile(now, written) {
			err = errReplaced
		}
	}
	if err != nil {
		_ = f.root.Remove(part)
		return &WriteError{filepath.Join(f.dir, name), reason(err)}
	}
	return nil
}

// reason removes the path from an error of the system. The message already has a
// path, and this one is that of the unfinished file.
func reason(err error) error {
	var path *fs.PathError
	var link *os.LinkError
	switch {
	case errors.As(err, &path):
		return path.Err
	case errors.As(err, &link):
		return link.Err
	}
	return err
}
