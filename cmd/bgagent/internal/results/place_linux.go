package results

import (
	"os"
	"strconv"
	"strings"
)

// place returns the current path of the folder according to the system, or "" if the folder was
// removed.
func (f *Folder) place() string {
	d, err := f.root.Open(".")
	if err != nil {
		return ""
	}
	defer d.Close()
	path, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(int(d.Fd())))
	if err != nil || strings.HasSuffix(path, " (deleted)") {
		return ""
	}
	return path
}
