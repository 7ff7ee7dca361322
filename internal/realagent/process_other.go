//go:build !unix

package realagent

import (
	"os"
	"os/exec"
)

type process struct {
	pid     int
	command string
}

func (p process) kill() {}

func processesWith(variable, folder string) []process { return nil }

func watch(variable, folder string) (stop func(), err error) { return func() {}, nil }

func ownGroup(*exec.Cmd) {}

func killGroup(p *os.Process) error { return p.Kill() }

func terminate(p *os.Process) error { return p.Kill() }
