package procs

import (
	"fmt"
	"os"
	"os/user"
	"slices"
	"strings"
)

// maxInstance is the maximum length of an instance id, in bytes.
const maxInstance = 128

// CheckInstance returns an error if an instance id is invalid. An empty id is valid
// and means that the run has no id.
func CheckInstance(id string) error {
	if len(id) > maxInstance {
		return fmt.Errorf("has %d bytes; it may have at most %d", len(id), maxInstance)
	}
	if strings.ContainsFunc(id, func(r rune) bool {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
		return !letter && !(r >= '0' && r <= '9') && !strings.ContainsRune("-_.", r)
	}) {
		return fmt.Errorf("is %q; only letters, digits and the characters - _ . are allowed", id)
	}
	return nil
}

// Instances returns the value of InstanceVariable for the processes that serve a manager: the
// host's instance id, a slash and the manager's id. The processes can be found by either part.
// If only one part is set or both are equal, the value has only one part.
func Instances(host, manager string) string {
	switch {
	case host == "" || host == manager:
		return manager
	case manager == "":
		return host
	default:
		return host + "/" + manager
	}
}

// Home identifies the place where agent programs keep their session files. It returns the user's id and the
// name of the machine, in the form UID@HOST, or "" if the name of the machine is unknown.
func Home() string {
	host, err := os.Hostname()
	if err != nil {
		return ""
	}
	if u, err := user.Current(); err == nil {
		return u.Uid + "@" + host
	}
	return host
}

// The function "behind" returns the ids that follow the given id in a value of InstanceVariable. The
// second result reports whether the value contains the given id.
func behind(value, id string) (inner []string, its bool) {
	ids := strings.Split(value, "/")
	i := slices.Index(ids, id)
	if i < 0 {
		return nil, false
	}
	return ids[i+1:], true
}
