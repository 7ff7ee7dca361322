package sqlite

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// These are the names of the files in the folder.
const (
	databaseName = "tasks.db"
	lockName     = "lock"
)

// files holds the paths of a store.
type files struct {
	dir string // absolute path of the folder, without symbolic links
	vfs string
}

func (f files) database() string { return filepath.Join(f.dir, databaseName) }

// makeFolder creates the folder if it does not exist, and returns its path without symbolic links.
// It returns an error if other users can access the folder.
func makeFolder(dir string) (string, error) {
	_, err := os.Lstat(dir)
	fresh := errors.Is(err, fs.ErrNotExist)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("sqlite: the folder of the store cannot be created: %w", err)
	}
	real, err := checkFolder(dir)
	if err == nil && fresh {
		err = syncFolder(filepath.Dir(real))
	}
	return real, err
}

// checkFolder returns the path of the folder without symbolic links. It returns an error if other
// users can access the folder or a file of the store.
func checkFolder(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err == nil {
		abs, err = filepath.EvalSymlinks(abs)
	}
	if err != nil {
		return "", fmt.Errorf("sqlite: the folder of the store cannot be found: %w", err)
	}
	info, err := os.Lstat(abs)
	switch {
	case err != nil:
		return "", fmt.Errorf("sqlite: the folder of the store cannot be examined: %w", err)
	case !info.IsDir():
		return "", fmt.Errorf("sqlite: %s is not a folder", abs)
	}
	if err := ownedAndPrivate(abs, info); err != nil {
		return "", err
	}
	if err := localFileSystem(abs); err != nil {
		return "", err
	}
	for _, name := range []string{lockName, databaseName, databaseName + "-wal", databaseName + "-shm", databaseName + "-journal"} {
		if err := checkFile(filepath.Join(abs, name)); err != nil {
			return "", err
		}
	}
	return abs, nil
}

// checkFile returns an error if the file exists but is not a regular private file of this user. It
// does not open the file.
func checkFile(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("sqlite: a file of the store cannot be examined: %w", err)
	case !info.Mode().IsRegular():
		return fmt.Errorf("sqlite: %s is not a regular file (%s); the store does not follow links", path, info.Mode().Type())
	}
	return ownedAndPrivate(path, info)
}

// createBeforehand creates files with a mode that allows access only to their owner, because SQLite would
// also give other users access. It then makes the names of the files durable. It does not change existing
// files.
func createBeforehand(paths ...string) error {
	made := false
	for _, path := range paths {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("a file of the store cannot be created: %w", err)
		}
		if err := f.Close(); err != nil {
			return err
		}
		made = true
	}
	if made {
		return syncFolder(filepath.Dir(paths[0]))
	}
	return nil
}
