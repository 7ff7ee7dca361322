package command

import (
	"strings"
	"testing"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

func TestThePresetsAreCalledAsTheyWereTested(t *testing.T) {
	full := turnSpec{prompt: "--do it", model: "m", profile: "p", system: "be \"brief\"", args: []string{"--more"}}
	for _, tc := range []struct {
		name    string
		p       Program
		spec    turnSpec
		args    string // expected arguments, separated by |
		stdin   string
		problem string
	}{
		{"codex", Codex(), full, `exec|--json|--skip-git-repo-check|--model=m|-c|profile="p"|-c|developer_instructions="be \"brief\""|--more|-`, "--do it", ""},
		{"codex again", Codex(), turnSpec{prompt: "x", session: "01a2", model: "m"}, `exec|resume|--json|--skip-git-repo-check|--model=m|01a2|-`, "x", ""},
		{"gemini", Gemini(), turnSpec{prompt: "x", model: "m", system: "be brief"}, `--output-format|stream-json|--model=m`, "be brief\n\nx", ""},
		{"gemini again", Gemini(), turnSpec{prompt: "x", session: "s", system: "be brief"}, `--output-format|stream-json|--resume=s`, "x", ""},
		{"gemini has no profiles", Gemini(), full, "", "", `gemini has no option for the profile, but "p" was requested`},
		{"opencode", Opencode(), full, `run|--format|json|--model=m|--agent=p|--more`, "be \"brief\"\n\n--do it", ""},
		{"opencode again", Opencode(), turnSpec{prompt: "x", session: "ses_1"}, `run|--format|json|--session=ses_1`, "x", ""},
		{"claude", Claude(), full, `-p|--output-format|stream-json|--verbose|--include-partial-messages|--model=m|--agent=p|--append-system-prompt=be "brief"|--more`, "--do it", ""},
		{"claude again", Claude(), turnSpec{prompt: "x", session: "s"}, `-p|--output-format|stream-json|--verbose|--include-partial-messages|--resume=s`, "x", ""},
		{"text", Text("x"), turnSpec{prompt: "p", args: []string{"-q"}}, `-q`, "p", ""},
		{"text has no model", Text("x"), turnSpec{prompt: "p", model: "big"}, "", "", `x has no option for the model, but "big" was requested`},
		{"lines again", Lines("x"), turnSpec{prompt: "p", session: "s"}, `--session=s`, "p", ""},
		{"a session that is a flag", Codex(), turnSpec{prompt: "x", session: "--last"}, "", "", `the session "--last" begins with a dash`},
		{"NUL", Codex(), turnSpec{prompt: "x", model: "a\x00b"}, "", "", "NUL byte"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			call, err := tc.p.invoke(tc.spec)
			if tc.problem != "" {
				require.ErrorContains(t, err, tc.problem)
				return
			}
			require.NoError(t, err)
			require.Equal(t, tc.args, strings.Join(call.args, "|"))
			require.True(t, call.toStdin)
			require.Equal(t, tc.stdin, call.stdin)
		})
	}
}

func TestAPromptIsNeverACommandToTheProgram(t *testing.T) {
	for prompt, led := range map[string]bool{
		"/quit": true, "/src/main.go has a bug": true, " \n\t/help": true, "\u00a0\ufeff/help": true, "/": true,
		"look at /src/main.go": false, "!ls": false, "# a title": false, "": false, "\n": false,
	} {
		want := prompt
		if led {
			want = "The task:\n\n" + prompt
		}
		for _, p := range []Program{Gemini(), Claude()} {
			call, err := p.invoke(turnSpec{prompt: prompt})
			require.NoError(t, err)
			require.Equal(t, want, call.stdin, p.Executable)
		}
	}
	call, err := (&Program{Executable: "x"}).invoke(turnSpec{prompt: "/quit"})
	require.NoError(t, err)
	require.Equal(t, "/quit", call.stdin, "a program without commands gets the prompt as it is")
	gemini := Gemini()
	call, err = gemini.invoke(turnSpec{prompt: "go", system: "/always be brief"})
	require.NoError(t, err)
	require.Equal(t, "The task:\n\n/always be brief\n\ngo", call.stdin)
}

