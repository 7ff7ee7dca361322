package runs

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/bgagent/bgagent/internal/procs"
)

// Left is a dead run and the processes that it left behind.
type Left struct {
	*Run
	Processes []procs.Process
	keep      procs.Keep
}

// Find returns the dead runs that left processes behind. It removes the files of all other dead
// runs. The files of the returned runs stay locked until Forget or Leave is called.
//
// A process of a dead run can also belong to a living run, such as a bgagent that an agent started. Find
// spares such processes, this process and its ancestors. If any process is spared, the file of the dead run
// is kept, so that a later program finds the run.
func Find(dir string) (left []Left, problems []error) {
	dead, problems := Dead(dir)
	keep := living(dir, dead)
	for _, r := range dead {
		list, spared, err := procs.Find(r.ID, keep)
		switch {
		case errors.Is(err, errors.ErrUnsupported): // processes cannot be found on this system
			problems = append(problems, err)
			_ = r.Forget()
		case err != nil:
			problems = append(problems, err)
			_ = r.Leave()
		case len(list) == 0 && spared == 0:
			_ = r.Forget()
		case len(list) == 0:
			_ = r.Leave()
		default:
			left = append(left, Left{r, list, keep})
		}
	}
	return left, problems
}

// End terminates the processes of a dead run. It asks each process to exit, and kills it after the
// grace period. It returns the processes that have ended. The error names the other processes. If
// there is an error or a process was spared, a later Find returns the run again.
func (l Left) End(grace time.Duration) ([]procs.Process, error) {
	ended, spared, err := procs.EndInstance(l.ID, l.keep, grace)
	if err != nil || spared > 0 {
		return ended, errors.Join(err, l.Leave())
	}
	return ended, l.Forget()
}

// The function "living" returns a function that reports whether a dead run's process also belongs to a living
// run.
func living(dir string, dead []*Run) procs.Keep {
	over := map[string]bool{} // ids of the dead runs, whose locks this program holds
	for _, r := range dead {
		over[r.ID] = true
	}
	programs := map[int]bool{}
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		id, named := strings.CutSuffix(e.Name(), suffix)
		if named && e.Type().IsRegular() && !over[id] && lives(dir, id) {
			if b, err := os.ReadFile(filepath.Join(dir, e.Name())); err == nil {
				var info Info
				_ = json.Unmarshal(b, &info)
				programs[info.PID] = true
			}
		}
	}
	return func(pid int, inner []string) bool {
		return programs[pid] || slices.ContainsFunc(inner, func(id string) bool { return !over[id] && lives(dir, id) })
	}
}

// The function "lives" reports whether the lock of a run's file is held, which means that the
// run is alive.
func lives(dir, id string) bool {
	if !named.MatchString(id + suffix) {
		return false
	}
	path := filepath.Join(dir, id+suffix)
	f, err := openFile(path)
	if err != nil {
		return false
	}
	defer f.Close()
	return check(f, path) == nil && errors.Is(lock(f), errLocked)
}

// Close removes the file of this run. If the run left processes behind, Close keeps the file, so
// that the next program finds them.
func (r *Run) Close() error {
	if r == nil {
		return nil
	}
	if list, _, err := procs.Find(r.ID, nil); err == nil && len(list) > 0 {
		return r.Leave()
	}
	return r.Forget()
}

// String describes the run for users.
func (r *Run) String() string {
	if r.Info.Began.IsZero() {
		return "run " + r.ID
	}
	text := fmt.Sprintf("the bgagent %s of %s (process %d", r.Info.Command, r.Info.Began.Local().Format(time.DateTime), r.Info.PID)
	if r.Info.Folder != "" {
		text += ", in " + r.Info.Folder
	}
	return text + ")"
}

// Here returns the Info of this program.
func Here(command string) Info {
	folder, _ := os.Getwd()
	return Info{Began: time.Now(), PID: os.Getpid(), Command: command, Folder: folder}
}
