//go:build unix

package control

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// onlyMine returns an error if anybody but this user can read or write the file. Users who can read it can
// control the tasks, and users who can write it get the commands' prompts.
func onlyMine(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	uid := os.Geteuid()
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		uid = int(st.Uid)
	}
	return problemOf(f.Name(), info.Mode(), uid, os.Geteuid())
}

// problemOf returns the error for a file with the mode and the owner, or nil if only the user "me" can use it.
func problemOf(path string, mode fs.FileMode, owner, me int) error {
	switch {
	case owner != me:
		return fmt.Errorf("%s belongs to another user (%d); run the command as this user, or name your own state folder with --state DIR", path, owner)
	case mode.Perm()&0o077 != 0:
		return fmt.Errorf("others may use %s (its mode is %04o), so its token is no secret any more; chmod 600 it, and start the server again", path, mode.Perm())
	}
	return nil
}
