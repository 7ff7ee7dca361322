// Command durable shows that accepted tasks outlive their process. It starts a process with six
// tasks and kills it with SIGKILL while they are running. Then it starts the process again, and the
// new process continues the tasks. Finally, it checks from outside that nothing was lost or done
// twice. If the check fails, it exits with code 1.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/sqlite"
)

// These environment variables are set for the processes that the program starts.
const (
	folderVariable = "DURABLE_FOLDER" // the folder for the store and for the agents' work
	lifeVariable   = "DURABLE_LIFE"   // 1 for the process that will be killed, 2 for the next one
)

func main() {
	work := func() error { return run(context.Background(), os.Stdout) }
	if os.Getenv(folderVariable) != "" {
		work = worker
	}
	if err := work(); err != nil {
		fmt.Fprintln(os.Stderr, "durable:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, w io.Writer) error {
	dir, err := os.MkdirTemp("", "durable-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	accepted, err := firstLife(ctx, dir)
	if err != nil {
		return fmt.Errorf("the first process: %w", err)
	}
	fmt.Fprintln(w, "The first process accepted", len(accepted), "tasks and was killed.")
	before, err := read(ctx, dir)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "At that moment, %d tasks had ended, %d were running, and %d were waiting.\n",
		before.with(bgagent.Completed), before.with(bgagent.Running), before.with(bgagent.Pending))

	again, err := start(ctx, dir, "2")
	if err == nil {
		err = again.Run()
	}
	if err != nil {
		return fmt.Errorf("the second process: %w", err)
	}
	fmt.Fprintln(w, "The second process continued the tasks and exited.")
	return judge(ctx, w, dir, accepted)
}

// The function "start" returns the command that runs this program as the process with the tasks.
func start(ctx context.Context, dir, life string) (*exec.Cmd, error) {
	path, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, path)
	cmd.Env = append(os.Environ(), folderVariable+"="+dir, lifeVariable+"="+life)
	cmd.Stderr = os.Stderr
	return cmd, nil
}

// firstLife starts the process and kills it in the middle of its work, when two tasks have
// ended, two are in the middle of a turn, and two are waiting. It returns the ids of the
// accepted tasks, in the order of their chapters.
func firstLife(ctx context.Context, dir string) (accepted []string, err error) {
	cmd, err := start(ctx, dir, "1")
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	told, inTurn := 0, 0
	lines := bufio.NewScanner(out)
	for (len(accepted) < chapters || told < 2 || inTurn < 2) && lines.Scan() {
		what, id, _ := strings.Cut(lines.Text(), " ")
		switch what {
		case "accepted":
			accepted = append(accepted, id)
		case "told":
			told++
		case "working":
			inTurn++
		}
	}
	err = cmd.Process.Kill() // SIGKILL: the process can neither finish nor save anything
	_ = cmd.Wait()
	if len(accepted) < chapters || told < 2 || inTurn < 2 {
		err = errors.Join(err, errors.New("it ended before it was killed"))
	}
	return accepted, err
}

// The type "found" contains the tasks and results that were read from the store.
type found struct {
	tasks   map[string]bgagent.Task
	results map[string]string
}

// The method "with" returns the number of tasks with the given status.
func (f found) with(s bgagent.Status) (n int) {
	for _, t := range f.tasks {
		if t.Status == s {
			n++
		}
	}
	return n
}

// The function "read" returns the contents of the store. A store can be read even while a process
// uses it.
func read(ctx context.Context, dir string) (f found, err error) {
	r, err := sqlite.OpenReader(filepath.Join(dir, storeName))
	if err != nil {
		return f, err
	}
	defer r.Close()
	live, err := r.Live(ctx)
	if err != nil {
		return f, err
	}
	ended, err := r.History(ctx, bgagent.StoreQuery{Limit: 1000})
	if err != nil {
		return f, err
	}
	f = found{map[string]bgagent.Task{}, map[string]string{}}
	for _, record := range append(live, ended...) {
		t, err := record.Task()
		if err != nil {
			return f, err
		}
		f.tasks[t.ID] = t
		if t.Status.Terminal() {
			if f.results[t.ID], err = r.Text(ctx, t.ID, fmt.Sprintf("result.%d", t.Attempt)); err != nil {
				return f, err
			}
		}
	}
	return f, nil
}

// The function "judge" compares the accepted tasks with the work that was done. It does not ask the
// processes: it reads the store and the files that the agents and the notifier wrote.
func judge(ctx context.Context, w io.Writer, dir string, accepted []string) error {
	f, err := read(ctx, dir)
	if err != nil {
		return err
	}
	var wrong []error
	complain := func(format string, args ...any) { wrong = append(wrong, fmt.Errorf(format, args...)) }

	right := 0
	for i, id := range accepted {
		if t := f.tasks[id]; t.Status == bgagent.Completed && f.results[id] == answer(chapterName(i+1)) {
			right++
		} else {
			complain("task %s is %v (%s), with the result %q", id, t.Status, t.Reason, f.results[id])
		}
	}
	if len(f.tasks) != len(accepted) {
		complain("the store has %d tasks", len(f.tasks))
	}
	fmt.Fprintf(w, "%d of %d accepted tasks have completed with the right result.\n", right, len(accepted))

	done := count(dir, stepsName)
	for step, n := range done {
		if n > 1 {
			complain("%s was done %d times", step, n)
		}
	}
	if len(done) != chapters*steps {
		complain("%d of %d steps were done", len(done), chapters*steps)
	}
	fmt.Fprintf(w, "%d of %d steps were done.\n", len(done), chapters*steps)
	for id, n := range count(dir, promptsName) {
		if n > 1 {
			complain("prompt %s was sent %d times", id, n)
		}
	}

	// A notice can be delivered twice if the process was killed before it recorded the delivery. The
	// repeated notice has the same ids.
	told := map[string]bool{}
	notices := count(dir, toldName)
	for line := range notices {
		task, _, _ := strings.Cut(line, " ")
		told[task] = true
	}
	if len(told) != len(accepted) || len(notices) != len(accepted) {
		complain("%d ends were reported for %d tasks", len(notices), len(told))
	}
	fmt.Fprintf(w, "%d of %d ends were reported.\n", len(told), len(accepted))
	if len(wrong) > 0 {
		return errors.Join(wrong...)
	}
	fmt.Fprintln(w, "Nothing was lost, and nothing was done twice.")
	return nil
}

// The function "count" returns how often each line occurs in a file.
func count(dir, name string) map[string]int {
	lines := map[string]int{}
	b, _ := os.ReadFile(filepath.Join(dir, name)) // the file is missing if nothing was written
	for line := range strings.Lines(string(b)) {
		lines[strings.TrimSuffix(line, "\n")]++
	}
	return lines
}
