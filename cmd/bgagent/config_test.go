package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestBrokenConfigurationsNameFileLineKeyAndRemedy(t *testing.T) {
	for text, want := range map[string]string{
		"{\n  \"agents\": {\n":                                                ":2:14: ends too early; a bracket, a quotation mark or a comment is not closed",
		"{\n\"agents\": {\"a\": {\"kind\": codex}}}":                          ":2:",
		"{\n\n\"agent\": {}}":                                                 `:3:1: agent: is not a known key; did you mean agents?`,
		"{\n\"maxDepth\": 2}":                                                 `:2:1: maxDepth: is not a known key; it counts only inside of background_task`,
		"{\"agents\": []}":                                                    `:1:12: agents: is a list; it must be an object like { "explore":`,
		"{\"agents\": {\n\"a\": \"codex\"}}":                                  `:2:6: agents.a: is the string "codex"; it must be an object like { "kind": "command", "preset": "codex" }, or null`,
		"{\"agents\": {\n\"a\": {}}}":                                         `:2:1: agents.a: has no kind; write "kind": "inproc", "command", "acp" or "opencode"`,
		"{\"agents\": {\"a\": {\n\"kind\": \"mcp\"}}}":                        `:2:9: agents.a.kind: is the string "mcp"; it must be "inproc", "command", "acp" or "opencode"`,
		"{\"agents\": {\"a\": {\"kind\": \"command\"}}}":                      `:1:13: agents.a: is of the kind command and has no preset; write "preset": "codex", "claude"`,
		"{\"agents\": {\"a\": {\"kind\": \"acp\"}}}":                          `write, for example, "command": ["opencode", "acp"]`,
		"{\"agents\": {\"a\": {\"kind\": \"opencode\"}}}":                     `write, for example, "url": "http://127.0.0.1:4096"`,
		"{\"agents\": {\"a\": {\"kind\": \"opencode\",\n\"url\": \"4096\"}}}": `:2:1: agents.a.url: is refused: `,
		"{\"agents\": {\"a\": {\"kind\": \"inproc\"}}}":                       `agents.a.agent: is "a", but the demo agents are count, fail, largest, search, wait; name one of them with "agent"`,
		"{\"agents\": {\"a\": {\"kind\": \"acp\", \"command\": [\"x\"],\n\"preset\": \"codex\"}}}":                                            `:2:1: agents.a.preset: is not for agents of the kind acp, which have kind, description,`,
		"{\"agents\": {\"a\": {\"kind\": \"command\",\n\"preset\": \"generic\"}}}":                                                            `has the preset generic and no command; write, for example,`,
		"{\"agents\": {\"a\": {\"kind\": \"command\", \"preset\": \"generic\", \"command\": [\"x\"],\n\"model\": \"m\"}}}":                    `:2:1: agents.a.model: cannot be passed on by the preset generic; remove it, or name it in args`,
		"{\"agents\": {\"a\": {\"kind\": \"command\", \"preset\": \"codex\",\n\"directry\": \"x\"}}}":                                         `:2:1: agents.a.directry: is not a known key; did you mean directory?`,
		"{\"agents\": {\"a\": {\"kind\": \"command\", \"preset\": \"codex\",\n\"directory\": \"gone\"}}}":                                     `:2:1: agents.a.directory: is PROJECT/gone, which does not exist; make it, or name another`,
		"{\"agents\": {\"a\": {\"kind\": \"command\", \"preset\": \"codex\",\n\"args\": \"-v\"}}}":                                            `:2:9: agents.a.args: is the string "-v"; it must be a list of strings`,
		"{\"agents\": {\"a\": {\"kind\": \"command\", \"preset\": \"codex\",\n\"args\": [1]}}}":                                               `:2:10: agents.a.args[0]: is the number 1; it must be a string`,
		"{\"agents\": {\"count\": {\"kind\": \"inproc\",\n\"permissions\": {\"edit\": \"never\"}}}}":                                          `:2:25: agents.count.permissions.edit: is the string "never"; it must be "allow", "deny" or "ask"`,
		"{\"agents\": {\"count\": {\"kind\": \"inproc\",\n\"kind\": \"acp\"}}}":                                                               `:2:1: agents.count.kind: appears twice, first in line 1; keep one of the two`,
		"{\"agents\": {\"count\": {\"kind\": \"inproc\", \"permissions\": {\"bash\": \"deny\",\n\"edit\": \"deny\",\n\"bash\": \"allow\"}}}}": `:3:1: agents.count.permissions.bash: appears twice, first in line 1; merge the two`,
		"{\"agents\": {\"count\": {\"kind\": \"inproc\", \"permissions\": {\"bash\": {\"git *\": \"deny\",\n\"git *\": \"allow\"}}}}}":        `:2:1: agents.count.permissions.bash["git *"]: appears twice, first in line 1; merge the two`,
		"{\"agents\": {\"a b\": {}}}": `agents["a b"]: is a name with blanks or control characters; leave them out`,
		"{\"agents\": {\"a\": {\"kind\": \"opencode\", \"url\": \"http://127.0.0.1:1\",\n\"passwordEnv\": \"NO_SUCH\"}}}": `:2:1: agents.a.passwordEnv: names the environment variable NO_SUCH, which is not set; set it to the server's password`,
		"{\"background_task\": {\n\"maxDepht\": 2}}":                                   `:2:1: background_task.maxDepht: is not a known key; did you mean maxDepth?`,
		"{\"background_task\": {\n\"taskTtlMs\": -5}}":                                 `:2:14: background_task.taskTtlMs: is negative (-5); it must be a whole number of milliseconds, or 0 for never`,
		"{\"background_task\": {\"staleTimeoutMs\": 1000,\n\"pollIntervalMs\": 2000}}": `.bgagent.jsonc:1:22) is 1s; the first must not be longer than the second`,
	} {
		p := newPlace(t)
		file := p.write(".bgagent.jsonc", text)
		for _, args := range [][]string{{"config"}, {"run", "-o", "out"}, {"agents"}} {
			got := p.run(args...)
			require.Equal(t, 2, got.code, "%s\n%s", text, got.stderr)
			require.Contains(t, got.stderr, "bgagent: "+file+":", text)
			require.Contains(t, got.stderr, strings.ReplaceAll(want, "PROJECT", p.project), text)
			require.Empty(t, got.out, text)
			require.NoDirExists(t, filepath.Join(p.project, "out"), "nothing is half started")
		}
	}
}

