//go:build unix

package acp

import (
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/tempdir"
	"github.com/stretchr/testify/require"
)

// desk returns a session with the given file access. It also returns a directory that contains a
// secret and is outside the session's directory.
func desk(t *testing.T, access FileAccess) (c *Client, session, dir, outside string) {
	t.Helper()
	cfg := program(t, "")
	cfg.Files = access
	c = open(t, cfg)
	outside = tempdir.New(t)
	require.NoError(t, os.WriteFile(filepath.Join(outside, "secret"), []byte("a secret"), 0o600))
	return c, create(t, c), cfg.Dir, outside
}

func TestFilesOfTheSessionCanBeReadAndWritten(t *testing.T) {
	c, id, dir, _ := desk(t, FilesReadWrite)
	path := filepath.Join(dir, "notes", "new.txt")
	require.Equal(t, "written", prompt(t, c, id, "write "+path+" a long text").Text)
	require.Equal(t, "written", prompt(t, c, id, "write "+path+" text").Text)
	require.Equal(t, "text", prompt(t, c, id, "read "+path).Text)
	require.Equal(t, "written", prompt(t, c, id, "write "+path).Text, "an empty text is a text too")
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Zero(t, info.Size())
	require.NoError(t, os.Symlink("notes/new.txt", filepath.Join(dir, "link")))
	require.Equal(t, "written", prompt(t, c, id, "write "+filepath.Join(dir, "link")+" through it").Text)
	require.Equal(t, "through it", prompt(t, c, id, "read "+path).Text)
	require.Contains(t, prompt(t, c, id, "read "+path+".missing").Text, "Resource not found")
}

func TestAFileIsReplacedWhole(t *testing.T) {
	dir := tempdir.New(t)
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	defer closing(root)
	path := filepath.Join(dir, "a")
	require.NoError(t, os.WriteFile(path, []byte("as it was"), 0o640))
	require.NoError(t, os.Chmod(path, 0o751))
	before, err := os.Open(path)
	require.NoError(t, err)
	defer closing(before)
	require.NoError(t, writeText(root, "a", "new"))
	kept, err := io.ReadAll(before)
	require.NoError(t, err)
	require.Equal(t, "as it was", string(kept), "the old file is not touched until the new text is complete")
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o751), info.Mode())

	// Symbolic links, and files with several hard links, are overwritten in place.
	require.NoError(t, os.Link(path, filepath.Join(dir, "b")))
	require.NoError(t, os.Symlink("b", filepath.Join(dir, "c")))
	require.NoError(t, writeText(root, "c", "by all names"))
	for _, name := range []string{"a", "b", "c"} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Equal(t, "by all names", string(text))
	}
	require.Error(t, replace(root, "missing/d", "x", nil))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "full"), 0o700))
	require.Error(t, replace(root, "full", "x", nil), "a directory")
	list, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, list, 4, "failed writes leave nothing behind")
}

// The test needs permission to mount a file system of 1 MiB.
func TestAFullDiskLeavesTheOldFile(t *testing.T) {
	dir := tempdir.New(t)
	if err := exec.Command("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", dir).Run(); err != nil {
		t.Skip("a file system cannot be mounted here: ", err)
	}
	t.Cleanup(func() { require.NoError(t, exec.Command("umount", dir).Run()) })
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	defer closing(root)
	old := strings.Repeat("o", 200<<10)
	require.NoError(t, writeText(root, "a", old))
	require.ErrorIs(t, writeText(root, "a", strings.Repeat("n", 2<<20)), syscall.ENOSPC)
	text, err := os.ReadFile(filepath.Join(dir, "a"))
	require.NoError(t, err)
	require.Equal(t, old, string(text))
	require.NoError(t, writeText(root, "a", "small"), "the failed write has freed its space")
}

func TestNoFileOutsideOfTheSessionIsReadOrWritten(t *testing.T) {
	c, id, dir, outside := desk(t, FilesReadWrite)
	secret := filepath.Join(outside, "secret")
	require.NoError(t, os.Symlink(secret, filepath.Join(dir, "link")))
	require.NoError(t, os.Symlink(outside, filepath.Join(dir, "door")))
	require.NoError(t, os.Symlink(filepath.Join("..", filepath.Base(outside)), filepath.Join(dir, "window")))
	up, err := filepath.Rel(dir, secret)
	require.NoError(t, err)
	for _, path := range []string{
		secret, dir + "/" + up, up, "secret", dir + "/link", dir + "/door/secret", dir + "/window/secret", dir + "/door/new",
		dir, dir + "/", "/", "/etc/passwd", filepath.Dir(dir) + "/x", dir + "x/y",
	} {
		read := prompt(t, c, id, "read "+path).Text
		require.Contains(t, read, "error", path)
		require.NotContains(t, read, "a secret", path)
		require.Contains(t, prompt(t, c, id, "write "+path+" broken into").Text, "error", path)
	}
	text, err := os.ReadFile(secret)
	require.NoError(t, err)
	require.Equal(t, "a secret", string(text))
	list, err := os.ReadDir(outside)
	require.NoError(t, err)
	require.Len(t, list, 1)
}

