package command

import (
	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/permission"
)

// Gemini is Google's gemini-cli, called as gemini --output-format stream-json.
// Tested with 0.61.0.
//
// The model is passed with --model. Gemini has no profiles. It takes no system text, so
// that is put in front of the first prompt. Rules for editing and for running commands
// become its approval mode: yolo if both are allowed, auto_edit if only editing is
// allowed, and default if one of them is denied and editing is not allowed. Without such
// rules, gemini's own configuration decides; by default it may then neither edit nor run
// commands, because nobody can be asked. Gemini cannot be kept from anything else, and it
// knows no patterns.
//
// Gemini takes a prompt that begins with a slash for a command, so the line "The task:"
// is put in front of it. If a word of the prompt begins with @ and names a file, or part
// of its name, gemini adds that file to the prompt. It continues a session only in the
// directory of its first turn, and loses a session whose first turn failed before there
// was an answer.
func Gemini() Program {
	format := []string{"--output-format", "stream-json"}
	return Program{
		Executable: "gemini",
		Start:      Form{Args: format},
		Resume:     Form{Args: append(format[:2:2], "--resume={session}")},
		Model:      []string{"--model={model}"},
		Rules:      geminiRules,
		Overrides:  []string{"-y", "--yolo", "--approval-mode", "--approvalMode", "--policy", "--admin-policy", "--adminPolicy", "--allowed-tools", "--allowedTools"},
		Decode:     decodeGemini,
		Environ:    []string{"GEMINI_*", "GOOGLE_*"},

		Commands:          "/",
		ForgetsUnanswered: true,
	}
}

// geminiKeeps declares which rules gemini can enforce.
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
