package results

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

func TestAnAnswerIsWrittenAsItIs(t *testing.T) {
	f, err := Open(filepath.Join(t.TempDir(), "new", "folder"))
	require.NoError(t, err)
	for _, c := range []struct {
		task bgagent.Task
		name string
		want string
	}{
		{bgagent.Task{Description: "Find: the *Code*!", Status: bgagent.Completed, Result: "# Found\n\nit\n"}, "001-find-the-code.md", "# Found\n\nit\n"},
		{bgagent.Task{Description: "§§", Status: bgagent.Completed}, "002-task.md", "completed: no answer\n"},
		{bgagent.Task{Description: "../../etc/passwd", Status: bgagent.Failed, Reason: "it broke", Result: "half"}, "003-etc-passwd.md", "error: it broke\n\nhalf\n"},
		{bgagent.Task{Description: strings.Repeat("long ", 50), Status: bgagent.Cancelled, Cause: bgagent.CauseTimeToLive}, "", "cancelled: " + bgagent.CauseTimeToLive.String() + "\n"},
	} {
		n := 1
		if c.name != "" {
			n = int(c.name[2] - '0')
		}
		name, err := f.Write(n, c.task, nil)
		require.NoError(t, err)
		if c.name != "" {
			require.Equal(t, c.name, name)
		}
		require.Less(t, len(name), 64)
		b, err := os.ReadFile(filepath.Join(f.Dir(), name))
		require.NoError(t, err)
		require.Equal(t, c.want, string(b))
		require.NoError(t, os.Remove(filepath.Join(f.Dir(), name)))
	}
}

func TestAFolderThatIsNotEmptyIsRefused(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "mine"), nil, 0o600))
	_, err := Open(dir)
	require.ErrorContains(t, err, "is not empty (it has mine), and nothing is overwritten")
}

func TestEveryRunGetsANewFolder(t *testing.T) {
	base := filepath.Join(t.TempDir(), "results")
	require.NoError(t, os.Mkdir(base, 0o755)) // an existing folder is not used, even if it is empty
	for _, want := range []string{"-2", "-3"} {
		f, err := OpenNew(base)
		require.NoError(t, err)
		require.Equal(t, base+want, f.Dir())
	}
	_, err := OpenNew(filepath.Join(base, "none", "results"))
	require.ErrorContains(t, err, "creating the folder for the results")
}

func TestSecondsHaveThreeDigits(t *testing.T) {
	for d, want := range map[time.Duration]string{
		1602 * time.Millisecond:                      "1.602",
		1602*time.Millisecond + 400*time.Microsecond: "1.602",
		0:                              "0",
		time.Hour + 1*time.Millisecond: "3600.001",
		2*time.Second + 999*time.Millisecond + 999*time.Microsecond: "3",
	} {
		b, err := json.Marshal(Seconds(d))
		require.NoError(t, err)
		require.Equal(t, want, string(b), d)
	}
}

func TestTheIndexIsReplacedAsAWhole(t *testing.T) {
	f, err := Open(t.TempDir())
	require.NoError(t, err)
	require.NoError(t, f.WriteIndex(Index{Tasks: []Entry{{Number: 1}}}))
	require.NoError(t, f.WriteIndex(Index{Interrupted: true}))
	b, err := os.ReadFile(filepath.Join(f.Dir(), IndexName))
	require.NoError(t, err)
	var x map[string]any
	require.NoError(t, json.Unmarshal(b, &x))
	require.Equal(t, true, x["interrupted"])
}

func TestWhatAnAgentPutsInTheWayIsNotFollowed(t *testing.T) {
	requireNotFollowed(t, "a link to a file", func(path, outside string) error { return os.Symlink(filepath.Join(outside, "victim"), path) }, "001-a.md")
	requireNotFollowed(t, "a link to a folder", func(path, outside string) error { return os.Symlink(outside, path) }, "001-a.md")
	requireNotFollowed(t, "a hard link", func(path, outside string) error { return os.Link(filepath.Join(outside, "victim"), path) }, "001-a.md")
	requireNotFollowed(t, "a folder", func(path, _ string) error { return os.MkdirAll(filepath.Join(path, "deep"), 0o755) }, "001-a-2.md")
}

// requireNotFollowed calls the function "put", which creates an obstacle at the path of a result. Then
// requireNotFollowed writes the result. The result must be in the regular file with the given name, and
// nothing outside the folder may have changed.
func requireNotFollowed(t *testing.T, what string, put func(path, outside string) error, file string) {
	t.Helper()
	outside := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(outside, "victim"), []byte("mine"), 0o600))
	f, err := Open(filepath.Join(t.TempDir(), "out"))
	require.NoError(t, err)
	require.NoError(t, put(filepath.Join(f.Dir(), "001-a.md"), outside), what)
	name, err := f.Write(1, bgagent.Task{Status: bgagent.Completed, Description: "a", Result: "the answer"}, nil)
	require.NoError(t, err, what)
	require.Equal(t, file, name, what)
	info, err := os.Lstat(filepath.Join(f.Dir(), name))
	require.NoError(t, err)
	require.True(t, info.Mode().IsRegular(), what)
	b, err := os.ReadFile(filepath.Join(f.Dir(), name))
	require.NoError(t, err)
	require.Equal(t, "the answer\n", string(b), what)
	victim, err := os.ReadFile(filepath.Join(outside, "victim"))
	require.NoError(t, err)
	require.Equal(t, "mine", string(victim), what)
	others, err := os.ReadDir(outside)
	require.NoError(t, err)
	require.Len(t, others, 1, what)
}

