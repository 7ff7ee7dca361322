// Package results writes the results of tasks into a folder: one file per task, and
// an index of all tasks.
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

// Folder is a folder that no other run writes into. It stays open, so that files are written into the
// original folder even if that folder is moved or replaced at its path. Except for Spool, its methods must
// not be called concurrently.
type Folder struct {
	dir    string
	root   *os.Root
	lock   *os.File                                          // the folder, locked while it is open
	create func(name string, mode fs.FileMode) (file, error) // createNew; tests replace it
}

// file is a file that is being written.
type file interface {
	io.WriteCloser
	Stat() (fs.FileInfo, error)
}

// Open creates a folder, or opens an existing one that is empty. If the folder is not
// empty, Open returns an error, so that nothing is overwritten.
func Open(dir string) (*Folder, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, notCreated(err)
	}
	return hold(dir)
}

// notCreated returns the error to report if the folder for the results cannot be created.
func notCreated(err error) error {
	problem := err.Error()
	var path *fs.PathError
	if errors.As(err, &path) {
		problem = fmt.Sprintf("%s: %v", path.Path, path.Err)
		info, stat := os.Stat(path.Path)
		link, read := os.Readlink(path.Path)
		switch {
		case stat == nil && !info.IsDir():
			problem = path.Path + " is not a folder"
		case stat != nil && read == nil:
			problem = fmt.Sprintf("%s is a link to %s, which cannot be used: %v", path.Path, link, errors.Unwrap(stat))
		}
	}
	return fmt.Errorf("creating the folder for the results: %s; name another with --output", problem)
}

// OpenNew creates a new folder. Its path is the argument "base" or, if that path exists, the first
// unused one of base-2, base-3 and so on.
func OpenNew(base string) (*Folder, error) {
	dir := base
	for n := 2; ; n++ {
		err := os.Mkdir(dir, 0o755)
		if err == nil {
			return holdNew(dir)
		}
		if !errors.Is(err, fs.ErrExist) {
			return nil, notCreated(err)
		}
		dir = fmt.Sprintf("%s-%d", base, n)
	}
}

// The function "hold" opens and locks a folder, which must be empty.
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

// holdNew is like the function "hold", but for a folder that was just created. It returns an error if the new
// folder has meanwhile been replaced with another folder or a link.
func holdNew(dir string) (*Folder, error) {
	f, err := hold(dir)
	if err != nil {
		return nil, err
	}
	if info, err := os.Lstat(dir); err != nil || !f.is(info) {
		return nil, errors.Join(fmt.Errorf("the folder %s was replaced right after it was created; name another one", dir), f.Close())
	}
	return f, nil
}

// firstName returns the name of any file in the folder, or "" if the folder is empty.
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

// createNew creates a file. It fails if a file with the name exists, even if that file is a link.
func (f *Folder) createNew(name string, mode fs.FileMode) (file, error) {
	return f.root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, mode)
}

// The method "is" reports whether info describes the folder.
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

// Where returns the current path of the folder. If the folder is no longer at the path under which it was
// opened, the result "moved" is true. The path is then the one that the system reports, or "" if the
// system does not report a path.
func (f *Folder) Where() (path string, moved bool) {
	if info, err := os.Stat(f.dir); err == nil && f.is(info) {
		return f.dir, false
	}
	return f.place(), true
}

// Spool returns a new, unnamed file in the folder. The file is deleted when it is
// closed or the program ends. Spool is safe for concurrent use.
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
		_ = f.root.Remove(name) // if the system cannot remove open files, the file keeps its .part name
		return s, nil
	}
}

// partName returns a name that cannot be guessed, so that no other program can create it on purpose.
func partName(name string) string {
	return name + "." + strings.ToLower(rand.Text()[:8]) + ".part"
}

// Write writes an ended task's file and returns the file's name. The answer is read from text or, if text is
// nil, from the task's result. The file holds the answer without escape sequences and control characters. If
// the task did not complete or has no answer, the first line says why. If part of the answer is missing, the
// last line says so. If the file cannot be written, for example because the disk is full, the error is a
// [*WriteError] and there is no file.
func (f *Folder) Write(number int, t bgagent.Task, text Text) (string, error) {
	if text == nil {
		text = resultOf(t)
	}
	return f.named(titleOf(number, t), ".md", shared, func(w io.Writer) error { return writeAnswer(w, t, text) })
}

// WriteLog writes a task's log and returns the name of the file, which only the user may read. If
// there is an error, it is a [*WriteError].
func (f *Folder) WriteLog(number int, t bgagent.Task, log interface{ CopyTo(io.Writer) error }) (string, error) {
	return f.named(titleOf(number, t), ".log", private, log.CopyTo)
}

// File modes. Results are readable by everybody who can read the folder.
const (
	shared  = fs.FileMode(0o644)
	private = fs.FileMode(0o600)
)

func titleOf(number int, t bgagent.Task) string {
	return fmt.Sprintf("%03d-%s", number, slug(t.Description))
}

// The method "named" creates a file under a title. If the name cannot be used, a number is added to the
// title.
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

// maxNames is the maximum number of names that are tried if files with these names exist and cannot be
// replaced.
const maxNames = 9

// inTheWay reports whether an error means that something with the wanted name exists and cannot be replaced,
// such as a folder that an agent created.
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

// trimmed is a writer that passes on everything except the line breaks at the end of
// the text.
type trimmed struct {
	w    io.Writer
	held int // number of line breaks held back because they might be at the end of the text
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

// WriteIndex writes the index, replacing the previous one.
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

// WriteError is returned if a file could not be written.
type WriteError struct {
	Path string
	Err  error
}

// Error implements error.
func (e *WriteError) Error() string { return "writing " + e.Path + ": " + e.Err.Error() }

// Unwrap returns the reason.
func (e *WriteError) Unwrap() error { return e.Err }

// errReplaced is returned if another program replaced a file while it was being written.
var errReplaced = errors.New("something replaced it while it was written")

// put writes a file completely or not at all. The file is first written under a new name that nobody can
// guess, and then renamed. The rename replaces any file or link that already has the final name. Therefore,
// the method "put" never follows a link and never writes into an existing file.
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

// The function "reason" removes the path from an operating system error, because the path might be that of
// the unfinished file, and the caller's message already contains the final path.
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
