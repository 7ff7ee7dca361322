package command

import (
	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/permission"
)

// Gemini is Google's gemini-cli, called as gemini --output-format stream-json.
// Tested with 0.61.0.
//
// The model is passed with --model. Gemini supports neither profiles nor a system text. The client
// puts the system text in front of the first prompt.
//
// Rules for "edit" and "bash" become gemini's approval mode. The mode is "yolo" if both are
// allowed, "auto_edit" if only "edit" is allowed, and "default" if one of them is denied and "edit"
// is not allowed. It is an error if "edit" is denied and "bash" is allowed. Without rules for
// "edit" and "bash", gemini's own configuration decides. By default, gemini can then neither edit
// files nor run commands, because there is nobody to ask. Gemini can enforce no other rules and no
// patterns.
//
// Gemini treats a prompt that begins with a slash as a command. The client puts the line "The
// task:" in front of such a prompt. If a word of the prompt begins with @ and contains a file's
// name or a part of that name, gemini adds the file to the prompt. Gemini continues a session only
// in the directory of its first turn, and loses a session whose first turn failed before there was
// a whole answer or a tool call.
//
// If the provider refuses a request, gemini retries it up to ten times, for several minutes. The
// key general.maxAttempts in its settings limits these retries.
//
// After a restart, the client reads the session from its file. The file does not show whether a
// turn has ended. If the earlier host had not read the end of the turn, the client therefore treats
// the turn as interrupted.
func Gemini() Program {
	format := []string{"--output-format", "stream-json"}
	return Program{
		Executable: "gemini",
		NoCost:     true,
		Start:      Form{Args: format},
		Resume:     Form{Args: append(format[:2:2], "--resume={session}")},
		Model:      []string{"--model={model}"},
		Rules:      geminiRules,
		Overrides:  []string{"-y", "--yolo", "--approval-mode", "--approvalMode", "--policy", "--admin-policy", "--adminPolicy", "--allowed-tools", "--allowedTools"},
		Decode:     decodeGemini,
		Environ:    []string{"GEMINI_*", "GOOGLE_*"},

		Commands:          "/",
		ForgetsUnanswered: true,
		Choose:            []string{"--session-id={session}"},
		Look:              here("gemini", lookGemini),

		decodeErrors: decodeGeminiErrors,
		explain:      geminiExplains,
	}
}

// geminiKeeps declares the rules that gemini can enforce.
var geminiKeeps = permission.Client{Name: "gemini", Keeps: map[permission.Kind]permission.Means{
	permission.Edit: permission.Switch, permission.Bash: permission.Switch,
}}

func geminiRules(rules []bgagent.Permission) (args, _ []string, err error) {
	if err := geminiKeeps.Check(rules); err != nil {
		return nil, nil, err
	}
	edit, by := permission.On(rules, permission.Edit)
	shell, _ := permission.On(rules, permission.Bash)
	switch {
	case edit == permission.Allowed && shell == permission.Allowed:
		return []string{"--approval-mode=yolo"}, nil, nil
	case edit == permission.Denied && shell == permission.Allowed:
		return nil, nil, geminiKeeps.Cannot("editing while it may run commands", by)
	case edit == permission.Allowed:
		return []string{"--approval-mode=auto_edit"}, nil, nil
	case edit == permission.Denied || shell == permission.Denied:
		return []string{"--approval-mode=default"}, nil, nil
	}
	return nil, nil, nil
}
