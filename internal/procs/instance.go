package procs

import (
	"fmt"
	"slices"
	"strings"
)

// maxInstance is how long an instance id may be, in bytes.
const maxInstance = 128

// CheckInstance says what is wrong with an instance id; nothing is wrong with
// an empty one, which means that there is none.
func CheckInstance(id string) error {
	if len(id) > maxInstance {
		return fmt.Errorf("has %d bytes; %d is the most", len(id), maxInstance)
	}
	if strings.ContainsFunc(id, func(r rune) bool {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
		return !letter && !(r >= '0' && r <= '9') && !strings.ContainsRune("-_.", r)
	}) {
		return fmt.Errorf("is %q; it may hold letters, digits, and the characters - _ . only", id)
	}
	return nil
}

// behind returns the ids that stand behind the run's in a value of
// InstanceVariable, and whether the value names the run.
func behind(value, id string) (inner []string, its bool) {
	ids := strings.Split(value, "/")
	i := slices.Index(ids, id)
	if i < 0 {
		return nil, false
	}
	return ids[i+1:], true
}
