package command

import (
	"syscall"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/permission"
)

// Codex is OpenAI's codex, called as codex exec --json. Tested with 0.171.0.
//
// The model is passed with --model, [Agent].Profile with --profile, the system
// text as developer_instructions. It refuses prompts of more than 1,048,576
// characters. Of the rules these are passed on: without
// leave to edit the sandbox is read-only, with it workspace-write, and unsaid
// it is what the user's configuration says; without leave to run commands there
// is no shell tool; without leave for the web there is no web search, and the
// sandbox keeps commands from the network; without leave for agents of its own it
// starts none. Codex cannot be kept from anything else, and knows no patterns. In a sandbox its commands may not be told.
//
// It keeps its threads under CODEX_HOME and continues them from any directory.
// It tells the tokens of a whole thread, from which those of the turns before
// are taken. It stops its tools when it is interrupted, which is why it is sent
// SIGINT and not SIGTERM.
func Codex() Program {
	const json, anywhere = "--json", "--skip-git-repo-check"
	return Program{
		Executable: "codex",
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
	}
}

// codexKeeps is what codex can be held to.
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
