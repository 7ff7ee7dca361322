package fleet

import (
	"bytes"
	"os"
	"strconv"
	"strings"
)

// maxAbove is the maximum number of programs above this one to examine.
const maxAbove = 64

// The function "inherited" returns the value of an environment variable in the nearest program above this one
// that was started with the variable. If there is no such program, it returns "".
func inherited(variable string) string {
	pid := os.Getppid()
	for range maxAbove {
		dir := "/proc/" + strconv.Itoa(pid)
		environ, err := os.ReadFile(dir + "/environ")
		if err != nil { // the process belongs to another user, or has ended
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
		// The name in brackets can itself contain brackets, so the code searches for the last bracket.
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
