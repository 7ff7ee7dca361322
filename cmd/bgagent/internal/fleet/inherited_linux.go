package fleet

import (
	"bytes"
	"os"
	"strconv"
	"strings"
)

// maxAbove bounds how many programs above this one are examined.
const maxAbove = 64

// inherited looks for the nearest program above this one that was started with the
// variable. It returns the value there, or "" if there is no such program.
func inherited(variable string) string {
	pid := os.Getppid()
	for range maxAbove {
		dir := "/proc/" + strconv.Itoa(pid)
		environ, err := os.ReadFile(dir + "/environ")
		if err != nil { // it belongs to another user, or is gone
			return ""
		}
		for entry := range bytes.SplitSeq(environ, []byte{0}) {
			if value, ok := strings.CutPrefix(string(entry), variable+"="); ok {
				return value
			}
		}
		stat, err := os.ReadFile(dir + "/stat")
		if err != nil {
			return ""
		}
		// The name is in brackets and may hold anything.
		fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
		if len(fields) < 2 {
			return ""
		}
		if pid, err = strconv.Atoi(string(fields[1])); err != nil || pid <= 1 {
			return ""
		}
	}
	return ""
}
