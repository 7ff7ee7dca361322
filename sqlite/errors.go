package sqlite

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/ncruces/go-sqlite3"
)

// ErrDiskFull means that the store's disk is full. Errors that match it also match [syscall.ENOSPC].
var ErrDiskFull error = diskFull{}

type diskFull struct{}

func (diskFull) Error() string { return "the disk is full" }

// Is makes the error match [syscall.ENOSPC], so that the manager knows that no record in the batch is the
// cause.
func (diskFull) Is(target error) bool { return target == syscall.ENOSPC }

// errDamaged means that data differs from the data that was written.
var errDamaged = errors.New("it is damaged")

// The constant "little" is a number of bytes. If a write fails while fewer bytes are free, the disk is
// treated as full.
const little = 1 << 20

// room describes how much space on a file system is available to this user.
type room struct {
	free     int64 // number of free bytes
	readOnly bool
}

// askRoom returns the space on a file system. Tests can replace this function.
var askRoom = roomIn

// explain wraps an error with the operation that failed and a description of the reason.
func (f files) explain(doing string, err error) error {
	var own *plain
	if errors.As(err, &own) {
		return err
	}
	what := fmt.Sprintf("sqlite: %s: ", doing)
	switch {
	case f.full(err):
		return fmt.Errorf("%s%w: %w", what, ErrDiskFull, err)
	case f.readOnly(err):
		return fmt.Errorf("%sthe store cannot be written, only read: %w", what, err)
	case errors.Is(err, sqlite3.BUSY):
		return fmt.Errorf("%sanother program is writing to %s: %w", what, f.database(), err)
	case errors.Is(err, sqlite3.NOTADB):
		return fmt.Errorf("%s%s is not a database, or its beginning is damaged: %w", what, f.database(), err)
	case errors.Is(err, sqlite3.CORRUPT):
		return fmt.Errorf("%s%s is damaged: %w", what, f.database(), err)
	case errors.Is(err, sqlite3.IOERR):
		return fmt.Errorf("%sthe disk reports an error: %w", what, err)
	}
	return fmt.Errorf("%s%w", what, err)
}

// The method "full" reports whether the error was caused by a full disk. SQLite reports some of these errors
// as general disk errors, so the method also asks the file system.
func (f files) full(err error) bool {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, sqlite3.FULL):
		return true
	case errors.Is(err, sqlite3.IOERR), errors.Is(err, sqlite3.CANTOPEN):
		r, known := askRoom(f.dir)
		return known && r.free < little && !r.readOnly
	}
	return false
}

// readOnly reports whether the error was caused by a read-only file or disk.
func (f files) readOnly(err error) bool {
	switch {
	case errors.Is(err, syscall.EROFS), errors.Is(err, sqlite3.READONLY):
		return true
	case errors.Is(err, sqlite3.IOERR), errors.Is(err, sqlite3.CANTOPEN):
		r, known := askRoom(f.dir)
		return known && r.readOnly
	}
	return false
}

// plain is an error whose message needs no further explanation.
type plain struct{ sentence string }

func (e *plain) Error() string { return e.sentence }

func plainf(format string, args ...any) error {
	return &plain{"sqlite: " + fmt.Sprintf(format, args...)}
}
