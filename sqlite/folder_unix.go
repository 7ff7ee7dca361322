//go:build unix

package sqlite

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// ownedAndPrivate returns an error if the file belongs to another user, or if other users have
// access to it.
func ownedAndPrivate(path string, info fs.FileInfo) error {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && int(stat.Uid) != os.Geteuid() {
		return fmt.Errorf("sqlite: %s belongs to user %d, and this program runs as user %d", path, stat.Uid, os.Geteuid())
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		private := 0o600
		if info.IsDir() {
			private = 0o700
		}
		return fmt.Errorf("sqlite: other users can access %s (mode %04o): the store contains prompts and answers in plain text; run chmod %04o on it", path, mode, private)
	}
	return nil
}

// syncFolder makes the names of new files in the folder durable.
func syncFolder(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return nil // only the parent of the store's folder can be unreadable; its names are then not synced
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sqlite: the folder %s cannot be synced: %w", dir, err)
	}
	return nil
}
