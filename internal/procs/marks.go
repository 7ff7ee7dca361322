package procs

import (
	"crypto/rand"
	"os"
	"slices"
	"strconv"
)

// These environment variables identify processes. The packages that start programs export the
// names of the variables and document them.
const (
	DepthVariable    = "BGAGENT_DEPTH"
	TurnVariable     = "BGAGENT_TURN"
	InstanceVariable = "BGAGENT_INSTANCE"
)

// IsMark reports whether the name is that of one of the variables above.
func IsMark(name string) bool {
	return slices.Contains([]string{DepthVariable, TurnVariable, InstanceVariable}, name)
}

// Marks are the values of environment variables that identify the processes of one
// turn. If a host itself runs in a turn of another host, each mark of its programs extends
// the corresponding mark of the outer turn.
type Marks struct {
	Turn     string // unique to this turn; begins with the outer turn's mark and a slash if there is an outer turn
	Instance string // ids of the host runs that contain the turn, separated by slashes, outermost first; may be empty
	Depth    int    // depth of the turn in the chain of agents
}

// NewMarks returns the marks of a turn. The argument depth is the depth of the turn's task. The argument
// instance is the id of the host's run; this id can be empty.
func NewMarks(depth int, instance string) Marks {
	if outer, err := strconv.Atoi(os.Getenv(DepthVariable)); err == nil && outer > 0 {
		depth += outer
	}
	return Marks{Turn: below(os.Getenv(TurnVariable), rand.Text()), Instance: below(os.Getenv(InstanceVariable), instance), Depth: depth}
}

// Within returns the marks for a program that is started during the turn and may end
// before the turn ends.
func (m Marks) Within() Marks {
	m.Turn = below(m.Turn, rand.Text())
	return m
}

// Environ returns the marks as entries of an environment.
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
