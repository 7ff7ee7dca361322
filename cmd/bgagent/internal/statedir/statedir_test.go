package statedir

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTheDefaultFolderIsThatOfTheSpecification(t *testing.T) {
	t.Setenv("HOME", "/home/me")
	for base, want := range map[string]string{"": "/home/me/.local/state/bgagent", "relative": "/home/me/.local/state/bgagent", "/state": "/state/bgagent"} {
		t.Setenv("XDG_STATE_HOME", base)
		dir, err := Base()
		require.NoError(t, err)
		require.Equal(t, want, dir)
		f, err := Open("")
		require.NoError(t, err)
		require.Equal(t, filepath.Join(want, "tasks"), f.Dir())
	}
}

func TestAConfigurationHasOneStoreWhateverItsPathIsCalled(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	file, other := filepath.Join(dir, "My Project", ".bgagent.jsonc"), filepath.Join(dir, "other.jsonc")
	require.NoError(t, os.Mkdir(filepath.Dir(file), 0o755))
	for _, path := range []string{file, other} {
		require.NoError(t, os.WriteFile(path, nil, 0o600))
	}
	require.NoError(t, os.Symlink("My Project", filepath.Join(dir, "link")))
	f, err := Open(filepath.Join(dir, "state"))
	require.NoError(t, err)
	place := func(files ...string) Store {
		s, err := f.Served(files)
		require.NoError(t, err)
		require.Equal(t, Serve, s.Kind)
		return s
	}
	first := place(file)
	require.Contains(t, first.Name(), "serve-myproject-")
	require.Equal(t, file, first.Path)
	require.Equal(t, first.Dir, place(filepath.Join(dir, "link", ".bgagent.jsonc")).Dir)
	require.NotEqual(t, first.Dir, place(other).Dir)
	require.NotEqual(t, first.Dir, place(other, file).Dir)
	t.Chdir(filepath.Dir(file))
	require.NotEqual(t, first.Dir, place().Dir)
	_, err = f.Served([]string{"missing"})
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NoDirExists(t, f.Dir(), "nothing is made yet")
}

func TestMachinesThatShareAStateFolderHaveFoldersOfTheirOwn(t *testing.T) {
	require.NotEqual(t, sharedKey("c", "", "one"), sharedKey("c", "", "two"))
	require.Equal(t, sharedKey("c", "p", "one"), sharedKey("c", "p", "two"), "a named process can move")
	file := filepath.Join(t.TempDir(), "x")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	f, err := Open(t.TempDir())
	require.NoError(t, err)
	s, err := f.Shared([]string{file}, "c", "")
	require.NoError(t, err)
	require.Contains(t, s.Dir, sharedKey("c", "", s.Host))
}

func TestStoresAreFoundTheLatestUsedFirst(t *testing.T) {
	dir := t.TempDir()
	f, err := Open(filepath.Join(dir, "state"))
	require.NoError(t, err)
	all, err := f.Stores()
	require.NoError(t, err)
	require.Empty(t, all)
	var made []Store
	for i, id := range []string{"one", "two", "three"} {
		_, s, err := f.Project(dir, id)
		require.NoError(t, err)
		require.NoError(t, s.Make())
		at := time.Now().Add(time.Duration(-i) * time.Hour)
		require.NoError(t, os.Chtimes(filepath.Join(s.Dir, aboutName), at, at))
		made = append(made, s)
	}
	run, err := f.Results(dir, "id")
	require.NoError(t, err)
	require.NoError(t, run.Make())
	require.NoError(t, os.MkdirAll(filepath.Join(f.Dir(), "mcp-junk-abc"), 0o700), "the store has no valid description")
	require.NoError(t, os.MkdirAll(filepath.Join(f.Dir(), "lost+found"), 0o700))

	old, fresh, err := f.Project(dir, "four")
	require.NoError(t, err)
	require.NoDirExists(t, fresh.Dir)
	require.Len(t, old, 3)
	for i := range old {
		require.Equal(t, made[i].Dir, old[i].Dir)
	}
	all, err = f.Stores()
	require.NoError(t, err)
	require.Len(t, all, 4)
	info, err := os.Stat(run.Dir)
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o700), info.Mode().Perm())
	same, err := f.Named(run.Name())
	require.NoError(t, err)
	require.Equal(t, run.Path, same.Path)
	for _, name := range []string{"", "..", "run-../x", "run-x", "run-x-missing", "/etc"} {
		_, err := f.Named(name)
		require.ErrorIs(t, err, fs.ErrNotExist, name)
	}
}

func TestAProjectHasOnlyTheStoresOfItsMachine(t *testing.T) {
	f, err := Open(t.TempDir())
	require.NoError(t, err)
	project, other := t.TempDir(), t.TempDir()
	_, mine, err := f.Project(project, "mine")
	require.NoError(t, err)
	_, remote, err := f.Project(project, "remote")
	require.NoError(t, err)
	_, elsewhere, err := f.Project(other, "elsewhere")
	require.NoError(t, err)
	run, err := f.Results(project, "run")
	require.NoError(t, err)
	remote.Host = "another-machine"
	for _, s := range []Store{mine, remote, elsewhere, run} {
		require.NoError(t, s.Make())
	}
	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(project, link))
	for _, dir := range []string{project, link} {
		old, _, err := f.Project(dir, "next")
		require.NoError(t, err)
		require.Len(t, old, 1)
		require.Equal(t, mine.Dir, old[0].Dir)
	}
}
