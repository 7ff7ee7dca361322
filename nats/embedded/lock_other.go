//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly || windows)

package embedded

import (
	"errors"
	"os"
)

func tryLock(*os.File) (bool, error) {
	return false, errors.New("this system has no locks that end with their process")
}
