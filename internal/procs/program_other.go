//go:build !unix

package procs

import (
	"os"
	"os/exec"
	"time"
)

// On this system, this package uses neither process groups nor signals that ask a program to terminate. A
// program is killed immediately, and the processes that it has started continue to run.

func ownSession(*exec.Cmd) {}

func (p *Program) release()                    { running.remove(p.PID()) }
func (p *Program) await()                      { p.reap() }
func (p *Program) ask(os.Signal) bool          { return false }
func (p *Program) kill()                       { _ = p.cmd.Process.Kill() }
func (p *Program) endRest(time.Duration) error { return nil }

// SignalOf returns nil, because this package does not read signals from exit states on this system.
func SignalOf(*os.ProcessState) os.Signal { return nil }
