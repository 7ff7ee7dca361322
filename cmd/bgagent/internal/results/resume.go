package results

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/bgagent/bgagent"
)

// ListName is the name of the file in the folder that contains the task list.
const ListName = "list.json"

// maxIndex is the maximum size of an index or a list, in bytes. It is larger than the limit on the user's
// list, because list.json also contains the texts of the prompt files that the user's list names.
const maxIndex = 256 << 20

// Resume opens the folder of a run that has ended or was killed. It also returns the
// index and the list in the folder.
func Resume(dir string) (f *Folder, x Index, list []byte, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, x, nil, fmt.Errorf("opening the folder %s of the run: %w", dir, reason(err))
	}
	f = &Folder{dir: dir, root: root}
	f.create = f.createNew
	if err = f.claim(); err == nil {
		x, list, err = f.saved()
	}
	if err != nil {
		return nil, x, nil, errors.Join(err, f.Close())
	}
	return f, x, list, nil
}

// StateOf returns the store's name from the folder's index. If the index does not name a store or cannot be
// read, it returns "".
func StateOf(dir string) string {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return ""
	}
	defer root.Close()
	var x struct{ State string }
	if b, err := (&Folder{dir: dir, root: root}).read(IndexName); err != nil || json.Unmarshal(b, &x) != nil {
		return ""
	}
	return x.State
}

// The method "saved" reads the index and the list of an earlier run.
func (f *Folder) saved() (x Index, list []byte, err error) {
	b, err := f.read(IndexName)
	if err == nil {
		if err = json.Unmarshal(b, &x); err != nil {
			return x, nil, fmt.Errorf("%s in the folder %s is not the index of a run: %s; it was changed or damaged, so run the list again into a new folder", IndexName, f.dir, notIndex(err))
		}
		list, err = f.read(ListName)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return x, nil, fmt.Errorf("the folder %s is not the folder of a run, which has %s and %s", f.dir, IndexName, ListName)
	}
	return x, list, err
}

// notIndex describes why a text is not an index. It names keys of the file, and does not mention Go types.
func notIndex(err error) string {
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) && wrong.Field != "" {
		return fmt.Sprintf("%q is a %s", wrong.Field, wrong.Value)
	}
	return strings.TrimPrefix(strings.TrimPrefix(err.Error(), "bgagent: "), "json: ")
}

// read reads a regular file from the folder. Any other file is refused, because programs might have
// put anything into the folder, and opening a pipe could block forever.
func (f *Folder) read(name string) ([]byte, error) {
	info, err := f.root.Stat(name)
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is not a regular file")
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s in the folder %s: %w", name, f.dir, reason(err))
	}
	r, err := f.root.OpenFile(name, os.O_RDONLY|nonBlocking, 0) // a program might have replaced the file with a pipe after the check
	if err != nil {
		return nil, fmt.Errorf("reading %s in the folder %s: %w", name, f.dir, reason(err))
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, maxIndex+1))
	if err == nil && len(b) > maxIndex {
		err = fmt.Errorf("it is larger than %d bytes", maxIndex)
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s in the folder %s: %w", name, f.dir, reason(err))
	}
	return b, nil
}

// Done reports whether a task has completed and its file is in the folder. The file might contain
// only the beginning of a long answer.
func (f *Folder) Done(e Entry) bool {
	if e.Status != bgagent.Completed || e.File == "" || e.Problem != "" {
		return false
	}
	info, err := f.root.Lstat(e.File)
	return err == nil && info.Mode().IsRegular()
}

// WriteList writes the list of tasks. Only the user may read the file.
func (f *Folder) WriteList(list []byte) error {
	return f.put(ListName, private, func(w io.Writer) error {
		_, err := w.Write(list)
		return err
	})
}

// The method "claim" locks the folder for this run.
func (f *Folder) claim() error {
	d, err := f.root.Open(".")
	if err != nil {
		return fmt.Errorf("opening the folder %s: %w", f.dir, reason(err))
	}
	if !lock(d) {
		return errors.Join(fmt.Errorf("another run is writing into the folder %s; wait until it has ended", f.dir), d.Close())
	}
	f.lock = d
	return nil
}