func TestTheDirectoryOfASessionMayItselfBeALink(t *testing.T) {
	c, _, dir, _ := desk(t, FilesRead)
	link := filepath.Join(tempdir.New(t), "link")
	require.NoError(t, os.Symlink(dir, link))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "a"), []byte("here"), 0o600))
	id, err := c.CreateSession(t.Context(), bgagent.SessionSpec{Directory: link})
	require.NoError(t, err)
	require.Equal(t, "here", prompt(t, c, id, "read "+filepath.Join(link, "a")).Text)
	require.Equal(t, "here", prompt(t, c, id, "read "+filepath.Join(dir, "a")).Text)
}

func TestOnlyTextFilesAreReadOrWritten(t *testing.T) {
	c, id, dir, _ := desk(t, FilesReadWrite)
	pipe := filepath.Join(dir, "pipe")
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "sub"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "binary"), []byte{0xff, 0xfe, 0x00}, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "large"), make([]byte, maxFile+1), 0o600))
	require.Contains(t, prompt(t, c, id, "read "+pipe).Text, "not a regular file")
	require.Contains(t, prompt(t, c, id, "write "+pipe+" x").Text, "error")
	reader, err := os.OpenFile(pipe, os.O_RDWR, 0)
	require.NoError(t, err)
	defer closing(reader)
	require.Contains(t, prompt(t, c, id, "write "+pipe+" x").Text, "not a regular file")
	require.Contains(t, prompt(t, c, id, "read "+dir+"/sub").Text, "not a regular file")
	require.Contains(t, prompt(t, c, id, "write "+dir+"/sub x").Text, "error")
	require.Contains(t, prompt(t, c, id, "read "+dir+"/binary").Text, "not UTF-8 text")
	require.Contains(t, prompt(t, c, id, "read "+dir+"/large").Text, "more than 8388608 bytes")
	require.NoError(t, os.RemoveAll(dir))
	require.ErrorContains(t, prompt(t, c, id, "read "+dir+"/a").err, "cannot be used")
	require.NoError(t, os.Mkdir(dir, 0o700))
}

func TestFilesAreRefusedWithoutAccess(t *testing.T) {
	for access, want := range map[FileAccess][2]string{
		FilesNone: {"does not let agents read files", "does not let agents write files"},
		FilesRead: {"here", "does not let agents write files"},
	} {
		c, id, dir, _ := desk(t, access)
		path := filepath.Join(dir, "a")
		require.NoError(t, os.WriteFile(path, []byte("here"), 0o600))
		require.Contains(t, prompt(t, c, id, "read "+path).Text, want[0])
		require.Contains(t, prompt(t, c, id, "write "+path+" x").Text, want[1])
	}
}

func TestARuleCanDenyFiles(t *testing.T) {
	c, id, dir, _ := desk(t, FilesReadWrite)
	rules := []bgagent.Permission{{Name: "read", Pattern: "*.key", Action: bgagent.PermissionDeny}, {Name: "edit", Pattern: "go.*", Action: bgagent.PermissionDeny}}
	ask := func(text string) string {
		return run(t, c, id, bgagent.Prompt{Text: text, Permissions: rules}).wait().Text
	}
	require.Equal(t, "written", ask("write "+dir+"/a.key x"))
	require.Contains(t, ask("read "+dir+"/a.key"), "a rule of the host denies it")
	require.Contains(t, ask("write "+dir+"/sub/../go.mod x"), "a rule of the host denies it")
	require.Equal(t, "x", prompt(t, c, id, "read "+dir+"/a.key").Text)
}

func TestLinesOfAFileAreCounted(t *testing.T) {
	ptr := func(n int) *int { return &n }
	for _, test := range []struct {
		line  int
		limit *int
		want  string
	}{
		{0, nil, "one\ntwo\nthree"}, {1, nil, "one\ntwo\nthree"}, {2, nil, "two\nthree"}, {4, nil, ""},
		{0, ptr(1), "one\n"}, {2, ptr(1), "two\n"}, {2, ptr(9), "two\nthree"}, {3, ptr(1), "three"},
		{1, ptr(0), ""}, {-5, ptr(2), "one\ntwo\n"}, {1 << 62, ptr(1 << 62), ""},
	} {
		got, err := readLines(strings.NewReader("one\ntwo\nthree"), test.line, test.limit)
		require.NoError(t, err)
		require.Equal(t, test.want, got, "%+v", test)
	}
}