func TestAPromptAsAnArgumentIsNeverAFlag(t *testing.T) {
	for _, tc := range []struct {
		form Form
		want string
	}{
		{Form{Prompt: []string{"{prompt}"}}, " -rf"},
		{Form{Prompt: []string{"-m", "{prompt}"}}, "-m| -rf"},
		{Form{Prompt: []string{"--", "{prompt}"}}, "--|-rf"},
		{Form{Prompt: []string{"--prompt={prompt}"}}, "--prompt=-rf"},
		{Form{Prompt: []string{`{"text":{prompt|json}}`}}, `{"text":"-rf"}`},
	} {
		p := Program{Executable: "x", Start: tc.form}
		call, err := p.invoke(turnSpec{prompt: "-rf"})
		require.NoError(t, err)
		require.False(t, call.toStdin)
		require.Equal(t, tc.want, strings.Join(call.args, "|"))
	}
}

func TestATooLongSystemTextIsNamed(t *testing.T) {
	long := strings.Repeat("s", 200<<10)
	for _, p := range []Program{Codex(), Claude()} {
		_, err := p.invoke(turnSpec{prompt: "x", system: long})
		require.ErrorContains(t, err, "the system text has 204800 bytes, but "+p.Executable+" takes it as an argument", "not the prompt")
	}
	for _, p := range []Program{Gemini(), Opencode()} {
		call, err := p.invoke(turnSpec{prompt: "x", system: long})
		require.NoError(t, err)
		require.Equal(t, long+"\n\nx", call.stdin)
	}
}

func TestValuesAreNotExpandedAgain(t *testing.T) {
	p := Program{Executable: "x", Start: Form{Prompt: []string{"<{prompt}|{model}>"}}, Model: []string{"{model}"}}
	call, err := p.invoke(turnSpec{prompt: "{model}", model: "{prompt}"})
	require.NoError(t, err)
	require.Equal(t, []string{"{prompt}", "<{model}|{prompt}>"}, call.args)
}

func rule(name, pattern string, action bgagent.PermissionAction) bgagent.Permission {
	return bgagent.Permission{Name: name, Pattern: pattern, Action: action}
}

