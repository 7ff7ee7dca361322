//go:build unix

package results

import (
	"syscall"
	"testing"
)

func TestAPipeThatAnAgentPutsInTheWayIsNotWrittenInto(t *testing.T) {
	requireNotFollowed(t, "a pipe", func(path, _ string) error { return syscall.Mkfifo(path, 0o600) }, "001-a.md")
}
