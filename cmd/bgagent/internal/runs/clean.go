package runs

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/bgagent/bgagent/internal/procs"
)

// Left is a dead run with the processes that it has left.
type Left struct {
	*Run
	Processes []procs.Process
}

// Find returns what the dead runs have left. The file of one that has left nothing
// is removed; the others are locked until Forget or Leave.
func Find(dir string) (left []Left, problems []error) {
	dead, problems := Dead(dir)
	for _, r := range dead {
		list, err := procs.Find(r.ID)
		switch {
		case errors.Is(err, errors.ErrUnsupported): // nobody can ever look
			problems = append(problems, err)
			_ = r.Forget()
		case err != nil:
			problems = append(problems, err)
			_ = r.Leave()
		case len(list) == 0:
			_ = r.Forget()
		default:
			left = append(left, Left{r, list})
		}
	}
	return left, problems
}

// End ends the processes of a dead run: each is asked to end, and killed after the
// grace time. It returns those that have ended. The error says which have not; the
// run is then found again.
func (l Left) End(grace time.Duration) ([]procs.Process, error) {
	ended, err := procs.EndInstance(l.ID, grace)
	if err != nil {
		return ended, errors.Join(err, l.Leave())
	}
	return ended, l.Forget()
}

// Close ends the life of this run's file. While processes of the run are left it is
// kept for the next program to find.
func (r *Run) Close() error {
	if r == nil {
		return nil
	}
	if list, err := procs.Find(r.ID); err == nil && len(list) > 0 {
		return r.Leave()
	}
	return r.Forget()
}

// String says for people which run it was.
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

// Here is the Info of this program.
func Here(command string) Info {
	folder, _ := os.Getwd()
	return Info{Began: time.Now(), PID: os.Getpid(), Command: command, Folder: folder}
}
