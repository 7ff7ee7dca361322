package procs

import (
	"crypto/rand"
	"os"
	"slices"
	"strconv"
)

// The environment variables by which processes are known. The packages that
// start programs export and describe them.
const (
	DepthVariable    = "BGAGENT_DEPTH"
	TurnVariable     = "BGAGENT_TURN"
	InstanceVariable = "BGAGENT_INSTANCE"
)

// IsMark reports whether the variable is one of [Marks].
func IsMark(name string) bool {
	return slices.Contains([]string{DepthVariable, TurnVariable, InstanceVariable}, name)
}

// Marks are what the processes of one turn have in their environment. A host
// that runs in a turn of another's has marks of its own; those of its programs
// are within them.
type Marks struct {
	Turn     string // of this turn, and of no other; with a slash before it that of the turn around it
	Instance string // the lives of the hosts that it belongs to, the outermost first; may be empty
	Depth    int    // how many agents deep
}

// NewMarks returns the marks of a turn at the depth, of a host whose id is the
// instance, which may be empty.
func NewMarks(depth int, instance string) Marks {
	if outer, err := strconv.Atoi(os.Getenv(DepthVariable)); err == nil && outer > 0 {
		depth += outer
	}
	return Marks{Turn: below(os.Getenv(TurnVariable), rand.Text()), Instance: below(os.Getenv(InstanceVariable), instance), Depth: depth}
}

// Within returns the marks of something that is started for the turn and may end
// before it.
func (m Marks) Within() Marks {
	m.Turn = below(m.Turn, rand.Text())
	return m
}

// Environ returns the entries of an environment that has the marks.
func (m Marks) Environ() []string {
	env := []string{TurnVariable + "=" + m.Turn, DepthVariable + "=" + strconv.Itoa(m.Depth)}
	if m.Instance != "" {
		env = append(env, InstanceVariable+"="+m.Instance)
	}
	return env
}

func below(outer, own string) string {
	if outer == "" || own == "" {
		return outer + own
	}
	return outer + "/" + own
}
