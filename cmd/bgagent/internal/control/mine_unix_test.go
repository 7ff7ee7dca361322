//go:build unix

package control

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

func TestAFileThatOthersMayUseIsRefused(t *testing.T) {
	dir, _, _ := server(t)
	path := filepath.Join(dir, fileName)
	for _, mode := range []os.FileMode{0o644, 0o640, 0o602} {
		require.NoError(t, os.Chmod(path, mode))
		_, err := Dial(dir, bgagent.StoreOwner{Instance: "this"})
		require.ErrorContains(t, err, "others may use "+path+" (its mode is ")
		require.ErrorContains(t, err, "chmod 600 it, and start the server again")
	}
	require.NoError(t, os.Chmod(path, 0o600))
	_, err := Dial(dir, bgagent.StoreOwner{Instance: "this"})
	require.NoError(t, err)
	require.ErrorContains(t, problemOf(path, 0o600, 1000, 1001), path+" belongs to another user (1000)")
	require.NoError(t, problemOf(path, 0o600, 1000, 1000))
}
