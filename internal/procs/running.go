package procs

import (
	"os/exec"
	"sync"
)

// registry holds the PIDs of the programs that [Start] started and that have not been
// released.
type registry struct {
	// The lock "starting" is held for reading while a program starts, and for writing while adopted
	// children are reaped. Therefore, a new child is registered before it can be mistaken for an
	// adopted child.
	starting sync.RWMutex

	mu   sync.Mutex
	pids map[int]struct{}
}

var running = registry{pids: map[int]struct{}{}}

// The method "start" starts the command and registers it.
func (r *registry) start(cmd *exec.Cmd) error {
	r.starting.RLock()
	defer r.starting.RUnlock()
	if err := cmd.Start(); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pids[cmd.Process.Pid] = struct{}{}
	return nil
}

func (r *registry) remove(pid int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.pids, pid)
}

func (r *registry) has(pid int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.pids[pid]
	return ok
}