func TestErrorsOfAllFilesAreReportedTogether(t *testing.T) {
	p := newPlace(t)
	p.user(`{"agents": {"a": {"kind": "x"}}}`)
	p.write(".bgagent.jsonc", "{\"agents\": {\"b\": 1,\n\"c\": 2}}")
	got := p.run("config")
	require.Equal(t, 2, got.code)
	require.Equal(t, 3, strings.Count(got.stderr, "bgagent: /"), got.stderr)
}

func TestTheProjectWinsKeyByKey(t *testing.T) {
	p := newPlace(t)
	p.user(`{
		"background_task": { "defaultConcurrency": 7, "providerConcurrency": { "anthropic": 3, "openai": 2 } },
		"agents": {
			"a": { "kind": "command", "preset": "codex", "model": "m1", "permissions": { "edit": "deny", "bash": { "*": "deny", "git *": "allow" } } },
			"b": { "kind": "command", "preset": "codex", "profile": "fast" },
			"gone": { "kind": "command", "preset": "codex" },
		},
	}`)
	file := p.write(".bgagent.jsonc", `{
		"background_task": { "providerConcurrency": { "openai": 9 } },
		"agents": {
			"a": { "model": "m2", "directory": ".", "env": ["KEY=secret", "NAME*"] },
			"b": { "kind": "acp", "command": ["opencode", "acp"] },
			"gone": null,
		},
	}`)
	p.write("deep/down/file", "")
	p.project = filepath.Join(p.project, "deep", "down")
	got := p.run("config")
	require.Equal(t, 0, got.code, got.stderr)
	require.Empty(t, got.stderr)
	for _, want := range []string{
		`background_task.defaultConcurrency +7 +.*/config/bgagent/bgagent\.jsonc:2:`,
		`background_task.providerConcurrency\["anthropic"\] +3 +.*/config/bgagent/bgagent\.jsonc:2:`,
		`background_task.providerConcurrency\["openai"\] +9 +` + file + `:2:`,
		`background_task.maxDepth +1 +default`,
		`agents.a.preset +"codex" +.*/config/bgagent/bgagent\.jsonc:4:`,
		`agents.a.model +"m2" +` + file + `:4:`,
		`agents.a.directory +"` + filepath.Dir(file) + `" +` + file + `:4:`,
		`agents.a.permissions +\{"edit": "deny", "bash": \{"\*": "deny", "git \*": "allow"\}\} +.*/config/`,
		`agents.a.env +\["KEY=…","NAME\*"\] +` + file + `:4:`,
		`agents.b.kind +"acp" +` + file + `:5:`,
		`agents.b.command +\["opencode","acp"\] +` + file + `:5:`,
	} {
		require.Regexp(t, want, got.out)
	}
	require.NotContains(t, got.out, "profile", "another kind has other keys")
	require.NotContains(t, got.out, "gone")
}