func TestRulesArePassedOnOrRefused(t *testing.T) {
	const yes, no, ask = bgagent.PermissionAllow, bgagent.PermissionDeny, bgagent.PermissionAsk
	all := rule("*", "*", yes)
	none := rule("*", "*", no)
	kept := bgagent.Permission{Name: "delegate_task", Pattern: "*", Action: no, Kept: true}
	for _, tc := range []struct {
		name    string
		p       Program
		rules   []bgagent.Permission
		want    string // expected arguments and variables, separated by |
		problem string
	}{
		{"codex: none", Codex(), nil, "", ""},
		{"codex: that the host keeps", Codex(), []bgagent.Permission{kept}, "", ""},
		{"codex: of other tools", Codex(), []bgagent.Permission{rule("mcp_*", "*", no)}, "", `codex cannot be kept from a tool that it does not know, as the rule "mcp_*" (deny) requires`},
		{"codex: no agents of its own", Codex(), []bgagent.Permission{rule("Task", "*", no)}, `-c|features.multi_agent=false`, ""},
		{"codex: other words", Codex(), []bgagent.Permission{rule("Execute", "*", no), rule("delete", "*", no), rule("fetch", "*", ask)}, `-c|sandbox_mode="read-only"|-c|features.shell_tool=false|-c|web_search="disabled"|-c|sandbox_workspace_write.network_access=false`, ""},
		{"codex: everything", Codex(), []bgagent.Permission{all}, `-c|sandbox_mode="workspace-write"`, ""},
		{"codex: look only", Codex(), []bgagent.Permission{all, rule("edit", "*", no), rule("webfetch", "*", ask)}, `-c|sandbox_mode="read-only"|-c|web_search="disabled"|-c|sandbox_workspace_write.network_access=false`, ""},
		{"codex: no commands", Codex(), []bgagent.Permission{rule("bash", "", no)}, `-c|features.shell_tool=false`, ""},
		{"codex: allowed again", Codex(), []bgagent.Permission{none, all}, `-c|sandbox_mode="workspace-write"`, ""},
		{"codex: nothing at all", Codex(), []bgagent.Permission{none}, "", `codex cannot be kept from reading, as the rule "*" (deny) requires; remove the rule, or use another agent`},
		{"codex: some files", Codex(), []bgagent.Permission{rule("edit", "*.go", no)}, "", `codex cannot be kept from editing some files only, as the rule "edit *.go" (deny) requires`},
		{"codex: denied but for some", Codex(), []bgagent.Permission{rule("edit", "*", no), rule("edit", "docs/*", yes)}, `-c|sandbox_mode="read-only"`, ""},
		{"codex: some commands", Codex(), []bgagent.Permission{rule("bash", "rm *", ask)}, "", `codex cannot be kept from running some commands only, as the rule "bash rm *" (ask) requires`},
		{"codex: some addresses", Codex(), []bgagent.Permission{rule("webfetch", "*evil*", no)}, "", "codex cannot be kept from some addresses only"},
		{"gemini: none", Gemini(), nil, "", ""},
		{"gemini: everything", Gemini(), []bgagent.Permission{all}, "--approval-mode=yolo", ""},
		{"gemini: no commands", Gemini(), []bgagent.Permission{all, rule("bash", "*", no)}, "--approval-mode=auto_edit", ""},
		{"gemini: look only", Gemini(), []bgagent.Permission{rule("edit", "*", no), rule("bash", "*", no)}, "--approval-mode=default", ""},
		{"gemini: commands only", Gemini(), []bgagent.Permission{all, rule("edit", "*", no)}, "", "gemini cannot be kept from editing while it may run commands"},
		{"gemini: no web", Gemini(), []bgagent.Permission{rule("web*", "*", no)}, "", "gemini cannot be kept from the web"},
		{"gemini: some files", Gemini(), []bgagent.Permission{rule("edit", "*.go", no)}, "", "editing some files only"},
		{"gemini: some commands", Gemini(), []bgagent.Permission{rule("bash", "rm", no)}, "", "running some commands only"},
		{"opencode: none", Opencode(), nil, "", ""},
		{"opencode: in order", Opencode(), []bgagent.Permission{rule("edit", "*", no), all, rule("bash", "*", yes), rule("bash", "rm *", ask), rule("bash", "ls", yes), rule("bash", "rm *", no), rule("edit", "", no)},
			`OPENCODE_PERMISSION={"*":{"*":"allow"},"bash":{"*":"allow","ls":"allow","rm *":"deny"},"edit":{"*":"deny"}}`, ""},
		{"opencode: back to a name", Opencode(), []bgagent.Permission{rule("edit", "*", no), rule("b*", "*", no), rule("edit", "x", yes)}, "", `put the rules for "edit" next to each other`},
		{"claude: none", Claude(), nil, "", ""},
		{"claude: look only", Claude(), []bgagent.Permission{rule("edit", "*", no), rule("bash", "git log *", yes), rule("bash", "rm *", no), rule("mcp__db__drop", "*", no)},
			"--allowedTools=Bash(git log *)|--disallowedTools=Edit,Write,NotebookEdit,Bash(rm *),mcp__db__drop", ""},
		{"claude: but for reading", Claude(), []bgagent.Permission{none, rule("read", "*", yes), rule("Skill", "*", yes)},
			"--tools=Read,Glob,Grep,Skill|--allowedTools=Read,Glob,Grep,Skill|--disallowedTools=Edit,Write,NotebookEdit,Bash,WebFetch,WebSearch,Task,Agent,Workflow,TodoWrite,TaskCreate,TaskUpdate,TaskGet,TaskList,AskUserQuestion,ExitPlanMode,EnterPlanMode,mcp__*", ""},
		{"claude: but for a server", Claude(), []bgagent.Permission{all, none, rule("mcp__db__read", "*", yes), rule("todowrite", "*", yes), rule("read", "*", yes)},
			"--tools=Read,Glob,Grep,TodoWrite,TaskCreate,TaskUpdate,TaskGet,TaskList|--allowedTools=Read,Glob,Grep,TodoWrite,TaskCreate,TaskUpdate,TaskGet,TaskList,mcp__db__read|--disallowedTools=Edit,Write,NotebookEdit,Bash,WebFetch,WebSearch,Task,Agent,Workflow,Skill,AskUserQuestion,ExitPlanMode,EnterPlanMode", ""},
		{"claude: no agents by the other name", Claude(), []bgagent.Permission{rule("Agent", "*", no)}, "--disallowedTools=Task,Agent,Workflow", ""},
		{"claude: not that agent", Claude(), []bgagent.Permission{rule("task", "Explore", no)}, "--disallowedTools=Task(Explore),Agent(Explore),Workflow", ""},
		{"claude: that agent", Claude(), []bgagent.Permission{rule("task", "Explore", yes)}, "--allowedTools=Task(Explore),Agent(Explore)", ""},
		{"claude: no todos", Claude(), []bgagent.Permission{rule("TaskCreate", "*", no)}, "--disallowedTools=TodoWrite,TaskCreate,TaskUpdate,TaskGet,TaskList", ""},
		{"claude: no reading", Claude(), []bgagent.Permission{rule("Read", "secret*", no), rule("SlashCommand", "*", no)}, "--disallowedTools=Read(secret*),Glob(secret*),Grep(secret*),SlashCommand|" + noAttachments, ""},
		{"claude: of other tools", Claude(), []bgagent.Permission{rule("frobnicate", "*", no)}, "", "claude cannot be kept from a tool that it does not know"},
		{"claude: thinking", Claude(), []bgagent.Permission{rule("think", "*", no)}, "", "claude cannot be kept from thinking"},
		{"opencode: other words", Opencode(), []bgagent.Permission{rule("Shell", "rm *", no), rule("DELETE", "*", ask), rule("my_tool", "*", no)}, `OPENCODE_PERMISSION={"bash":{"rm *":"deny"},"edit":{"*":"deny"},"my_tool":{"*":"deny"}}`, ""},
		{"text: of other tools", Text("x"), []bgagent.Permission{all, kept}, "", ""},
		{"text: an unknown word", Text("x"), []bgagent.Permission{rule("frobnicate", "*", no)}, "", `x cannot be kept from a tool that it does not know, as the rule "frobnicate" (deny) requires`},
		{"text: no commands", Text("x"), []bgagent.Permission{rule("bash", "*", no)}, "", "x cannot be kept from running commands"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			call, err := tc.p.invoke(turnSpec{prompt: "x", rules: tc.rules})
			if tc.problem != "" {
				require.ErrorContains(t, err, tc.problem)
				return
			}
			require.NoError(t, err)
			bare, err := tc.p.invoke(turnSpec{prompt: "x"})
			require.NoError(t, err)
			n := len(bare.args) - len(tc.p.Start.Prompt)
			got := append(call.args[n:len(call.args)-len(tc.p.Start.Prompt)], call.env...)
			require.Equal(t, tc.want, strings.Join(got, "|"))
		})
	}
	for _, word := range []string{"bash", "Bash", "execute", "Edit", "delete", "fetch", "Task", "READ_FILE", "mcp__db__drop", "*"} {
		p := Text("x")
		_, err := p.invoke(turnSpec{prompt: "x", rules: []bgagent.Permission{rule(word, "*", no)}})
		require.ErrorContains(t, err, "x cannot be kept from", word)
	}
	p := Text("x")
	p.Rules = IgnoreRules
	_, err := p.invoke(turnSpec{prompt: "x", rules: []bgagent.Permission{none}})
	require.NoError(t, err)
}

