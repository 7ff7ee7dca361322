// Package modules holds small Go modules for the quickstart's tests. The modules are stored as
// archives in the format that the go command's own tests use. They are not stored as Go files,
// because one module contains a file that cannot be parsed.
package modules

import (
	"embed"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

//go:embed *.txtar
var archives embed.FS

// Unpack writes the module into a new directory and returns its path.
func Unpack(t testing.TB, name string) string {
	t.Helper()
	text, err := archives.ReadFile(name + ".txtar")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, part := range strings.Split("\n"+string(text), "\n-- ")[1:] {
		file, body, ok := strings.Cut(part, " --\n")
		if !ok {
			t.Fatalf("%s.txtar: no file name in %q", name, part)
		}
		at := filepath.Join(dir, filepath.FromSlash(file))
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, []byte(body+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// Contents returns the contents of all files in dir and its subdirectories, by path. Tests use
// it to check that an agent has not written anything.
func Contents(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(p)
		all[p] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
