// Package tempdir makes temporary folders for tests whose processes may still be ending when the test
// is over.
package tempdir

import (
	"os"
	"testing"
	"time"
)

// patience is the maximum time for which the removal of a folder is retried. A killed process is gone within
// milliseconds. A process that notices the death of its parent may still write files before it exits.
const patience = 30 * time.Second

// New creates a folder that is removed at the end of the test. Unlike with testing.T.TempDir, another process
// may create files in the folder while the folder is being removed. In that case, the removal is retried for
// up to 30 s. If the folder cannot be created or removed, the test fails.
func New(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", pattern)
	if err != nil {
		t.Fatalf("tempdir: %v", err)
	}
	removeLater(t, dir)
	return dir
}

// InMemory is like New, but creates the folder in /dev/shm if the system has an in-memory file system
// there. It is for tests that do not need a real disk.
func InMemory(t testing.TB) string {
	t.Helper()
	if dir, err := os.MkdirTemp("/dev/shm", pattern); err == nil {
		removeLater(t, dir)
		return dir
	}
	return New(t)
}

// pattern is the prefix of the folders' names.
const pattern = "bgagent-test-"

// removeLater removes the folder at the end of the test.
func removeLater(t testing.TB, dir string) {
	t.Helper()
	t.Cleanup(func() {
		if err := Remove(dir); err != nil {
			t.Errorf("tempdir: %v", err)
		}
	})
}

// Remove removes a folder and its contents. If another process creates files during the removal,
// Remove retries for up to 30 s, and then returns the last attempt's error.
func Remove(dir string) error {
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		err := os.RemoveAll(dir)
		if err == nil || time.Now().After(end) {
			return err
		}
	}
}