func TestTheSchemaIsPrinted(t *testing.T) {
	got := newPlace(t).run("config", "--schema")
	require.Equal(t, 0, got.code)
	require.Contains(t, got.out, `"$schema": "https://json-schema.org/draft/2020-12/schema"`)
}

func TestIgnoredKeysOfTheOriginalAreReported(t *testing.T) {
	p := newPlace(t)
	file := p.write(".bgagent.jsonc", `{"background_task": {"quotaRouting": {}}}`)
	got := p.run("config")
	require.Equal(t, 0, got.code)
	require.Equal(t, "bgagent: "+file+":1:22: background_task.quotaRouting is ignored: the program chooses models with Config.Model\n", got.stderr)
}

func TestBrokenListsNameFileLineKeyAndRemedy(t *testing.T) {
	for text, want := range map[string]string{
		"":                             "tasks.jsonc:1:1: is empty",
		"[":                            "tasks.jsonc:1:2: ends too early",
		"[\n{\"agent\": demo}]":        "tasks.jsonc:2:11: is not JSON with comments",
		"[]":                           `tasks.jsonc:1:1: is an empty list; name at least one task, like [ {`,
		"{\"tasks\": []}":              `tasks.jsonc:1:11: tasks: is an empty list`,
		"{}":                           `tasks.jsonc:1:1: has no tasks; write { "tasks": [ {`,
		"{\"task\": []}":               `tasks.jsonc:1:2: task: is not a known key; the list belongs under "tasks"`,
		"3":                            `tasks.jsonc:1:1: is the number 3; it must be a list of tasks`,
		"[\n\"do it\"]":                `tasks.jsonc:2:1: [0]: is the string "do it"; it must be a task like`,
		"[{\"agent\": \"demo-wait\"}]": `tasks.jsonc:1:2: [0]: has no prompt; say what the agent should do`,
		"[{\"prompt\": \"x\"}]":        `[0]: has no agent; name one of demo-count, demo-fail,`,
		"[{\"agent\": \"demo-wait\",\n\"prompt\": \" \"}]":                         `tasks.jsonc:2:11: [0].prompt: is empty; say what the agent should do`,
		"[{\"prompt\": \"x\",\n\"agent\": \"none\"}]":                              `tasks.jsonc:2:10: [0].agent: names the agent "none", which does not exist; the agents are demo-count,`,
		"[{\"prompt\": 5, \"agent\": \"demo-wait\"}]":                              `[0].prompt: is the number 5; it must be a string`,
		"[{\"prompt\": \"x\", \"agent\": \"demo-wait\", \"dir\": \".\"}]":          `[0].dir: is not a known key; the keys of a task are agent, prompt, promptFile, description, model, directory`,
		"[{\"prompt\": \"x\", \"agent\": \"demo-wait\", \"directory\": \"gone\"}]": `[0].directory: is PROJECT/gone, which is not a directory; make it, or name another`,
		"[{\"prompt\": \"x\", \"agent\": \"demo-wait\",\n\"prompt\": \"y\"}]":      `tasks.jsonc:2:1: [0].prompt: appears twice, first in line 1; keep one of the two`,
		"[{\"agent\": \"demo-wait\", \"prompt\": \"\xff\"}]":                       `is not valid UTF-8 from here on; save the file as UTF-8`,
		"[" + strings.Repeat("[", 200) + strings.Repeat("]", 200) + "]":            `is nested more than 200 levels deep`,
	} {
		p := newPlace(t)
		p.write("tasks.jsonc", text)
		got := p.run("run", "tasks.jsonc", "-o", "out")
		require.Equal(t, 2, got.code, "%s\n%s", text, got.stderr)
		require.Contains(t, got.stderr, strings.ReplaceAll(want, "PROJECT", p.project), text)
		require.Empty(t, got.out, text)
		require.NoDirExists(t, filepath.Join(p.project, "out"), text)
	}
}

