//go:build linux

package runs

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/bgagent/bgagent/internal/procs"
	"github.com/stretchr/testify/require"
)

// newRun begins a run whose file is in the folder.
func newRun(t *testing.T, dir string) *Run {
	t.Helper()
	r, err := Begin(dir, NewID(), Here("run"))
	require.NoError(t, err)
	return r
}

// The function "member" starts a process that belongs to the run with the given id and does not
// exit on its own.
func member(t *testing.T, id string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sleep", "600")
	cmd.Env = procs.NewMarks(1, id).Environ()
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd
}

func TestARunIsDeadOnlyWhenItsFileCanBeLocked(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "bgagent", "runs")
	dead, problems := Dead(dir)
	require.Empty(t, dead)
	require.Empty(t, problems)

	alive, gone := newRun(t, dir), newRun(t, dir)
	require.NoError(t, gone.Leave())
	dead, problems = Dead(dir)
	require.Empty(t, problems)
	require.Len(t, dead, 1)
	require.Equal(t, gone.ID, dead[0].ID)
	require.Equal(t, "run", dead[0].Info.Command)
	again, _ := Dead(dir)
	require.Empty(t, again, "another program is cleaning up after it")
	require.NoError(t, dead[0].Forget())
	require.NoError(t, alive.Forget())
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestOnlyWhatADeadRunHasLeftIsEnded(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "runs")
	alive, gone, nobody := newRun(t, dir), newRun(t, dir), NewID()
	require.NoError(t, gone.Leave())
	mine, others := member(t, gone.ID), []*exec.Cmd{member(t, alive.ID), member(t, nobody), member(t, gone.ID+"x")}
	left, problems := Find(dir)
	require.Empty(t, problems)
	require.Len(t, left, 1)
	require.Len(t, left[0].Processes, 1)
	require.Equal(t, mine.Process.Pid, left[0].Processes[0].PID)
	go func() { _ = mine.Wait() }() // this process is the parent, so without Wait, a zombie would remain
	ended, err := left[0].End(time.Second)
	require.NoError(t, err)
	require.Equal(t, left[0].Processes, ended)
	for _, o := range others {
		require.NoError(t, o.Process.Signal(syscall.Signal(0)))
	}
	require.NoError(t, alive.Forget())
}

func TestARunThatLeavesSomethingIsFoundLater(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "runs")
	r := newRun(t, dir)
	left := member(t, r.ID)
	require.NoError(t, r.Close())
	found, _ := Find(dir)
	require.Len(t, found, 1)
	require.NoError(t, found[0].Leave())
	require.NoError(t, left.Process.Kill())
	_ = left.Wait()
	found, _ = Find(dir)
	require.Empty(t, found)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, entries, "no process is left, so the file was removed")
	require.NoError(t, (*Run)(nil).Close())
}

func TestJunkInTheFolderIsNotARun(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "runs")
	outside := filepath.Join(t.TempDir(), "precious")
	require.NoError(t, os.WriteFile(outside, []byte("mine"), 0o600))
	gone := newRun(t, dir)
	require.NoError(t, gone.Leave())
	path := func(name string) string { return filepath.Join(dir, name) }
	name := func() string { return path(NewID() + suffix) }
	require.NoError(t, os.Symlink(outside, name()))
	require.NoError(t, os.Symlink("nowhere", name()))
	require.NoError(t, syscall.Mkfifo(name(), 0o600))
	require.NoError(t, os.Mkdir(name(), 0o700))
	require.NoError(t, os.WriteFile(path("notes.txt"), []byte("x"), 0o600))
	require.NoError(t, os.WriteFile(path("UPPER.lock"), nil, 0o600))
	require.NoError(t, os.WriteFile(path(".new-"+NewID()), nil, 0o600))
	old := path(".new-" + NewID())
	require.NoError(t, os.WriteFile(old, nil, 0o600))
	require.NoError(t, os.Chtimes(old, time.Time{}, time.Now().Add(-48*time.Hour)))
	broken := name()
	require.NoError(t, os.WriteFile(broken, []byte(strings.Repeat("{", 1<<20)), 0o600))

	dead, problems := Dead(dir)
	var ids []string
	for _, r := range dead {
		ids = append(ids, r.ID)
		require.NoError(t, r.Forget())
	}
	require.ElementsMatch(t, []string{gone.ID, strings.TrimSuffix(filepath.Base(broken), suffix)}, ids)
	require.Len(t, problems, 4, "two links, a pipe and a folder")
	require.NoFileExists(t, old)
	require.FileExists(t, path("notes.txt"))
	b, err := os.ReadFile(outside)
	require.NoError(t, err)
	require.Equal(t, "mine", string(b))
}

