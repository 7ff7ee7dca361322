package main

import (
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/stretchr/testify/require"
)

// The function "delegating" returns a place with an agent that runs a shell line. The line can call the
// script inner.sh, which starts another bgagent with a task for a demo agent.
func delegating(t *testing.T, line string) *place {
	p := newPlace(t)
	p.write("inner.jsonc", `{"agents": {"wait": {"kind": "inproc"}}}`)
	p.write("inner-tasks.jsonc", `[{"agent": "wait", "prompt": "1 ms"}]`)
	p.write("inner.sh", "#!/bin/sh\ncd "+p.project+"\nHOME="+filepath.Join(p.project, "../..")+" "+binary+" -c inner.jsonc run inner-tasks.jsonc -o inner-out >inner-said 2>&1\necho $? >inner-code\n")
	p.write("agent.sh", "#!/bin/sh\ncat >/dev/null\n"+line+"\necho done\n")
	p.write(".bgagent.jsonc", `{"agents": {"a": {"kind": "command", "preset": "generic", "command": ["`+p.project+`/agent.sh"]}}}`)
	p.write("tasks.jsonc", `[{"agent": "a", "prompt": "x"}]`)
	return p
}

// innerCode waits until the inner bgagent has exited and returns its exit code.
func (p *place) innerCode() int {
	p.t.Helper()
	p.awaitFile("inner-code")
	b, err := os.ReadFile(filepath.Join(p.project, "inner-code"))
	require.NoError(p.t, err)
	code, err := strconv.Atoi(strings.TrimSpace(string(b)))
	require.NoError(p.t, err)
	return code
}

func TestADepthIsKnownWithoutTheVariableAndTheDocumentsSayWhoEscapes(t *testing.T) {
	for name, line := range map[string]string{
		"unchanged":                   "./inner.sh",
		"without the variable":        "env -u BGAGENT_DEPTH ./inner.sh",
		"with an empty environment":   "env -i PATH=/usr/bin:/bin ./inner.sh",
		"in a separate session":       "setsid -w env -i PATH=/usr/bin:/bin ./inner.sh",
		"several programs further in": "env -i PATH=/usr/bin:/bin sh -c 'sh -c \"./inner.sh; true\"; true'",
	} {
		t.Run(name, func(t *testing.T) {
			p := delegating(t, line)
			got := p.run("run", "tasks.jsonc", "-o", "out")
			require.Equal(t, 0, got.code, got.stderr)
			require.Equal(t, 2, p.innerCode())
			said, err := os.ReadFile(filepath.Join(p.project, "inner-said"))
			require.NoError(t, err)
			require.Contains(t, string(said), "starting at depth 1 (BGAGENT_DEPTH): tasks may not delegate any further")
		})
	}
	// A program cannot find the turn that started it if its environment variables were removed and every
	// program in between has exited.
	p := delegating(t, "(setsid env -i PATH=/usr/bin:/bin sh -c '(while kill -0 $$; do :; done; ./inner.sh) &') </dev/null >/dev/null 2>&1\nwhile ! [ -e inner-code ]; do sleep 0.1; done")
	got := p.run("run", "tasks.jsonc", "-o", "out")
	require.Equal(t, 0, got.code, got.stderr)
	require.Equal(t, 0, p.innerCode())
	text, err := os.ReadFile("../../docs/program.md")
	require.NoError(t, err)
	require.Contains(t, strings.Join(strings.Fields(string(text)), " "), "This stops only well-behaved programs: a detached program with a cleared environment starts at depth 0 again.")
}

func TestACallerIsKnownByItsTokenWhateverItsEnvironmentSays(t *testing.T) {
	p := withProgram(t, obedient)
	p.write(".bgagent.jsonc", `{"background_task": {"maxTasksPerRoot": 2}, "agents": {"program": {"kind": "command", "preset": "generic", "command": ["`+p.project+`/agent.sh"]}}}`)
	const token = "alices-token-0123456789"
	p.env = append(p.env, "ALICE="+token)
	url, _ := startServe(t, p, "--token", "alice=ALICE")
	launch := func() string {
		// Each launch has a new client.
		cs := client(t, &mcp.StreamableClientTransport{Endpoint: url, HTTPClient: &http.Client{Transport: withToken(token)}, DisableStandaloneSSE: true})
		return callTool(t, cs, "delegate_task", map[string]any{"subagent_type": "program", "prompt": "x"})
	}
	require.Regexp(t, idIn, launch())
	require.Regexp(t, idIn, launch())
	require.Contains(t, launch(), "too many are pending or running")
}
