package command

import (
	"slices"
	"strings"

	"github.com/bgagent/bgagent"
)

// Claude is Anthropic's Claude Code, called as claude -p --output-format
// stream-json --verbose. It was made from the program's documentation and has
// not been run: report what you see.
//
// The model is passed with --model, [Agent].Profile with --agent, the system
// text with --append-system-prompt. Rules become --allowedTools and
// --disallowedTools, with their patterns in brackets: what is allowed in part
// after it was denied stays denied, because there a denial always wins. A rule
// whose name begins with a capital letter or with mcp__ is for the tool of that
// name.
//
// A prompt that begins with a slash may be a command to it, so the line "The
// task:" is put before one. A session that is continued may be given a new id. Messages and tool calls of
// its own subagents count as activity only.
func Claude() Program {
	args := []string{"-p", "--output-format", "stream-json", "--verbose"}
	return Program{
		Executable: "claude",
		Start:      Form{Args: args},
		Resume:     Form{Args: append(args[:4:4], "--resume={session}")},
		Model:      []string{"--model={model}"},
		Profile:    []string{"--agent={profile}"},
		System:     []string{"--append-system-prompt={system}"},
		Rules:      claudeRules,
		Overrides: []string{
			"--allowedTools", "--allowed-tools", "--disallowedTools", "--disallowed-tools", "--permission-mode",
			"--dangerously-skip-permissions", "--allow-dangerously-skip-permissions",
		},
		Decode:     decodeClaude,
		Environ:    []string{"ANTHROPIC_*", "CLAUDE_CONFIG_DIR", "CLAUDE_CODE_OAUTH_TOKEN", "CLAUDE_CODE_USE_*", "AWS_*", "CLOUD_ML_REGION"},
		Commands:   "/",
		NewSession: true,
	}
}

// claudeTools are the tools of Claude Code behind the names in rules.
var claudeTools = []struct {
	names []string
	tools []string
}{
	{[]string{"read"}, []string{"Read"}},
	{[]string{"glob", "list"}, []string{"Glob"}},
	{[]string{"grep"}, []string{"Grep"}},
	{editNames, []string{"Edit", "Write", "NotebookEdit"}},
	{shellNames, []string{"Bash"}},
	{[]string{"webfetch"}, []string{"WebFetch"}},
	{[]string{"websearch"}, []string{"WebSearch"}},
	{[]string{"task"}, []string{"Task"}},
	{[]string{"todowrite"}, []string{"TodoWrite"}},
}

func claudeRules(rules []bgagent.Permission) (args, _ []string, err error) {
	kinds := slices.Clone(claudeTools)
	for _, r := range rules {
		own := strings.HasPrefix(r.Name, "mcp__") || r.Name != "" && r.Name[0] >= 'A' && r.Name[0] <= 'Z'
		if own && !slices.ContainsFunc(kinds, func(k struct{ names, tools []string }) bool { return k.names[0] == r.Name }) {
			kinds = append(kinds, struct{ names, tools []string }{[]string{r.Name}, []string{r.Name}})
		}
	}
	var yes, no []string
	for _, kind := range kinds {
		allow, deny := claudePatterns(rules, kind.names)
		for _, tool := range kind.tools {
			yes = appendTool(yes, tool, allow)
			no = appendTool(no, tool, deny)
		}
	}
	if len(yes) > 0 {
		args = append(args, "--allowedTools="+strings.Join(yes, ","))
	}
	if len(no) > 0 {
		args = append(args, "--disallowedTools="+strings.Join(no, ","))
	}
	return args, nil, nil
}

// claudePatterns returns on what tools of these names are allowed and denied.
func claudePatterns(rules []bgagent.Permission, names []string) (allow, deny []string) {
	for _, r := range rules {
		if !matchesAny(r.Name, names) {
			continue
		}
		switch all, yes := r.Pattern == "*" || r.Pattern == "", r.Action == bgagent.PermissionAllow; {
		case all && yes:
			allow, deny = []string{"*"}, nil
		case all:
			allow, deny = nil, []string{"*"}
		case yes:
			allow = append(allow, r.Pattern)
		default:
			deny = append(deny, r.Pattern)
		}
	}
	return allow, deny
}

func appendTool(list []string, tool string, patterns []string) []string {
	if slices.Contains(patterns, "*") {
		return append(list, tool)
	}
	for _, p := range patterns {
		list = append(list, tool+"("+p+")")
	}
	return list
}