func TestFilesAndFoldersOfOthersAreNotTrusted(t *testing.T) {
	base := t.TempDir()
	dir := filepath.Join(base, "runs")
	gone := newRun(t, dir)
	require.NoError(t, gone.Leave())
	refused := func(want string) {
		t.Helper()
		dead, problems := Dead(dir)
		require.Empty(t, dead)
		require.Len(t, problems, 1)
		require.ErrorContains(t, problems[0], want)
		_, err := Begin(dir, NewID(), Info{})
		require.ErrorContains(t, err, want)
	}
	require.NoError(t, os.Chmod(dir, 0o777))
	refused("other users can write into the folder")
	require.NoError(t, os.Chmod(dir, 0o1777))
	refused("other users can write into the folder")
	require.NoError(t, os.Chmod(dir, 0o700))
	require.NoError(t, os.Rename(dir, dir+"2"))
	require.NoError(t, os.Symlink(dir+"2", dir))
	refused("is not a folder")
	require.NoError(t, os.Remove(dir))
	require.NoError(t, os.Rename(dir+"2", dir))
	if os.Geteuid() != 0 {
		return // the rest of the test needs another user
	}
	file := filepath.Join(dir, gone.ID+suffix)
	require.NoError(t, os.Chown(file, 65534, 65534))
	dead, problems := Dead(dir)
	require.Empty(t, dead)
	require.Len(t, problems, 1)
	require.ErrorContains(t, problems[0], "belongs to another user")
	require.NoError(t, os.Chown(dir, 65534, 65534))
	refused("belongs to another user")
}

func TestARunOnAnotherMachineIsLeftAlone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "runs")
	require.NoError(t, os.MkdirAll(dir, 0o700))
	for began, want := range map[time.Time]int{time.Now(): 0, time.Now().Add(-2 * foreign): 1} {
		path := filepath.Join(dir, NewID()+suffix)
		require.NoError(t, os.WriteFile(path, []byte(`{"host": "elsewhere.invalid", "began": "`+began.Format(time.RFC3339)+`"}`), 0o600))
		dead, problems := Dead(dir)
		require.Empty(t, problems)
		require.Len(t, dead, want)
		for _, r := range dead {
			require.NoError(t, r.Forget())
		}
	}
}

func TestRunsThatBeginTogetherDoNotCountEachOtherAsDead(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "runs")
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 25 {
				dead, problems := Dead(dir)
				if len(dead)+len(problems) > 0 {
					t.Errorf("%v count as dead; %v", dead, problems)
				}
				r, err := Begin(dir, NewID(), Info{})
				if err != nil {
					t.Error(err)
					return
				}
				if err := r.Forget(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}

func TestWhereRunsAreRecorded(t *testing.T) {
	t.Setenv("HOME", "/home/me")
	for base, want := range map[string]string{"": "/home/me/.local/state/bgagent/runs", "relative": "/home/me/.local/state/bgagent/runs", "/state": "/state/bgagent/runs"} {
		t.Setenv("XDG_STATE_HOME", base)
		dir, err := Dir()
		require.NoError(t, err)
		require.Equal(t, want, dir)
	}
}
