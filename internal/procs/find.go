package procs

import (
	"fmt"
	"time"
)

// Process is a process as it was seen. PID and Start together belong to no other
// one until the machine starts again.
type Process struct {
	PID     int
	Start   uint64 // when it was started, in clock ticks since the machine was
	Command string // its command line, for people; cut where it is long
}

// String returns the number and the command line.
func (p Process) String() string { return fmt.Sprintf("%d (%s)", p.PID, p.Command) }

// Keep reports whether a process of a run is to be left alone. The inner ids are
// those that stand behind that of the run in the process's environment: of the runs
// within it that the process belongs to as well, the outermost first.
type Keep func(pid int, inner []string) bool

// killTime is how long killed processes may take to disappear: one that waits
// for a disk or a network file system does not.
const killTime = 2 * time.Second
