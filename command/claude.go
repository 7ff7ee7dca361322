package command

import (
	"slices"
	"strings"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/permission"
)

// Claude is Anthropic's Claude Code, called as claude -p --output-format stream-json
// --verbose --include-partial-messages. With partial messages, the client reports text
// while Claude Code writes it.
//
// The model is passed with --model, [Agent].Profile with --agent, and the system text with
// --append-system-prompt. Rules become --allowedTools and --disallowedTools, with their patterns in
// brackets. In these lists a denial always wins, so if one rule denies a whole tool and a later
// rule allows a pattern, the pattern stays denied. If everything is denied, --tools offers only the
// tools that later rules allow. If the name of a rule begins with a capital letter or with mcp__,
// the rule is for the tool with that name. If reading is denied, Claude Code does not add files
// that the prompt names with @.
//
// Claude Code can treat a prompt that begins with a slash as a command. The client puts the line "The
// task:" in front of such a prompt. A continued session can get a new id. Subagents' messages and
// tool calls are reported only as activity. The turn continues while commands or agents that Claude
// Code has started are running in the background. The last result is the answer. If the model server
// rejects the key, the turn ends immediately.
//
// If the provider refuses a request, Claude Code retries it up to ten times, for about three
// minutes. To leave the retries to the manager, which gives the slot to another task in the
// meantime, set [Agent].LeaveRetries.
//
// After a restart, the client reads the session from its file in Claude Code's folder. Claude Code
// sometimes stores a prompt late. If it was killed before it stored the first message of a session,
// the prompt is sent to a new Claude Code session.
func Claude() Program {
	args := []string{"-p", "--output-format", "stream-json", "--verbose", "--include-partial-messages"}
	return Program{
		Executable: "claude",
		Start:      Form{Args: args},
		Resume:     Form{Args: append(args[:5:5], "--resume={session}")},
		Model:      []string{"--model={model}"},
		Profile:    []string{"--agent={profile}"},
		System:     []string{"--append-system-prompt={system}"},
		Rules:      claudeRules,
		Overrides: []string{
			"--allowedTools", "--allowed-tools", "--disallowedTools", "--disallowed-tools", "--permission-mode",
			"--dangerously-skip-permissions", "--allow-dangerously-skip-permissions", "--tools",
		},
		Decode:     decodeClaude,
		Environ:    []string{"ANTHROPIC_*", "CLAUDE_CONFIG_DIR", "CLAUDE_CODE_OAUTH_TOKEN", "CLAUDE_CODE_USE_*", "AWS_*", "CLOUD_ML_REGION"},
		NoRetries:  []string{"CLAUDE_CODE_MAX_RETRIES=0"},
		Commands:   "/",
		NewSession: true,
		Choose:     []string{"--session-id={session}"},
		Look:       here("claude", lookClaude),
	}
}

// claudeKeeps declares the rules that Claude Code can enforce. claudeWords lists the names of
// Claude Code's tools for each kind of access.
var (
	claudeKeeps = permission.Client{Name: "claude", Keeps: map[permission.Kind]permission.Means{
		permission.Read: permission.Patterns, permission.Edit: permission.Patterns, permission.Bash: permission.Patterns, permission.Web: permission.Patterns,
		permission.Task: permission.Patterns, permission.Skill: permission.Patterns, permission.Todo: permission.Patterns,
		permission.Question: permission.Patterns, permission.Mode: permission.Patterns,
	}}
	claudeWords = map[permission.Kind][]string{
		permission.Read: {"Read"}, permission.Glob: {"Glob"}, permission.Grep: {"Grep"}, permission.List: {"Glob"},
		permission.Edit: {"Edit", "Write", "NotebookEdit"}, permission.Bash: {"Bash"},
		permission.WebFetch: {"WebFetch"}, permission.WebSearch: {"WebSearch"}, permission.Skill: {"Skill"},
		permission.Task: {"Task", "Agent", "Workflow"}, // Task is the older name of Agent
		permission.Todo: {"TodoWrite", "TaskCreate", "TaskUpdate", "TaskGet", "TaskList"}, permission.Question: {"AskUserQuestion"}, permission.Mode: {"ExitPlanMode", "EnterPlanMode"},
	}
	// claudeWhole lists tools that can be allowed or denied only as a whole, because a script in the
	// call decides what the tool does.
	claudeWhole = []string{"Workflow"}
)

