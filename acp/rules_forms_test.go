//go:build unix

package acp

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/tempdir"
	"github.com/stretchr/testify/require"
)

func TestAPathIsDeniedHoweverTheRuleWritesIt(t *testing.T) {
	home, dir := tempdir.New(t), tempdir.New(t)
	t.Setenv("HOME", home)
	require.NoError(t, os.Mkdir(filepath.Join(dir, "secrets"), 0o700))
	about := func(path string) subject {
		return subject{access: accessOf("write", "edit"), texts: []string{path}, dir: dir, real: realPath(dir)}
	}
	key, notes := filepath.Join(dir, "secrets", "keys", "a"), filepath.Join(dir, "secretsnot")
	for _, pattern := range []string{
		"secrets/*", "secrets/**", "./secrets/*", "secrets//*", "secrets/", "secrets", "./secrets", "x/../secrets/*", "*/keys", "secrets/keys/", "secrets/k?ys",
		dir + "/secrets", dir + "/./secrets/*", dir + "/x/../secrets/",
	} {
		rules := []bgagent.Permission{on("*", "*", bgagent.PermissionAllow), on("edit", pattern, bgagent.PermissionDeny)}
		require.Equal(t, bgagent.PermissionDeny, ruling(rules, about(key)), pattern)
		require.Equal(t, bgagent.PermissionAllow, ruling(rules, about(notes)), pattern)
	}
	for _, pattern := range []string{"~/.ssh/*", "~/.ssh/", "~/.ssh", "~"} {
		rules := []bgagent.Permission{on("*", "*", bgagent.PermissionAllow), on("edit", pattern, bgagent.PermissionDeny)}
		require.Equal(t, bgagent.PermissionDeny, ruling(rules, about(filepath.Join(home, ".ssh", "id"))), pattern)
	}
	// A relative pattern matches neither the session's directory itself nor a folder above it. An absolute
	// pattern does.
	rules := []bgagent.Permission{on("*", "*", bgagent.PermissionAllow), on("edit", filepath.Base(dir), bgagent.PermissionDeny)}
	require.Equal(t, bgagent.PermissionAllow, ruling(rules, about(notes)))
	rules[1].Pattern = dir
	require.Equal(t, bgagent.PermissionDeny, ruling(rules, about(notes)))
	for pattern, want := range map[string]bgagent.PermissionAction{
		"./secrets/*": bgagent.PermissionAllow, "secrets/": bgagent.PermissionAllow,
		"secrets": bgagent.PermissionDeny, // a pattern that allows a folder does not allow its content
	} {
		rules := []bgagent.Permission{on("*", "*", bgagent.PermissionDeny), on("edit", pattern, bgagent.PermissionAllow)}
		require.Equal(t, want, ruling(rules, about(key)), pattern)
	}
}

func TestACommandIsDeniedHoweverTheShellFindsIt(t *testing.T) {
	rules := []bgagent.Permission{on("*", "*", bgagent.PermissionAllow), on("bash", "rm *", bgagent.PermissionDeny)}
	about := func(command string) subject {
		return subject{access: accessOf("bash", "execute"), texts: []string{command}, command: true}
	}
	for _, command := range []string{
		"r''m x", `r"m" x`, `r\m x`, `\rm x`, "env -u A rm x", "sudo -u root rm x", "timeout -s KILL 5 rm x", "exec -a z rm x", "find . -exec rm {} ;", "ssh host rm x",
		"if true; then rm x; fi", "while rm x; do :; done", "coproc rm x", "! rm x", "trap 'rm x' EXIT", "f() { rm x; }", "su -c 'rm x'",
	} {
		require.Equal(t, bgagent.PermissionDeny, ruling(rules, about(command)), command)
	}
	for _, command := range []string{"$RM x", "rm${IFS}x", "{rm,x}", "/bin/r? x"} {
		require.Equal(t, bgagent.PermissionAsk, ruling(rules, about(command)), command)
		require.Equal(t, bgagent.PermissionAllow, ruling(rules[:1], about(command)), command)
	}
	for _, command := range []string{"git rm-not x", "[ -f x ]", "[[ -f x ]]", "echo $HOME", "ls *.go", "git commit -m 'say it'", "sudo ls"} {
		require.Equal(t, bgagent.PermissionAllow, ruling(rules, about(command)), command)
	}
}
