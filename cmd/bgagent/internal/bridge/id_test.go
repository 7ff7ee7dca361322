package bridge

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAllBridgesOfAUserReadTheSameIDHoweverManyBeginAtOnce(t *testing.T) {
	for range 20 {
		base := t.TempDir()
		ids := make([]string, 8)
		errs := make([]error, len(ids))
		begin := make(chan struct{})
		var group sync.WaitGroup
		for i := range ids {
			group.Go(func() {
				<-begin
				ids[i], errs[i] = ID(base)
			})
		}
		close(begin)
		group.Wait()
		for i := range ids {
			require.NoError(t, errs[i])
			require.Len(t, ids[i], 26)
			require.Equal(t, ids[0], ids[i])
		}
		left, err := os.ReadDir(base)
		require.NoError(t, err)
		require.Len(t, left, 1, "the files of the slower processes are removed")
		again, err := ID(base)
		require.NoError(t, err)
		require.Equal(t, ids[0], again)
	}
	require.NotEqual(t, idIn(t, t.TempDir()), idIn(t, t.TempDir()), "two users")
}

func idIn(t *testing.T, base string) string {
	t.Helper()
	id, err := ID(base)
	require.NoError(t, err)
	return id
}

func TestAnIDThatIsDamagedIsNamed(t *testing.T) {
	base := t.TempDir()
	_, err := ID(filepath.Join(base, "none"))
	require.ErrorIs(t, err, os.ErrNotExist)
	folder := filepath.Join(base, idFolder)
	require.NoError(t, os.Mkdir(folder, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(folder, "id"), nil, 0o600))
	_, err = ID(base)
	require.ErrorContains(t, err, filepath.Join(folder, "id")+" is empty; remove the folder it is in")
	require.NoError(t, os.RemoveAll(folder))
	require.NoError(t, os.WriteFile(folder, nil, 0o600)) // a file in place of the folder
	_, err = ID(base)
	require.ErrorContains(t, err, folder)
}
