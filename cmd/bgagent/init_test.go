//go:build unix

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestInitWritesWhatIsOnPATHAndOverwritesNothing(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.write("bin/codex", "#!/bin/sh\necho codex-cli 9.9.9\n")
	p.path = filepath.Join(p.project, "bin") + ":" + p.path
	require.Equal(t, "wrote .bgagent.jsonc\nbgagent agents checks whether each agent can start\n", p.does("init"))
	require.Contains(t, p.does("agents"), "codex-cli 9.9.9")
	text := p.does("config")
	require.Regexp(t, `agents\.codex\.preset +"codex"`, text)
	require.NotContains(t, text, "demo")
	b, err := os.ReadFile(filepath.Join(p.project, ".bgagent.jsonc"))
	require.NoError(t, err)
	require.Contains(t, string(b), "// found: "+filepath.Join(p.project, "bin", "codex")+"\n")

	p.path = "/usr/bin:/bin"
	require.Equal(t, "bgagent: .bgagent.jsonc exists, and nothing is overwritten; edit it, or remove it first\n", p.refuses(2, "init"))
	now, err := os.ReadFile(filepath.Join(p.project, ".bgagent.jsonc"))
	require.NoError(t, err)
	require.Equal(t, b, now)
	require.NoError(t, os.Remove(filepath.Join(p.project, ".bgagent.jsonc")))
	require.NoError(t, os.Symlink("elsewhere", filepath.Join(p.project, ".bgagent.jsonc")))
	p.refuses(2, "init")
	require.NoFileExists(t, filepath.Join(p.project, "elsewhere"), "a link is not followed")
	require.NoError(t, os.Remove(filepath.Join(p.project, ".bgagent.jsonc")))

	// Without an agent program, the file contains the demo agents.
	p.does("init", "--user")
	require.Regexp(t, `agents\.demo-wait\.kind +"inproc" +.*config/bgagent/bgagent\.jsonc:\d+`, p.does("config"))
	p.does("init", "-c", "other.jsonc")
	require.Contains(t, p.does("-c", "other.jsonc", "config"), "other.jsonc")
	require.Contains(t, p.refuses(2, "init", "--user", "-c", "x.jsonc"), "leave one of them out")
	require.Contains(t, p.refuses(2, "init", "-c", "none/x.jsonc"), "there is no folder")
	entries, err := filepath.Glob(filepath.Join(p.project, "*.part-*"))
	require.NoError(t, err)
	require.Empty(t, entries)
}

// The method "completes" executes a shell with the completion script and a line that prints completions. It
// returns the completions, with a space before and after each of them.
func (p *place) completes(shell, script, line string) string {
	p.t.Helper()
	path, err := exec.LookPath(shell)
	if err != nil && os.Getenv("BGAGENT_REAL_AGENTS") == "require" {
		p.t.Fatal(shell + " is not installed; .ci/shells installs it")
	}
	if err != nil {
		p.t.Skip(shell + " is not installed; .ci/shells installs it")
	}
	p.write("script", p.does("completion", script))
	cmd := exec.Command(path, "-c", line)
	cmd.Dir, cmd.Env = p.project, append(p.env, "PATH="+filepath.Dir(binary)+":"+p.path)
	out, err := cmd.CombinedOutput()
	require.NoError(p.t, err, "%s", out)
	return " " + strings.Join(strings.Fields(string(out)), " ") + " "
}

// withKeptTask returns a place with one kept task, and the id of the task.
func withKeptTask(t *testing.T) (p *place, id string) {
	p = withAgent(t, "cat >/dev/null; echo fine\n")
	p.does("run", "tasks.jsonc", "-o", "out")
	for k := range p.keptTasks() {
		id = k
	}
	return p, id
}

func TestBashCompletesCommandsFlagsAndTasks(t *testing.T) {
	t.Parallel()
	p, id := withKeptTask(t)
	complete := func(words string, n string) string {
		return p.completes("bash", "bash", `source ./script; COMP_WORDS=(bgagent `+words+`); COMP_CWORD=`+n+`; _bgagent; echo "${COMPREPLY[@]}"`)
	}
	all := complete(`""`, "1")
	for _, name := range []string{"run", "serve", "status", "completion"} {
		require.Contains(t, all, " "+name+" ")
	}
	require.Equal(t, " serve send ", complete("se", "1"))
	require.Equal(t, " --page --page-acts ", complete("serve --pa", "2"))
	require.Equal(t, " --state ", complete("--st", "1"))
	require.Equal(t, " "+id+" ", complete(`logs ""`, "2"))
	require.Equal(t, " "+id+" ", complete(`--state x show ""`, "4"), "the ids come from the default folder")
	require.Equal(t, " --follow ", complete("logs --f", "2"))
	require.Equal(t, " zsh ", complete("completion z", "2"))
	require.Equal(t, "  ", complete(`run --output ""`, "3"), "the shell completes files")
	require.Equal(t, "  ", complete(`run ""`, "2"))
}

func TestFishCompletesCommandsFlagsAndTasks(t *testing.T) {
	t.Parallel()
	p, id := withKeptTask(t)
	complete := func(line string) string {
		return p.completes("fish", "fish", `source ./script; complete -C '`+line+`'`)
	}
	require.Contains(t, complete("bgagent st"), " status Show ")
	require.Contains(t, complete("bgagent serve --pa"), "--page-acts")
	require.Contains(t, complete("bgagent logs "), " "+id+" ")
	require.Contains(t, complete("bgagent completion z"), " zsh ")
	require.Contains(t, complete("bgagent logs --fo"), "--follow")
}

func TestZshLoadsItsScript(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.write("open/_other", "#compdef other\n")
	require.NoError(t, os.Chmod(filepath.Join(p.project, "open"), 0o777))
	require.Equal(t, " none ", p.completes("zsh", "zsh", `fpath+=($PWD/open); source ./script; print -r -- ${_comps[other]:-none}`),
		"a folder in which others can write is ignored")
	require.Equal(t, " loaded _bash_complete -o default -F _bgagent ",
		p.completes("zsh", "zsh", `source ./script; whence _bgagent >/dev/null && echo loaded; print -r -- ${_comps[bgagent]}`))
}
