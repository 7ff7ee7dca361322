package command

import (
	"syscall"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/permission"
)

// Codex is OpenAI's codex, called as codex exec --json. Tested with 0.171.0.
//
// The model is passed with --model, [Agent].Profile with -c profile, and the system text
// as developer_instructions. Codex refuses prompts of more than 1,048,576 characters.
//
// Rules for four kinds of access are passed on. If "edit" is denied, the sandbox is read-only. If
// "edit" is allowed, the sandbox is workspace-write. Without a rule for "edit", the user's
// configuration decides. If "bash" is denied, codex has no shell tool. If "web" is denied, codex
// has no web search, and its sandbox blocks the network for commands. If "task" is denied, codex
// does not start agents. Codex can enforce no other rules and no patterns. It does not always
// report the commands that it runs in a sandbox.
//
// Codex keeps its threads under CODEX_HOME and continues them from any directory. It
// reports the tokens of a whole thread; the client subtracts the tokens of earlier turns.
// The client stops codex with SIGINT, because codex does not stop its tools on SIGTERM.
//
// For a few seconds, codex retries some of the requests that the provider refused. If the user's
// own configuration defines the provider, the keys request_max_retries and stream_max_retries in the
// provider's entry under model_providers limit these retries. If [Agent].Args sets both keys to 0,
// codex leaves the retries to the manager.
//
// After a restart, the client reads the thread from its rollout file under CODEX_HOME.
func Codex() Program {
	const json, anywhere = "--json", "--skip-git-repo-check"
	return Program{
		Executable: "codex",
		NoCost:     true,
		Start:      Form{Args: []string{"exec", json, anywhere}, Prompt: []string{"-"}},
		Resume:     Form{Args: []string{"exec", "resume", json, anywhere}, Prompt: []string{"{session}", "-"}},
		Model:      []string{"--model={model}"},
		Profile:    []string{"-c", "profile={profile|json}"},
		System:     []string{"-c", "developer_instructions={system|json}"},
		Rules:      codexRules,
		Overrides: []string{
			"-s", "--sandbox", "--full-auto", "--yolo", "--approve-for-me", "--dangerously-bypass-approvals-and-sandbox", "--add-dir",
			"sandbox_mode", "sandbox_workspace_write", "features.shell_tool", "features.multi_agent", "web_search", "--search",
		},
		Decode:    decodeCodex,
		Environ:   []string{"CODEX_*", "OPENAI_*"},
		Interrupt: syscall.SIGINT,
		Look:      here("codex", lookCodex),
	}
}

// codexKeeps declares the rules that codex can enforce.
var codexKeeps = permission.Client{Name: "codex", Keeps: map[permission.Kind]permission.Means{
	permission.Edit: permission.Switch, permission.Bash: permission.Switch, permission.Web: permission.Switch, permission.Task: permission.Switch,
}}

func codexRules(rules []bgagent.Permission) (args, _ []string, err error) {
	if err := codexKeeps.Check(rules); err != nil {
		return nil, nil, err
	}
	set := func(s string) { args = append(args, "-c", s) }
	switch v, _ := permission.On(rules, permission.Edit); v {
	case permission.Denied:
		set(`sandbox_mode="read-only"`)
	case permission.Allowed:
		set(`sandbox_mode="workspace-write"`)
	}
	if v, _ := permission.On(rules, permission.Bash); v == permission.Denied {
		set("features.shell_tool=false")
	}
	if v, _ := permission.On(rules, permission.Web); v == permission.Denied {
		set(`web_search="disabled"`)
		set("sandbox_workspace_write.network_access=false")
	}
	if v, _ := permission.On(rules, permission.Task); v == permission.Denied {
		set("features.multi_agent=false")
	}
	return args, nil, nil
}
