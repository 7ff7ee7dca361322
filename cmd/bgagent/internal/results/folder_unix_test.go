//go:build unix

package results

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAPipeThatAnAgentPutsInTheWayIsNotWrittenInto(t *testing.T) {
	requireNotFollowed(t, "a pipe", func(path, _ string) error { return syscall.Mkfifo(path, 0o600) }, "001-a.md")
}

func TestAPipeInPlaceOfAFileOfTheRunIsRefused(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{IndexName, ListName} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, IndexName), []byte("{}"), 0o600))
		path := filepath.Join(dir, name)
		require.NoError(t, os.RemoveAll(path))
		require.NoError(t, syscall.Mkfifo(path, 0o600))
		_, _, _, err := Resume(dir)
		require.ErrorContains(t, err, "reading "+name+" in the folder "+dir+": it is not a regular file")
		require.Empty(t, StateOf(dir))
		require.NoError(t, os.Remove(path))
	}
}
