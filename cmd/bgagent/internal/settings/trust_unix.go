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

// trusted returns an error if anybody except this user and root owns the file or could
// change it. It is called for files that this program has found, not for files that the
// user has named. If the file is a link, the function "trusted" examines the link and
// its target.
func trusted(path string) error {
	wrong := untrusted(path)
	if real, err := filepath.EvalSymlinks(path); err == nil && real != path && wrong == "" {
		wrong = untrusted(real) // a link without a target is reported when it is read
	}
	if wrong == "" {
		return nil
	}
	return &bgagent.ConfigFileError{File: path, Problem: wrong + "; it names programs that are run, so it is not used. Look at it, and name it with --config if it is right"}
}

// untrusted describes why a file is not trusted; "" if it is trusted.
func untrusted(path string) string {
	file, err := os.Lstat(path)
	if err != nil {
		return "" // the error is reported when the file is read
	}
	dir, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return ""
	}
	link := file.Mode()&fs.ModeSymlink != 0 // the mode of a link has no meaning
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

// foreign reports whether a file or folder belongs to neither this user nor root.
func foreign(info fs.FileInfo) bool {
	uid := statOf(info).Uid
	return uid != 0 && int(uid) != os.Geteuid()
}

// othersWrite reports whether anybody except the owner may write to a file or folder.
// The group of this user's own name, which many systems create for every user, does
// not count.
func othersWrite(info fs.FileInfo) bool {
	mode := info.Mode().Perm()
	return mode&0o002 != 0 || mode&0o020 != 0 && !ownGroup(strconv.Itoa(int(statOf(info).Gid)))
}

// ownGroup reports whether the group is this user's primary group and has the user's
// name. If the names cannot be determined, a primary group is enough.
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

// owner returns the name of the owner of a file or folder.
func owner(info fs.FileInfo) string {
	uid := strconv.Itoa(int(statOf(info).Uid))
	if u, err := user.LookupId(uid); err == nil {
		return u.Username
	}
	return "the user " + uid
}
