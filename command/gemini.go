package command

import (
	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/permission"
)

// Gemini is Google's gemini-cli, called as gemini --output-format stream-json.
// Tested with 0.61.0.
//
// The model is passed with --model; it has no profiles, and no place for a
// system text, which is put before the first prompt instead. Of the rules these
// are passed on, as its approval mode: yolo where editing and running commands
// are both allowed, auto_edit where only editing is, default where editing or
// commands are denied and nothing more is allowed. Unsaid, its own
// configuration decides, by which it may neither edit nor run commands where
// nobody can be asked. It cannot be kept from anything else, and knows no
// patterns.
//
// A prompt that begins with a slash is a command to gemini, so the line "The
// task:" is put before one. A word of the prompt that begins with @ and is the name of a file, or part of
// one, has gemini put that file into the prompt. It continues sessions in the
// directory of their first turn only, and keeps none whose first turn failed
// before there was an answer.
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

// geminiKeeps is what gemini can be held to.
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
