// Package runs keeps a record of each run of this program, so that the next run can terminate the
// processes that a dead run left behind. Every run has an id and a file. The processes of its agents
// have the id in their environment. The file is locked while the run is alive. No matter how the run
// ends, the system unlocks the file.
package runs

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/bgagent/bgagent/cmd/bgagent/internal/statedir"
)

// Dir returns the folder for the runs' files: the folder "runs" in the default state folder.
func Dir() (string, error) {
	base, err := statedir.Base()
	if err != nil {
		return "", err
	}
	return filepath.Join(base, "runs"), nil
}

// Info is the content of a run's file. It describes the run for users. Programs that clean up after dead runs
// also use the fields Began, PID, Host and Kept.
type Info struct {
	Began   time.Time `json:"began"`
	PID     int       `json:"pid"`
	Host    string    `json:"host"`
	Command string    `json:"command"`        // run, mcp, serve or agents
	Folder  string    `json:"folder"`         // working directory of the run
	Kept    bool      `json:"kept,omitempty"` // whether the tasks of the run are kept; another process can then continue them
}

// NewID returns the id of a new run.
func NewID() string { return strings.ToLower(rand.Text()) }

const suffix = ".lock"

// The variable "named" matches the names of run files.
var named = regexp.MustCompile(`^[a-z2-7]{26}\.lock$`)

// Run is this run, or a dead run that this program is cleaning up. In both cases, this program holds the lock
// on the run's file.
type Run struct {
	ID   string
	Info Info
	dir  string
	file *os.File
}

// Begin creates and locks the file of a new run. If Begin returns an error and the run
// is later killed, the processes that it leaves behind cannot be found.
func Begin(dir, id string, info Info) (*Run, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := checkDir(dir); err != nil {
		return nil, err
	}
	info.Host, _ = os.Hostname()
	b, err := json.Marshal(info)
	if err != nil {
		return nil, err
	}
	// The file gets its final name after it is locked, so that the run never seems
	// dead.
	path := filepath.Join(dir, ".new-"+id)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if err = lock(f); err == nil {
		if _, err = f.Write(b); err == nil {
			err = os.Rename(path, filepath.Join(dir, id+suffix))
		}
	}
	if err != nil {
		_ = os.Remove(path)
		return nil, errors.Join(err, f.Close())
	}
	return &Run{ID: id, Info: info, dir: dir, file: f}, nil
}

// Forget removes the run's file. It is called when no process of the run is left. If the Run is
// nil, Forget does nothing.
func (r *Run) Forget() error {
	if r == nil {
		return nil
	}
	return errors.Join(os.Remove(filepath.Join(r.dir, r.ID+suffix)), r.file.Close())
}

// Leave unlocks the run's file, so that the next program finds the run and sees that it is dead.
func (r *Run) Leave() error {
	if r == nil {
		return nil
	}
	return r.file.Close()
}

// Dead returns the dead runs in the folder, the oldest first. A run is dead if its file is not locked. Dead
// locks the files of the returned runs; call Forget or Leave on each. The result "problems" holds the errors
// about files that could not be examined. If the folder is missing, there are no dead runs.
func Dead(dir string) (dead []*Run, problems []error) {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, []error{err}
	}
	if err := checkDir(dir); err != nil {
		return nil, []error{err}
	}
	host, _ := os.Hostname()
	for _, e := range entries {
		if isNew(e) {
			removeOld(dir, e)
		}
		if !named.MatchString(e.Name()) {
			continue
		}
		r, err := take(dir, e.Name())
		switch {
		case err != nil:
			problems = append(problems, err)
		case r == nil:
		case r.Info.Host != "" && r.Info.Host != host && time.Since(r.Info.Began) < foreign:
			_ = r.Leave() // the folder is shared between machines, and the processes are on another machine
		default:
			dead = append(dead, r)
		}
	}
	slices.SortFunc(dead, func(a, b *Run) int { return a.Info.Began.Compare(b.Info.Began) })
	return dead, problems
}

// The constant "foreign" is how long the file of a dead run on another machine is kept, so that a program
// on that machine can clean up.
const foreign = 30 * 24 * time.Hour

// maxInfo is the maximum number of bytes that are read from a file.
const maxInfo = 16 << 10

// take locks the file of a dead run and returns the run. It returns nil if the run is
// alive or another program is cleaning it up.
func take(dir, name string) (*Run, error) {
	path := filepath.Join(dir, name)
	f, err := openFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r := &Run{ID: strings.TrimSuffix(name, suffix), dir: dir, file: f}
	err = check(f, path)
	if err == nil {
		err = lock(f)
	}
	if errors.Is(err, errLocked) {
		return nil, f.Close()
	}
	if err == nil {
		// The previous holder of the lock might have removed the file after this function opened it.
		own, _ := f.Stat()
		if now, e := os.Lstat(path); e != nil || !os.SameFile(own, now) {
			return nil, f.Close()
		}
		b, _ := io.ReadAll(io.LimitReader(f, maxInfo))
		_ = json.Unmarshal(b, &r.Info) // without the content, the run is still cleaned up
		return r, nil
	}
	return nil, errors.Join(err, f.Close())
}

// The function "check" returns an error if f is not a regular file of this user.
func check(f *os.File, path string) error {
	info, err := f.Stat()
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is not a regular file", path)
	case !mine(info):
		return fmt.Errorf("%s belongs to another user", path)
	}
	return nil
}

// checkDir returns an error if other users can write into the folder, because they could then decide which
// processes are terminated.
func checkDir(dir string) error {
	info, err := os.Lstat(dir)
	switch {
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("%s is not a folder", dir)
	case !mine(info):
		return fmt.Errorf("the folder %s belongs to another user", dir)
	case othersWrite(info):
		return fmt.Errorf("other users can write into the folder %s; chmod go-w it", dir)
	}
	return nil
}

// isNew reports whether an entry is a run's file that Begin has not yet renamed.
func isNew(e fs.DirEntry) bool { return strings.HasPrefix(e.Name(), ".new-") && e.Type().IsRegular() }

// removeOld removes a file for which isNew is true, if the file is a day old. A program that has
// not renamed its file within a day was killed before it could do so.
func removeOld(dir string, e fs.DirEntry) {
	if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > 24*time.Hour {
		_ = os.Remove(filepath.Join(dir, e.Name()))
	}
}
