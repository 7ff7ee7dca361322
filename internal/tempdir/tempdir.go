// Package tempdir makes temporary folders for tests whose processes may still be ending when the test
// is over.
package tempdir

import (
	"os"
	"testing"
	"time"
)

// patience is how long the removal of a folder is tried. A killed process is gone within
// milliseconds. A process that has noticed the death of its parent first writes its last files.
const patience = 30 * time.Second

// New creates a folder that is removed at the end of the test. In contrast to the folder of
// testing.T.TempDir, another process may create files in the folder while it is removed: the
// removal is then repeated, for up to 30 s. If the folder cannot be created or removed, the test fails.
func New(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "bgagent-test-")
	if err != nil {
		t.Fatalf("tempdir: %v", err)
	}
	t.Cleanup(func() {
		if err := Remove(dir); err != nil {
			t.Errorf("tempdir: %v", err)
		}
	})
	return dir
}

// Remove removes a folder with its content. If another process creates files in the meantime, Remove
// tries again for up to 30 s. Then it returns the error of the last try.
func Remove(dir string) error {
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		err := os.RemoveAll(dir)
		if err == nil || time.Now().After(end) {
			return err
		}
	}
}
