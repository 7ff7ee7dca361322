//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly || windows)

package sqlite

import (
	"errors"
	"os"
)

const noFollow = 0

func tryLock(*os.File, bool) (bool, error) {
	return false, errors.New("this system has no locks that end with their process")
}

func fileID(*os.File) int64 { return 0 }
