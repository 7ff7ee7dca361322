//go:build !unix

package runs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// errLocked is returned if another program has locked a file.
var errLocked = errors.New("it is locked")

// The function "lock" always fails, because this package locks files only on Unix systems; see the file
// lock_unix.go.
func lock(*os.File) error { return fmt.Errorf("locking files: %w", errors.ErrUnsupported) }

func openFile(path string) (*os.File, error) { return os.OpenFile(path, os.O_RDWR, 0) }

func mine(fs.FileInfo) bool { return true }

func othersWrite(fs.FileInfo) bool { return false }
