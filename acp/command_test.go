//go:build unix

package acp

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/permission"
	"github.com/bgagent/bgagent/internal/tempdir"
	sdk "github.com/coder/acp-go-sdk"
	"github.com/stretchr/testify/require"
)

// The function "asked" returns a permission request for a tool of the given kind.
func asked(kind sdk.ToolKind, title string, input any, paths ...string) PermissionRequest {
	return PermissionRequest{Directory: "/w", Name: nameOf(title, string(kind)), Kind: string(kind), Title: title, Input: input, Paths: paths}
}

func TestACommandIsJudgedInEveryForm(t *testing.T) {
	const allow, deny, ask = bgagent.PermissionAllow, bgagent.PermissionDeny, bgagent.PermissionAsk
	noRm := []bgagent.Permission{on("*", "*", allow), on("bash", "rm *", deny)}
	git := []bgagent.Permission{on("bash", "git *", allow)}
	list := func(words ...any) []any { return words }
	type fields = map[string]any
	for name, test := range map[string]struct {
		input any
		noRm  bgagent.PermissionAction
		git   bgagent.PermissionAction
	}{
		"a text":                    {fields{"command": "rm -rf x"}, deny, ask},
		"a list":                    {fields{"command": list("rm", "-rf", "x")}, deny, ask},
		"a shell and its script":    {fields{"command": list("bash", "-lc", "rm -rf x")}, deny, ask},
		"a path of a shell":         {fields{"command": list("/bin/sh", "-e", "-c", "cd a && rm x")}, deny, ask},
		"a shell in a text":         {fields{"command": "bash -lc 'rm -rf x'"}, deny, ask},
		"a shell in a shell":        {fields{"command": list("bash", "-c", `sh -c "rm x"`)}, deny, ask},
		"another field":             {fields{"cmd": "rm x"}, deny, ask},
		"argv":                      {fields{"argv": list("rm", "x")}, deny, ask},
		"words apart":               {fields{"command": "rm", "args": list("-rf", "x")}, deny, ask},
		"further in":                {fields{"call": fields{"Command": list("rm", "x")}}, deny, ask},
		"several":                   {fields{"commands": list("ls", "rm x")}, deny, ask},
		"several, each a list":      {fields{"commands": list(list("ls"), list("rm", "x"))}, deny, ask},
		"beside a harmless one":     {fields{"command": "git status", "cmd": "rm x"}, deny, ask},
		"with what runs it":         {fields{"command": "sudo -n env A=1 /bin/rm x"}, deny, ask},
		"alone":                     {fields{"command": "rm"}, deny, ask},
		"no command":                {fields{"description": "harmless"}, ask, ask},
		"no input":                  {nil, ask, ask},
		"an empty one":              {fields{"command": ""}, ask, ask},
		"a number":                  {fields{"command": 7.0}, ask, ask},
		"a list with a number":      {fields{"command": list("git", 7.0)}, ask, ask},
		"too far in":                {fields{"a": fields{"b": fields{"c": fields{"d": fields{"e": fields{"f": fields{"command": "git x"}}}}}}}, ask, ask},
		"an allowed one":            {fields{"command": "git status"}, allow, allow},
		"an allowed list":           {fields{"command": list("git", "status")}, allow, allow},
		"an allowed script":         {fields{"command": list("bash", "-lc", "git status")}, allow, allow},
		"the shell alone":           {fields{"command": list("bash")}, allow, ask},
		"an allowed one and others": {fields{"command": "git status", "cmd": "git log"}, allow, allow},
	} {
		q := asked(sdk.ToolKindExecute, "git status", test.input)
		require.Equal(t, test.noRm, ruling(noRm, q.subject(false)), "all but rm: %s", name)
		require.Equal(t, test.git, ruling(git, q.subject(false)), "git alone: %s", name)
	}
	noShells := []bgagent.Permission{on("*", "*", allow), on("bash", "bash *", deny)}
	q := asked(sdk.ToolKindExecute, "x", fields{"command": list("bash", "-lc", "git status")})
	require.Equal(t, deny, ruling(noShells, q.subject(false)), "the shell is a command, too")
}

func TestATitleAllowsNothing(t *testing.T) {
	const allow, deny, ask = bgagent.PermissionAllow, bgagent.PermissionDeny, bgagent.PermissionAsk
	rules := []bgagent.Permission{on("grep", "*", allow), on("webfetch", "https://good/*", allow)}
	q := asked(sdk.ToolKindExecute, "grep", map[string]any{"command": "rm x"})
	require.Equal(t, ask, ruling(rules, q.subject(false)), "a command that calls itself grep")
	q = asked(sdk.ToolKindSearch, "grep", nil)
	require.Equal(t, ask, ruling([]bgagent.Permission{on("grep", "/w/*", allow)}, q.subject(false)))
	q = asked(sdk.ToolKindFetch, "https://good/x", map[string]any{"url": "https://evil/x"})
	require.Equal(t, ask, ruling(rules, q.subject(false)))
	q = asked(sdk.ToolKindOther, "harmless", map[string]any{"command": "rm x"})
	require.Equal(t, deny, ruling([]bgagent.Permission{on("*", "*", allow), on("bash", "rm *", deny)}, q.subject(false)), "an unknown tool with a command")
}

