package command

import (
	"syscall"

	"github.com/bgagent/bgagent"
)

// Codex is OpenAI's codex, called as codex exec --json. Tested with 0.169.0.
//
// The model is passed with --model, [Agent].Profile with --profile, the system
// text as developer_instructions. It refuses prompts of more than 1,048,576
// characters. Of the rules these are passed on: without
// leave to edit the sandbox is read-only, with it workspace-write, and unsaid
// it is what the user's configuration says; without leave to run commands there
// is no shell tool; without leave for the web there is no web search, and the
// sandbox keeps commands from the network. Codex cannot be kept from reading,
// and knows no patterns. In a sandbox its commands may not be told.
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
			"sandbox_mode", "sandbox_workspace_write", "features.shell_tool", "web_search", "--search",
		},
		Decode:    decodeCodex,
		Environ:   []string{"CODEX_*", "OPENAI_*"},
		Interrupt: syscall.SIGINT,
	}
}

func codexRules(rules []bgagent.Permission) (args, _ []string, err error) {
	set := func(s string) { args = append(args, "-c", s) }
	if v, by := verdictOn(rules, readNames); v == denied || v == partly {
		return nil, nil, cannot("codex", "reading", by)
	}
	switch v, by := verdictOn(rules, editNames); v {
	case partly:
		return nil, nil, cannot("codex", "editing some files only", by)
	case denied:
		set(`sandbox_mode="read-only"`)
	case allowed:
		set(`sandbox_mode="workspace-write"`)
	}
	switch v, by := verdictOn(rules, shellNames); v {
	case partly:
		return nil, nil, cannot("codex", "running some commands only", by)
	case denied:
		set("features.shell_tool=false")
	}
	switch v, by := verdictOn(rules, webNames); v {
	case partly:
		return nil, nil, cannot("codex", "some addresses only", by)
	case denied:
		set(`web_search="disabled"`)
		set("sandbox_workspace_write.network_access=false")
	}
	return args, nil, nil
}
