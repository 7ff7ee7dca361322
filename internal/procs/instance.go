package procs

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
)

// The environment variables by which processes are known. The packages that
// start programs export and describe them.
const (
	DepthVariable    = "BGAGENT_DEPTH"
	TurnVariable     = "BGAGENT_TURN"
	InstanceVariable = "BGAGENT_INSTANCE"
)

// IsMark reports whether the variable is set by the clients themselves.
func IsMark(name string) bool {
	return name == DepthVariable || name == TurnVariable || name == InstanceVariable
}

// maxInstance is how long an instance id may be, in bytes.
const maxInstance = 128

// CheckInstance says what is wrong with an instance id; nothing is wrong with
// an empty one, which means that there is none.
func CheckInstance(id string) error {
	if len(id) > maxInstance {
		return fmt.Errorf("has %d bytes; %d is the most", len(id), maxInstance)
	}
	if i := strings.IndexFunc(id, func(r rune) bool {
		return !(r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '-' || r == '_' || r == '.')
	}); i >= 0 {
		return fmt.Errorf("is %q; it may hold letters, digits, and the characters - _ . only", id)
	}
	return nil
}

// InstanceEnviron returns the entry of an environment that marks a process as one
// of the run with the id, and of the run that this process itself belongs to. It
// is empty where there is neither.
func InstanceEnviron(id string) []string {
	outer := os.Getenv(InstanceVariable)
	switch {
	case id == "" && outer == "":
		return nil
	case id == "":
		return []string{InstanceVariable + "=" + outer}
	case outer != "":
		id = outer + "/" + id
	}
	return []string{InstanceVariable + "=" + id}
}

// ofInstance reports whether a value of InstanceVariable names the run.
func ofInstance(value, id string) bool { return slices.Contains(strings.Split(value, "/"), id) }

// errNoInstance is for those who look for nobody's processes.
var errNoInstance = errors.New("the instance id is empty")
