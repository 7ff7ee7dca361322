package procs

import (
	"fmt"
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

// behind returns the ids that follow id in a value of InstanceVariable. The result its
// reports whether the value contains id.
func behind(value, id string) (inner []string, its bool) {
	ids := strings.Split(value, "/")
	i := slices.Index(ids, id)
	if i < 0 {
		return nil, false
	}
	return ids[i+1:], true
}