func TestArgumentsThatUndoRulesAreRefused(t *testing.T) {
	noShell := []bgagent.Permission{{Name: "edit", Pattern: "*", Action: bgagent.PermissionDeny}, {Name: "bash", Pattern: "*", Action: bgagent.PermissionDeny}}
	for _, tc := range []struct {
		p    Program
		args string // arguments, separated by spaces
		set  string
		bad  string // text that the error must contain; empty if no error is expected
	}{
		{Codex(), "-c model_provider=x -c features.other=true --enable other -c sandbox=1", "", ""},
		{Codex(), `-c sandbox_mode="danger-full-access"`, "", "sandbox_mode="},
		{Codex(), `-csandbox_mode=x`, "", "-csandbox_mode=x"},
		{Codex(), `--config=sandbox_workspace_write.network_access=true`, "", "network_access"},
		{Codex(), `-c features={shell_tool=true}`, "", "features="},
		{Codex(), `--enable shell_tool`, "", "shell_tool"},
		{Codex(), `--sandbox danger-full-access`, "", "--sandbox"},
		{Codex(), `-sdanger-full-access`, "", "-sdanger-full-access"},
		{Codex(), `--dangerously-bypass-approvals-and-sandbox`, "", "--dangerously-bypass"},
		{Gemini(), "--approval-mode=yolo", "", "--approval-mode=yolo"},
		{Gemini(), "--include-directories=/x", "", ""},
		{Claude(), "--dangerously-skip-permissions", "", "--dangerously-skip-permissions"},
		{Claude(), "--allowedTools Bash", "", "--allowedTools"},
		{Claude(), "--tools=default", "", "--tools=default"},
		{Opencode(), "--auto", "", "--auto"},
		{Opencode(), "", `OPENCODE_PERMISSION={"*":"allow"}`, "OPENCODE_PERMISSION"},
		{Opencode(), "", `OPENCODE_CONFIG=x`, ""},
	} {
		spec := turnSpec{prompt: "x", args: strings.Fields(tc.args), set: []string{tc.set}, rules: noShell}
		_, err := tc.p.invoke(spec)
		spec.before, spec.args = spec.args, nil
		_, before := tc.p.invoke(spec)
		require.Equal(t, err, before, "arguments in Agent.Command count, too")
		if tc.bad == "" {
			require.NoError(t, err)
			continue
		}
		require.ErrorContains(t, err, tc.bad)
		require.ErrorContains(t, err, "rules of the task; remove it there, and write it as rules")
		spec.rules = nil
		_, err = tc.p.invoke(spec)
		require.NoError(t, err, "without rules there is nothing to undo")
	}
	p := Program{Executable: "x", Rules: func([]bgagent.Permission) (args, env []string, err error) { return []string{"--only-look"}, nil, nil }}
	call, err := p.invoke(turnSpec{args: []string{"--do=all"}})
	require.NoError(t, err)
	require.Equal(t, []string{"--do=all", "--only-look"}, call.args, "the arguments from the rules come last")
}

