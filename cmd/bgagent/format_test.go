package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// If an agent's format is "lines" but its script prints plain text or malformed lines, the reason for the
// task's failure shows the first such line and names keys of the configuration file. Secret values are
// masked.
func TestOutputInAnotherFormatIsShownInTheReason(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.env = append(p.env, "API_KEY=hunter2hunter2")
	p.write("plain.sh", "#!/bin/sh\ncat > /dev/null\necho \"my answer, by $API_KEY\"\n")
	p.write("wrong.sh", "#!/bin/sh\ncat > /dev/null\necho '{\"type\": \"mesage\", \"text\": \"'\"$API_KEY\"'\"}'\necho '{\"type\": \"end\"}'\n")
	p.write(".bgagent.jsonc", `{"agents": {
		"plain": {"kind": "command", "preset": "generic", "format": "lines", "env": ["API_KEY"], "command": ["./plain.sh"]},
		"wrong": {"kind": "command", "preset": "generic", "format": "lines", "env": ["API_KEY"], "command": ["./wrong.sh"]},
	}}`)
	p.write("tasks.jsonc", `[{"agent": "plain", "prompt": "x"}, {"agent": "wrong", "prompt": "x"}]`)
	require.Equal(t, 1, p.run("run", "tasks.jsonc", "-o", "out").code)
	x := p.index("out")
	require.Equal(t, `plain.sh: it printed nothing that is understood, first "my answer, by [API_KEY]"; check "preset", "format" and the version of the program`, x.Tasks[0].Reason)
	require.Equal(t, "the turn ended without any output; 1 line was not understood, the first: `{\"type\": \"mesage\", \"text\": \"[API_KEY]\"}`", x.Tasks[1].Reason)
}

func TestTokensAndCostsOfARunAreSummedUp(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.write("a.sh", `#!/bin/sh
cat > /dev/null
echo '{"type": "message", "text": "done"}'
echo '{"type": "usage", "input": 12000, "output": 80, "cost": 0.04}'
echo '{"type": "usage", "input": 1000, "output": 3, "cost": 0.01}'
echo '{"type": "end"}'
`)
	p.write(".bgagent.jsonc", `{"agents": {"a": {"kind": "command", "preset": "generic", "format": "lines", "command": ["./a.sh"]}}}`)
	p.write("tasks.jsonc", `[{"agent": "a", "prompt": "x"}, {"agent": "a", "prompt": "y"}]`)
	plain := p.run("run", "tasks.jsonc", "-o", "plain")
	require.Regexp(t, `2 completed in \d+\.\d s; 26k tokens in, 166 out, \$0\.10; results in `, plain.out)
	lines := p.run("run", "tasks.jsonc", "-o", "json", "--json")
	require.Contains(t, lines.out, `"input_tokens":26000,"output_tokens":166,"cost":0.1}`)
	require.Equal(t, 0, lines.code)
}
