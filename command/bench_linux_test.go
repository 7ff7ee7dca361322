package command

import (
	"os/exec"
	"syscall"
	"testing"
)

// BenchmarkLookForLeftovers is what every turn pays at its end, twice.
func BenchmarkLookForLeftovers(b *testing.B) {
	p := &process{cmd: exec.Command("true"), mark: "none"}
	if err := p.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	p.origin = originOf(p.cmd.Process.Pid)
	if err := p.cmd.Wait(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		var left leftovers
		if left.signal(p, syscall.Signal(0)) {
			b.Fatal("something is left of nothing")
		}
	}
}
