package results

import (
	"encoding/json"
	"errors"
	"io"
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
		name, err := f.Write(n, c.task)
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

func TestEveryNewFolderIsAnotherOne(t *testing.T) {
	base := filepath.Join(t.TempDir(), "results")
	require.NoError(t, os.Mkdir(base, 0o755)) // empty, but somebody else's
	for _, want := range []string{"-2", "-3"} {
		f, err := OpenNew(base)
		require.NoError(t, err)
		require.Equal(t, base+want, f.Dir())
	}
	_, err := OpenNew(filepath.Join(base, "none", "results"))
	require.ErrorContains(t, err, "making the folder for the results")
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

// full is a file on a full disk.
type full struct{ io.WriteCloser }

func (f full) Write(b []byte) (int, error) {
	_, _ = f.WriteCloser.Write(b[:len(b)/2])
	return len(b) / 2, syscall.ENOSPC
}

func TestAFullDiskIsToldAndLeavesNoHalfFile(t *testing.T) {
	f, err := Open(t.TempDir())
	require.NoError(t, err)
	f.create = func(path string) (io.WriteCloser, error) {
		w, err := createNew(path)
		return full{w}, err
	}
	_, err = f.Write(1, bgagent.Task{Status: bgagent.Completed, Description: "a", Result: "the answer"})
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.EqualError(t, err, "writing "+filepath.Join(f.Dir(), "001-a.md")+": no space left on device")
	left, err := os.ReadDir(f.Dir())
	require.NoError(t, err)
	require.Empty(t, left)

	f.create = func(string) (io.WriteCloser, error) { return nil, errors.New("read-only") }
	require.ErrorContains(t, f.WriteIndex(Index{}), "read-only")
}
