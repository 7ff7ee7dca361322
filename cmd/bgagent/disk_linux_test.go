package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAFullDiskIsReported(t *testing.T) {
	p := newPlace(t)
	disk := filepath.Join(p.project, "disk")
	require.NoError(t, os.Mkdir(disk, 0o755))
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=16k"); err != nil {
		t.Skipf("making a small disk needs a privilege: %v", err)
	}
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(disk, 0)) })
	p.write("large.txt", strings.Repeat("todo todo todo todo todo todo todo todo todo todo todo\n", 500))
	p.write("tasks.jsonc", `[{"agent": "demo-wait", "prompt": "1 ms"}, {"agent": "demo-search", "prompt": "find \"todo\""}, {"agent": "demo-search", "prompt": "find \"todo\" again"}, {"agent": "demo-search", "prompt": "find \"todo\" at last"}]`)
	got := p.run("run", "tasks.jsonc", "-o", "disk/out")
	require.Equal(t, 1, got.code, got.out+got.stderr)
	require.Contains(t, got.out, "no space left on device")
	require.Contains(t, got.out, "could not be written)")
	require.Contains(t, got.out, "(not written: no space left on device)\n     | ", "the result follows, so that it is not lost")

	filler := make([]byte, 4096)
	f, err := os.Create(filepath.Join(disk, "filler"))
	require.NoError(t, err)
	for err == nil {
		_, err = f.Write(filler)
	}
	require.NoError(t, f.Close())
	got = p.run("run", "tasks.jsonc", "-o", "disk/out2")
	require.NotEqual(t, 0, got.code)
	require.Contains(t, got.stderr, "no space left on device")
	require.Empty(t, got.out, "no agent was started")
}
