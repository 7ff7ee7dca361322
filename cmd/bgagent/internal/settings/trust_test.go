//go:build unix

package settings

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// The function "project" creates a configuration file. It returns the file's path, and a folder
// below the file's folder.
func project(t *testing.T) (file, below string) {
	t.Helper()
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	t.Setenv("HOME", t.TempDir())
	dir, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	file, below = filepath.Join(dir, ProjectFile), filepath.Join(dir, "mine", "deep")
	require.NoError(t, os.Chmod(dir, 0o755))
	require.NoError(t, os.MkdirAll(below, 0o755))
	require.NoError(t, os.WriteFile(file, []byte("{}"), 0o644))
	return file, below
}

func TestAFileThatOthersCouldHaveWrittenIsRefusedByName(t *testing.T) {
	file, below := project(t)
	dir := filepath.Dir(file)
	refused := func(want string) {
		t.Helper()
		_, err := Find(below)
		require.ErrorContains(t, err, file+": "+want)
		require.ErrorContains(t, err, "--config")
	}
	found := func() {
		t.Helper()
		files, err := Find(below)
		require.NoError(t, err)
		require.Equal(t, []string{file}, files)
	}
	found()
	for _, mode := range []os.FileMode{0o777, 0o777 | os.ModeSticky, 0o757} {
		require.NoError(t, os.Chmod(dir, mode))
		refused("is in the folder " + dir + ", which other users can write to")
	}
	require.NoError(t, os.Chmod(dir, 0o755))
	require.NoError(t, os.Chmod(file, 0o646))
	refused("can be changed by other users")
	require.NoError(t, os.Chmod(file, 0o644))
	found()

	// The target of a link is also examined.
	elsewhere := t.TempDir()
	require.NoError(t, os.Chmod(elsewhere, 0o777))
	require.NoError(t, os.Rename(file, filepath.Join(elsewhere, "real")))
	require.NoError(t, os.Symlink(filepath.Join(elsewhere, "real"), file))
	refused("is in the folder " + elsewhere)
	require.NoError(t, os.Chmod(elsewhere, 0o755))
	found()
}

func TestALinkThatOthersCouldTurnIsRefused(t *testing.T) {
	file, below := project(t)
	mine, others := t.TempDir(), t.TempDir()
	real, err := filepath.EvalSymlinks(mine)
	require.NoError(t, err)
	require.NoError(t, os.Mkdir(filepath.Join(real, "conf"), 0o755))
	require.NoError(t, os.Rename(file, filepath.Join(real, "conf", "f")))
	require.NoError(t, os.Symlink("conf", filepath.Join(real, "link"))) // in a folder of this user
	require.NoError(t, os.Symlink(filepath.Join(real, "link"), filepath.Join(others, "hop")))
	for _, target := range []string{filepath.Join(others, "hop", "f"), others + "/hop/../conf/f"} {
		require.NoError(t, os.Symlink(target, file))
		for mode, refused := range map[os.FileMode]bool{0o777: true, 0o777 | os.ModeSticky: false, 0o755: false} {
			require.NoError(t, os.Chmod(others, mode))
			files, err := Find(below)
			if refused {
				require.ErrorContains(t, err, file+": is reached by the link ")
				require.ErrorContains(t, err, "hop in a folder that other users can write to")
			} else {
				require.NoError(t, err)
				require.Equal(t, []string{file}, files)
			}
		}
		if os.Geteuid() == 0 { // only root can change the owner of a link
			require.NoError(t, os.Lchown(filepath.Join(others, "hop"), 65534, 65534))
			_, err = Find(below)
			require.ErrorContains(t, err, "hop, which belongs to ")
			require.NoError(t, os.Lchown(filepath.Join(others, "hop"), 0, 0))
			require.NoError(t, os.Lchown(others, 65534, 65534))
			_, err = Find(below)
			require.ErrorContains(t, err, "hop in a folder that belongs to ")
			require.NoError(t, os.Lchown(others, 0, 0))
		}
		require.NoError(t, os.Remove(file))
	}
}

func TestAFileOfAnotherUserIsRefusedByName(t *testing.T) {
	if os.Geteuid() != 0 {
		return // only root can create a file owned by another user
	}
	file, below := project(t)
	require.NoError(t, os.Lchown(file, 65534, 65534))
	_, err := Find(below)
	require.ErrorContains(t, err, file+": belongs to ")
	require.NoError(t, os.Lchown(file, 0, 0))
	require.NoError(t, os.Lchown(filepath.Dir(file), 65534, 65534))
	_, err = Find(below)
	require.ErrorContains(t, err, file+": is in the folder "+filepath.Dir(file)+", which belongs to ")
	require.NoError(t, os.Lchown(filepath.Dir(file), 0, 65534))
	require.NoError(t, os.Chmod(filepath.Dir(file), 0o775))
	_, err = Find(below)
	require.ErrorContains(t, err, "which other users can write to", "a group of others")
	require.NoError(t, os.Lchown(filepath.Dir(file), 0, os.Getegid()))
	_, err = Find(below)
	require.NoError(t, err, "a group of this user alone")
}

func TestTheUsersOwnFileIsCheckedToo(t *testing.T) {
	_, below := project(t)
	dir := filepath.Join(os.Getenv("XDG_CONFIG_HOME"), "bgagent")
	require.NoError(t, os.Mkdir(dir, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, userFile), []byte("{}"), 0o644))
	_, err := Find(below)
	require.NoError(t, err)
	require.NoError(t, os.Chmod(dir, 0o777))
	_, err = Find(below)
	require.ErrorContains(t, err, filepath.Join(dir, userFile)+": is in the folder")
}
