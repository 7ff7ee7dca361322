package children

import (
	"os/exec"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAProcessThatGotThePIDOfAnotherIsNotKilled(t *testing.T) {
	for name, want := range map[string]syscall.Signal{"the same process": syscall.SIGKILL, "another process": syscall.SIGTERM} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command("sleep", "600")
			require.NoError(t, cmd.Start())
			c, _, live := read(cmd.Process.Pid)
			require.True(t, live)
			if want == syscall.SIGTERM {
				c.start = "1"
			}
			c.kill()
			require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
			_ = cmd.Wait()
			require.Equal(t, want, cmd.ProcessState.Sys().(syscall.WaitStatus).Signal(), "SIGKILL has precedence over a later signal")
		})
	}
}
