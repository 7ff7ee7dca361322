//go:build !unix

package command

import (
	"os"
	"os/exec"
	"time"
)

// There are no process groups here, and no signals that ask to end: a program
// is killed at once, and what it has started goes on.

func ownGroup(*exec.Cmd) {}

// origin is nothing here: what a program has started cannot be looked for.
type origin struct{}

func originOf(int) origin { return origin{} }

func (p *process) interrupt(os.Signal) bool { return false }

func (p *process) kill() { _ = p.cmd.Process.Kill() }

func (p *process) endLeftovers(time.Duration) {}

func signalOf(*os.ProcessState) os.Signal { return nil }
