// Package runs knows which runs of this program are alive, so that the next run can
// end what a dead one has left. Every run has an id, which the processes of its
// agents carry in their environment, and a file that it keeps locked while it lives.
// However the run ends, the system unlocks the file.
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
)

// Dir returns the folder of the runs' files: bgagent/runs in $XDG_STATE_HOME, or in
// ~/.local/state if that is not set.
func Dir() (string, error) {
	base := os.Getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(base) { // the specification says to ignore such a value
		home, err := os.UserHomeDir()
		if err != nil {
			return "", err
		}
		base = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(base, "bgagent", "runs"), nil
}

// Info is the content of a run's file. It is for people.
type Info struct {
	Began   time.Time `json:"began"`
	PID     int       `json:"pid"`
	Host    string    `json:"host"`
	Command string    `json:"command"` // run, mcp, serve
	Folder  string    `json:"folder"`  // where it was started
}

// NewID returns the id of a new run.
func NewID() string { return strings.ToLower(rand.Text()) }

const suffix = ".lock"

// named matches the names of runs' files.
var named = regexp.MustCompile(`^[a-z2-7]{26}\.lock$`)

// Run is a living run, or a dead one that nobody else is cleaning up after. Its file
// is locked either way.
type Run struct {
	ID   string
	Info Info
	dir  string
	file *os.File
}

// Begin makes the file of a new run and locks it. After an error nobody will find
// what the run leaves if it is killed.
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
	// The file gets its name once it is locked, so that the run never looks dead.
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

// Forget removes the file, because nothing is left of the run. A nil Run has none.
func (r *Run) Forget() error {
	if r == nil {
		return nil
	}
	return errors.Join(os.Remove(filepath.Join(r.dir, r.ID+suffix)), r.file.Close())
}

// Leave unlocks the file. The next program that looks finds a dead run.
func (r *Run) Leave() error {
	if r == nil {
		return nil
	}
	return r.file.Close()
}

// Dead returns the dead runs in the folder, the oldest first. A run is dead if its
// file is not locked. Dead locks the file: call Forget or Leave. problems are what
// could not be examined. A folder that does not exist has no runs.
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
			_ = r.Leave() // machines share this folder: its processes are not here
		default:
			dead = append(dead, r)
		}
	}
	slices.SortFunc(dead, func(a, b *Run) int { return a.Info.Began.Compare(b.Info.Began) })
	return dead, problems
}

// foreign is how long the file of a dead run on another machine is kept for the
// program on that machine.
const foreign = 30 * 24 * time.Hour

// maxInfo is how many bytes of a file are read.
const maxInfo = 16 << 10

// take locks the file of a run. It returns nil if the run lives or somebody else is
// cleaning up after it.
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
		// The previous holder of the lock may have removed the file meanwhile.
		own, _ := f.Stat()
		if now, e := os.Lstat(path); e != nil || !os.SameFile(own, now) {
			return nil, f.Close()
		}
		b, _ := io.ReadAll(io.LimitReader(f, maxInfo))
		_ = json.Unmarshal(b, &r.Info) // only for people: the name and the lock decide
		return r, nil
	}
	return nil, errors.Join(err, f.Close())
}

// check refuses what is not a file of this user's program.
func check(f *os.File, path string) error {
	info, err := f.Stat()
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is not a regular file", path)
	case !mine(info):
		return fmt.Errorf("%s belongs to somebody else", path)
	}
	return nil
}

// checkDir refuses a folder that somebody else can write to. Files of others would
// decide whose processes are ended.
func checkDir(dir string) error {
	info, err := os.Lstat(dir)
	switch {
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("%s is not a folder", dir)
	case !mine(info):
		return fmt.Errorf("the folder %s belongs to somebody else", dir)
	case othersWrite(info):
		return fmt.Errorf("others may write into the folder %s; chmod go-w it", dir)
	}
	return nil
}

// isNew reports whether an entry is the file of a run that was not renamed yet.
func isNew(e fs.DirEntry) bool { return strings.HasPrefix(e.Name(), ".new-") && e.Type().IsRegular() }

// removeOld removes such a file if its program must have been killed before it could
// rename the file.
func removeOld(dir string, e fs.DirEntry) {
	if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > 24*time.Hour {
		_ = os.Remove(filepath.Join(dir, e.Name()))
	}
}
