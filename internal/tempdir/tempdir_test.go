package tempdir

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAFolderIsRemovedAlthoughFilesAppearInIt(t *testing.T) {
	var dir string
	var wrote int
	t.Run("a test", func(t *testing.T) {
		dir = New(t)
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() { // simulates a process that writes until it ends
			defer close(stopped)
			for end := time.Now().Add(100 * time.Millisecond); time.Now().Before(end); wrote++ {
				_ = os.WriteFile(filepath.Join(dir, strconv.Itoa(wrote)), nil, 0o600)
			}
			<-stop
		}()
		t.Cleanup(func() { close(stop); <-stopped })
	})
	require.Positive(t, wrote)
	require.NoDirExists(t, dir)
}

func TestAFolderThatIsGoneIsNoError(t *testing.T) {
	require.NoError(t, Remove(filepath.Join(t.TempDir(), "none")))
}