// isClaudes reports whether a rule refers to a tool by a name that only Claude Code knows.
func isClaudes(r bgagent.Permission) bool {
	return len(permission.Named(r)) == 0 && (strings.HasPrefix(r.Name, "mcp__") || r.Name != "" && r.Name[0] >= 'A' && r.Name[0] <= 'Z')
}

// noAttachments keeps Claude Code from adding files that a prompt names with @. Otherwise
// Claude Code would add the files before it checks any rule.
const noAttachments = "CLAUDE_CODE_DISABLE_ATTACHMENTS=1"

func claudeRules(rules []bgagent.Permission) (args, env []string, err error) {
	if err := claudeKeeps.Check(slices.DeleteFunc(slices.Clone(rules), isClaudes)); err != nil {
		return nil, nil, err
	}
	var tools []string
	for _, kind := range permission.Kinds() {
		for _, tool := range claudeWords[kind] {
			if !slices.Contains(tools, tool) {
				tools = append(tools, tool)
			}
		}
	}
	own := permission.Translate(rules, claudeWords)
	for _, r := range own {
		if isClaudes(r) && !slices.Contains(tools, r.Name) {
			tools = append(tools, r.Name)
		}
	}
	var usable, yes, no []string
	for _, tool := range tools {
		allow, deny := claudePatterns(own, tool)
		if slices.Contains(claudeWhole, tool) {
			allow, deny = whole(allow, deny)
		}
		if len(allow) > 0 {
			usable = append(usable, tool)
		}
		yes, no = appendTool(yes, tool, allow), appendTool(no, tool, deny)
		if tool == "Read" && len(deny) > 0 {
			env = append(env, noAttachments)
		}
	}
	if othersDenied(own) {
		// --tools limits only Claude Code's own tools. If no rule allows a tool of an MCP server, the
		// entry mcp__* denies the tools of all MCP servers.
		isServers := func(tool string) bool { return strings.HasPrefix(tool, "mcp__") }
		if !slices.ContainsFunc(usable, isServers) {
			no = append(no, "mcp__*")
		}
		args = append(args, "--tools="+strings.Join(slices.DeleteFunc(usable, isServers), ","))
	}
	if len(yes) > 0 {
		args = append(args, "--allowedTools="+strings.Join(yes, ","))
	}
	if len(no) > 0 {
		args = append(args, "--disallowedTools="+strings.Join(no, ","))
	}
	return args, env, nil
}

// claudePatterns returns two lists of patterns: those that allow the tool and those that deny it.
func claudePatterns(rules []bgagent.Permission, tool string) (allow, deny []string) {
	for _, r := range rules {
		if r.Kept || !permission.Wildcard(r.Name, tool) {
			continue
		}
		switch all, yes := permission.ForAll(r), permission.Allows(r); {
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

// claudeAllows reports whether the rules allow a tool of an MCP server, whatever its input is. In
// --allowedTools, Claude Code ignores a pattern that covers the tools of all servers. It therefore
// asks for permission to use an MCP server's tool even if the rules allow all tools.
func claudeAllows(rules []bgagent.Permission, tool string) (allowed bool) {
	name := strings.SplitN(tool, "__", 3)
	if len(name) < 3 || name[0] != "mcp" {
		return false
	}
	access := permission.Of(tool)
	access.Names = append(access.Names, "mcp__"+name[1]) // the name of the server stands for all its tools
	for _, r := range rules {
		if !r.Kept && access.Named(r) {
			allowed = permission.Allows(r) && (allowed || permission.ForAll(r))
		}
	}
	return allowed
}

// The function "whole" returns the permissions for a tool that can be allowed or denied only as a
// whole. The tool is denied if any of its patterns is denied.
func whole(allow, deny []string) (yes, no []string) {
	all := []string{"*"}
	switch {
	case len(deny) > 0:
		return nil, all
	case slices.Contains(allow, "*"):
		return all, nil
	}
	return nil, nil
}

// othersDenied reports whether the rules deny all tools that they do not name.
func othersDenied(rules []bgagent.Permission) (denied bool) {
	for _, r := range rules {
		if !r.Kept && r.Name != "" && strings.Trim(r.Name, "*") == "" && permission.ForAll(r) {
			denied = !permission.Allows(r)
		}
	}
	return denied
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