func TestWordsForAKindAreTheSameOverTheProtocol(t *testing.T) {
	const allow, deny = bgagent.PermissionAllow, bgagent.PermissionDeny
	for word, kinds := range map[string][]sdk.ToolKind{
		"Bash": {sdk.ToolKindExecute}, "terminal": {sdk.ToolKindExecute}, "Edit": {sdk.ToolKindEdit, sdk.ToolKindDelete, sdk.ToolKindMove},
		"Fetch": {sdk.ToolKindFetch}, "web_search": {sdk.ToolKindFetch}, "Read": {sdk.ToolKindRead, sdk.ToolKindSearch}, "grep": {sdk.ToolKindSearch},
		"LS": {sdk.ToolKindSearch, sdk.ToolKindRead}, "remove": {sdk.ToolKindDelete}, "e*": {sdk.ToolKindEdit, sdk.ToolKindDelete},
	} {
		for _, kind := range kinds {
			q := asked(kind, "Do something", map[string]any{"url": "x", "command": "x"}, "/w/a")
			require.Equal(t, deny, ruling([]bgagent.Permission{on("*", "*", allow), on(word, "*", deny)}, q.subject(false)), "%s %s", word, kind)
			require.Equal(t, allow, ruling([]bgagent.Permission{on(word, "*", deny), on("*", "*", allow)}, q.subject(false)), "%s %s", word, kind)
		}
	}
}

func TestTheDocumentsSayHowRulesAreEnforced(t *testing.T) {
	raw, err := os.ReadFile("../docs/clients.md")
	require.NoError(t, err)
	require.Contains(t, string(raw), "\n"+keeps.Row("`acp`")+"\n")
	require.Equal(t, permission.Asked, keeps.Others)
}

// The function "linked" returns a directory and a symbolic link to the directory.
func linked(t *testing.T) (dir, link string) {
	t.Helper()
	dir = realPath(tempdir.New(t))
	link = filepath.Join(realPath(tempdir.New(t)), "link")
	require.NoError(t, os.Symlink(dir, link))
	return dir, link
}

func TestPathsAreComparedWithLinksResolved(t *testing.T) {
	const allow, deny, ask = bgagent.PermissionAllow, bgagent.PermissionDeny, bgagent.PermissionAsk
	dir, link := linked(t)
	for _, p := range []string{"src", "secrets", "back"} {
		require.NoError(t, os.Mkdir(filepath.Join(dir, p), 0o700))
	}
	require.NoError(t, os.Symlink("../secrets", filepath.Join(dir, "src", "door")))
	require.NoError(t, os.Symlink("..", filepath.Join(dir, "back", "up")))
	about := func(session string, rules []bgagent.Permission, path string) bgagent.PermissionAction {
		q := PermissionRequest{Directory: session, Name: "edit", Kind: "edit", Paths: []string{path}}
		return ruling(rules, q.subject(false))
	}
	for _, session := range []string{dir, link} {
		for _, told := range []string{dir, link} {
			for _, pattern := range []string{"secrets/*", dir + "/secrets/*", link + "/secrets/*", "*/secrets/key"} {
				rules := []bgagent.Permission{on("*", "*", allow), on("edit", pattern, deny)}
				for _, path := range []string{"/secrets/key", "/src/door/key", "/src/../secrets/key", "/back/up/secrets/key"} {
					require.Equal(t, deny, about(session, rules, told+path), "%s %s %s", session, pattern, told+path)
				}
				require.Equal(t, allow, about(session, rules, told+"/src/a"), "%s %s %s", session, pattern, told)
			}
			for _, pattern := range []string{"src/*", dir + "/src/*", link + "/src/*"} {
				rules := []bgagent.Permission{on("edit", pattern, allow)}
				require.Equal(t, allow, about(session, rules, told+"/src/a"), "%s %s", session, pattern)
				require.Equal(t, allow, about(session, rules, "src/a"), "%s %s", session, pattern)
				for _, path := range []string{"/src/door/key", "/src/../secrets/key", "/secrets/key"} {
					require.Equal(t, ask, about(session, rules, told+path), "%s %s %s", session, pattern, told+path)
				}
			}
		}
	}
}

func TestACycleOfLinksEnds(t *testing.T) {
	dir := realPath(tempdir.New(t))
	require.NoError(t, os.Symlink("b", filepath.Join(dir, "a")))
	require.NoError(t, os.Symlink("a", filepath.Join(dir, "b")))
	require.NotEmpty(t, realPath(filepath.Join(dir, "a", "x")))
}

func TestATerminalRunsInTheDirectoryThatThePolicySaw(t *testing.T) {
	dir, link := linked(t)
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "in", "deep"), 0o700))
	require.NoError(t, os.Symlink("..", filepath.Join(dir, "out")))
	require.NoError(t, os.Symlink("in/deep", filepath.Join(dir, "short")))
	for _, session := range []string{dir, link} {
		for _, cwd := range []string{session + "/out", "out", session + "/short/../../..", session + "/..", "/", session + "x"} {
			_, err := directoryInside(session, cwd)
			require.ErrorContains(t, err, "it is not in the working directory of the session", cwd)
		}
		for cwd, want := range map[string]string{session: "", ".": "", session + "/short": "/in/deep", "in": "/in", dir + "/in": "/in"} {
			got, err := directoryInside(session, cwd)
			require.NoError(t, err, cwd)
			require.Equal(t, dir+want, got, cwd)
		}
	}
}
