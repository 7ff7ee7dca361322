//go:build unix

package settings

import (
	"cmp"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/bgagent/bgagent"
)

// The function "trusted" returns an error if anyone except this user and root owns the file or could change
// it. It is called for files that this program found, not for files that the user named. If the file is a
// link, the function "trusted" examines the link, all further links on the way to its target, and the target.
func trusted(path string) error {
	wrong := untrusted(path)
	if real, err := filepath.EvalSymlinks(path); err == nil && real != path && wrong == "" {
		wrong = cmp.Or(untrusted(real), detour(path)) // if the link has no target, the error is reported when the file is read
	}
	if wrong == "" {
		return nil
	}
	return &bgagent.ConfigFileError{File: path, Problem: wrong + "; it names programs that are run, so it is not used. Read it, and name it with --config if it is right"}
}

// The function "detour" follows the links from the file to its target, and describes the first link that
// other users can redirect. If there is none, it returns "". The path to the file's folder is not examined,
// because the file was found in this folder.
func detour(path string) string {
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return ""
	}
	parts := []string{filepath.Base(path)}
	for n := 0; len(parts) > 0 && n < mostLinks; {
		next := filepath.Join(dir, parts[0])
		parts = parts[1:]
		info, err := os.Lstat(next)
		if err != nil {
			return ""
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			dir = next
			continue
		}
		if n++; n > 1 { // the first link is the file itself
			folder, err := os.Stat(dir)
			switch {
			case foreign(info):
				return fmt.Sprintf("is reached by the link %s, which belongs to %s", next, owner(info))
			case err == nil && foreign(folder):
				return fmt.Sprintf("is reached by the link %s in a folder that belongs to %s", next, owner(folder))
			case err == nil && othersWrite(folder) && folder.Mode()&fs.ModeSticky == 0:
				return fmt.Sprintf("is reached by the link %s in a folder that other users can write to", next)
			}
		}
		target, err := os.Readlink(next)
		if err != nil {
			return ""
		}
		if filepath.IsAbs(target) {
			dir = "/"
		}
		parts = append(strings.FieldsFunc(target, func(r rune) bool { return r == filepath.Separator }), parts...)
	}
	return ""
}

// mostLinks is the maximum number of links in a path, as on Linux. filepath.EvalSymlinks refuses a
// path with more links.
const mostLinks = 255

// The function "untrusted" describes why a file is not trusted. If the file is trusted, it returns "".
func untrusted(path string) string {
	file, err := os.Lstat(path)
	if err != nil {
		return "" // the error is reported when the file is read
	}
	dir, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return ""
	}
	link := file.Mode()&fs.ModeSymlink != 0 // a link's mode has no meaning
	switch {
	case foreign(file):
		return "belongs to " + owner(file)
	case !link && othersWrite(file):
		return "can be changed by other users"
	case foreign(dir):
		return fmt.Sprintf("is in the folder %s, which belongs to %s", filepath.Dir(path), owner(dir))
	case othersWrite(dir):
		return fmt.Sprintf("is in the folder %s, which other users can write to", filepath.Dir(path))
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

// The function "foreign" reports whether a file or folder belongs to neither this user nor root.
func foreign(info fs.FileInfo) bool {
	uid := statOf(info).Uid
	return uid != 0 && int(uid) != os.Geteuid()
}

// othersWrite reports whether anyone except the owner may write to a file or folder. The group with this
// user's own name is ignored, because on many systems, every user has such a group and is its only member.
func othersWrite(info fs.FileInfo) bool {
	mode := info.Mode().Perm()
	return mode&0o002 != 0 || mode&0o020 != 0 && !ownGroup(strconv.Itoa(int(statOf(info).Gid)))
}

// ownGroup reports whether the group is this user's primary group and has the user's
// name. If the names cannot be determined, it is enough that the group is the user's primary group.
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

// The function "owner" returns the name of the user who owns a file or folder.
func owner(info fs.FileInfo) string {
	uid := strconv.Itoa(int(statOf(info).Uid))
	if u, err := user.LookupId(uid); err == nil {
		return u.Username
	}
	return "the user " + uid
}
