//go:build unix

package settings

import (
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/bgagent/bgagent"
)

// trusted refuses a file that was found, and not named, when somebody else than
// this user and root has written it or could put another one in its place. Where
// it is a link, that holds for the link and for what it leads to.
func trusted(path string) error {
	wrong := untrusted(path)
	if real, err := filepath.EvalSymlinks(path); err == nil && real != path && wrong == "" {
		wrong = untrusted(real) // a link that leads nowhere is told when it is read
	}
	if wrong == "" {
		return nil
	}
	return &bgagent.ConfigFileError{File: path, Problem: wrong + "; it names programs that are run, so it is not used. Look at it, and name it with --config if it is right"}
}

// untrusted says why a file is not to be believed; "" when it is.
func untrusted(path string) string {
	file, err := os.Lstat(path)
	if err != nil {
		return "" // told when it is read
	}
	dir, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return ""
	}
	link := file.Mode()&fs.ModeSymlink != 0 // its own mode says nothing
	switch {
	case foreign(file):
		return "belongs to " + owner(file)
	case !link && othersWrite(file):
		return "can be written by others"
	case foreign(dir):
		return fmt.Sprintf("lies in the folder %s, which belongs to %s", filepath.Dir(path), owner(dir))
	case othersWrite(dir):
		return fmt.Sprintf("lies in the folder %s, into which others may write", filepath.Dir(path))
	}
	return ""
}

func statOf(info fs.FileInfo) syscall.Stat_t {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return syscall.Stat_t{}
	}
	return *st
}

// foreign reports whether something belongs to neither this user nor root.
func foreign(info fs.FileInfo) bool {
	uid := statOf(info).Uid
	return uid != 0 && int(uid) != os.Geteuid()
}

// othersWrite reports whether anybody but the owner may write to it. A group of
// this user alone, which many systems give everybody, is nobody else.
func othersWrite(info fs.FileInfo) bool {
	mode := info.Mode().Perm()
	return mode&0o002 != 0 || mode&0o020 != 0 && !ownGroup(strconv.Itoa(int(statOf(info).Gid)))
}

// ownGroup reports whether the group is the first of this user and has the user's
// name, or there are no names.
func ownGroup(gid string) bool {
	if gid != strconv.Itoa(os.Getegid()) {
		return false
	}
	me, err := user.Current()
	if err != nil {
		return true
	}
	group, err := user.LookupGroupId(gid)
	return err != nil || group.Name == me.Username
}

// owner names the owner.
func owner(info fs.FileInfo) string {
	uid := strconv.Itoa(int(statOf(info).Uid))
	if u, err := user.LookupId(uid); err == nil {
		return u.Username
	}
	return "the user " + uid
}