func TestAReplacedFolderStillGetsTheResults(t *testing.T) {
	base := t.TempDir()
	outside := filepath.Join(base, "outside")
	require.NoError(t, os.Mkdir(outside, 0o755))
	f, err := Open(filepath.Join(base, "parent", "out"))
	require.NoError(t, err)
	path, moved := f.Where()
	require.False(t, moved)
	require.Equal(t, f.Dir(), path)
	require.NoError(t, os.Rename(filepath.Join(base, "parent"), filepath.Join(base, "away")))
	require.NoError(t, os.Symlink(outside, filepath.Join(base, "parent")))
	require.NoError(t, os.Symlink(outside, filepath.Join(outside, "out")))
	_, err = f.Write(1, bgagent.Task{Status: bgagent.Completed, Description: "a", Result: "x"}, nil)
	require.NoError(t, err)
	require.NoError(t, f.WriteIndex(Index{}))
	require.FileExists(t, filepath.Join(base, "away", "out", "001-a.md"))
	require.FileExists(t, filepath.Join(base, "away", "out", IndexName))
	_, moved = f.Where()
	require.True(t, moved)
	others, err := os.ReadDir(outside)
	require.NoError(t, err)
	require.Len(t, others, 1, "only the link")

	require.NoError(t, os.RemoveAll(filepath.Join(base, "away")))
	_, err = f.Write(2, bgagent.Task{Status: bgagent.Completed, Description: "b", Result: "x"}, nil)
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestAFileReplacedWhileItIsWrittenIsNotTheResult(t *testing.T) {
	f, err := Open(t.TempDir())
	require.NoError(t, err)
	f.create = func(name string, _ fs.FileMode) (file, error) {
		w, err := f.createNew(name, shared)
		require.NoError(t, f.root.Remove(name))
		require.NoError(t, f.root.Symlink("/etc/hostname", name))
		return w, err
	}
	_, err = f.Write(1, bgagent.Task{Status: bgagent.Completed, Description: "a", Result: "x"}, nil)
	require.ErrorIs(t, err, errReplaced)
}

func TestAResultHasNoEscapeSequences(t *testing.T) {
	f, err := Open(t.TempDir())
	require.NoError(t, err)
	task := bgagent.Task{Status: bgagent.Failed, Description: "a", Reason: "\x1b[31mred", Result: "\x1b]0;title\aone\r\ntwo\x1b[0m\r\n\r\n"}
	name, err := f.Write(1, task, nil)
	require.NoError(t, err)
	b, err := os.ReadFile(filepath.Join(f.Dir(), name))
	require.NoError(t, err)
	require.Equal(t, "error: red\n\none\ntwo\n", string(b))
	require.Equal(t, "red", EntryOf(1, task).Reason)
}

func TestASpoolLeavesNothing(t *testing.T) {
	f, err := Open(t.TempDir())
	require.NoError(t, err)
	s, err := f.Spool()
	require.NoError(t, err)
	_, err = s.WriteString("x")
	require.NoError(t, err)
	require.NoError(t, s.Close())
	left, err := os.ReadDir(f.Dir())
	require.NoError(t, err)
	require.Empty(t, left)
}

// full is a file on a full disk: writing fails.
type full struct{ file }

func (f full) Write(b []byte) (int, error) {
	_, _ = f.file.Write(b[:len(b)/2])
	return len(b) / 2, syscall.ENOSPC
}

func TestAFullDiskIsReportedAndLeavesNoHalfFile(t *testing.T) {
	f, err := Open(t.TempDir())
	require.NoError(t, err)
	f.create = func(name string, _ fs.FileMode) (file, error) {
		w, err := f.createNew(name, shared)
		return full{w}, err
	}
	_, err = f.Write(1, bgagent.Task{Status: bgagent.Completed, Description: "a", Result: "the answer"}, nil)
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.EqualError(t, err, "writing "+filepath.Join(f.Dir(), "001-a.md")+": no space left on device")
	left, err := os.ReadDir(f.Dir())
	require.NoError(t, err)
	require.Empty(t, left)

	f.create = func(string, fs.FileMode) (file, error) { return nil, errors.New("read-only") }
	require.ErrorContains(t, f.WriteIndex(Index{}), "read-only")
}
