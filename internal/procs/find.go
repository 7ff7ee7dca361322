package procs

import (
	"fmt"
	"time"
)

// Process describes a process. PID and Start together identify the process until the machine
// restarts.
type Process struct {
	PID     int
	Start   uint64 // start time, in clock ticks since the machine started
	Command string // command line for messages; shortened if it is long
}

// String returns the PID and the command line.
func (p Process) String() string { return fmt.Sprintf("%d (%s)", p.PID, p.Command) }

// Keep reports whether a process of a run must be spared. If the process also belongs to runs
// within that run, inner holds the ids of these runs, outermost first.
type Keep func(pid int, inner []string) bool

// killTime is the maximum time to wait until killed processes disappear. A process that waits for a disk or a
// network file system can take longer.
const killTime = 2 * time.Second