func TestAWrongConfigurationIsNamed(t *testing.T) {
	with := func(change func(*Agent)) Config {
		a := Agent{Program: Codex()}
		change(&a)
		return Config{Agents: map[string]Agent{"a": a}}
	}
	for want, cfg := range map[string]Config{
		"command.Config.Agents: is empty":                   {},
		"has an agent without a name":                       {Agents: map[string]Agent{"": {Program: Codex()}}},
		"must not be negative":                              {Agents: map[string]Agent{"a": {Program: Codex()}}, Grace: -1},
		`Agents["a"]: Program.Executable is empty`:          with(func(a *Agent) { a.Program = Program{} }),
		`Env has "=x"; write NAME=value`:                    with(func(a *Agent) { a.Env = []string{"=x"} }),
		"Env sets BGAGENT_TURN, which the client sets":      with(func(a *Agent) { a.Env = []string{"BGAGENT_TURN=1"} }),
		`Agents["a"].Profile: is "p"; gemini has no`:        with(func(a *Agent) { a.Program, a.Profile = Gemini(), "p" }),
		"Env sets BGAGENT_INSTANCE, which the client sets":  with(func(a *Agent) { a.Env = []string{"BGAGENT_INSTANCE=1"} }),
		"command.Config.Instance: is \"a/b\"; only letters": {Agents: map[string]Agent{"a": {Program: Codex()}}, Instance: "a/b"},
		"Program.Resume has no {session}":                   with(func(a *Agent) { a.Program.Resume.Prompt = nil }),
		"Program.Start.Args has {prompt}; move it to":       with(func(a *Agent) { a.Program.Start.Args = []string{"{prompt}"} }),
		"Program.Start.Stdin has {prompt}; remove it":       with(func(a *Agent) { a.Program.Start.Stdin = []string{"{prompt|json}"} }),
	} {
		_, err := New(cfg)
		require.ErrorContains(t, err, want)
		var input *bgagent.InputError
		require.ErrorAs(t, err, &input)
	}
}

func TestOnlyNamedVariablesArePassedOn(t *testing.T) {
	host := []string{"A=1", "AB=2", "B=3", "C", "BGAGENT_TURN=x", "BGAGENT_DEPTH=9"}
	got := environ(host, []string{"A*", "B", "BGAGENT_*"}, []string{"AB=4", "D=5"}, []string{"D=6"})
	require.Equal(t, []string{"A=1", "B=3", "AB=4", "D=6"}, got)
}