func TestFilesAndListsMayBeginWithAByteOrderMark(t *testing.T) {
	p := newPlace(t)
	p.user("\ufeff" + `{"background_task": {"maxDepth": 3}}`)
	p.write(".bgagent.jsonc", "\ufeff"+`{"agents": {"wait": {"kind": "inproc"}}}`)
	p.write("tasks.jsonc", "\ufeff"+`[{"agent": "wait", "prompt": "1 ms"}]`)
	got := p.run("run", "tasks.jsonc", "-o", "out")
	require.Equal(t, 0, got.code, got.stderr)
	require.Equal(t, 0, p.feed("\ufeff"+`[{"agent": "wait", "prompt": "1 ms"}]`, "run", "-", "-o", "out2").code)
	require.Regexp(t, `background_task\.maxDepth +3 `, p.run("config").out)

	p.write("tasks.jsonc", "\ufeff[5]")
	require.Contains(t, p.run("run", "tasks.jsonc").stderr, "tasks.jsonc:1:2: [0]: is the number 5", "the mark is not a column")
}

func TestAListThatIsLongerThanTheFileAllowsIsRefused(t *testing.T) {
	p := newPlace(t)
	file := p.write(".bgagent.jsonc", "{\"background_task\": {\n\"maxTasksPerRoot\": 3}}")
	got := p.run("run")
	require.Equal(t, 2, got.code)
	require.Contains(t, got.stderr, file+":2:1: background_task.maxTasksPerRoot: is 3, but the list has 8 tasks; raise it, or divide the list")
}

func TestSomebodyElsesFileInAFolderAboveIsNotObeyed(t *testing.T) {
	p := newPlace(t)
	program := p.write("p.sh", "#!/bin/sh\necho ran >&2; touch ran; echo 1.0\n")
	file := p.write(".bgagent.jsonc", `{"agents": {"codex": {"kind": "command", "preset": "codex", "command": ["`+program+`"], "env": ["*"]}}}`)
	require.NoError(t, os.Chmod(p.project, 0o777|os.ModeSticky))
	p.write("mine/file", "")
	p.project = filepath.Join(p.project, "mine")
	for _, args := range [][]string{{"agents"}, {"config"}, {"run"}, {"mcp"}, {"serve"}} {
		got := p.run(args...)
		require.Equal(t, 2, got.code, args)
		require.Contains(t, got.stderr, file+": is in the folder "+filepath.Dir(file)+", which other users can write to; it names programs that are run, so it is not used")
		require.NotContains(t, got.stderr, "ran\n", args)
	}
	got := p.run("-c", file, "agents")
	require.Equal(t, 0, got.code, "a named file is trusted")
	require.Contains(t, got.stderr, "bgagent: configuration: "+file+"\n")

	require.NoError(t, os.Chmod(filepath.Dir(file), 0o755))
	require.Contains(t, p.run("agents").stderr, "bgagent: configuration: "+file+"\n", "a file in a folder above is named")
}
