package acp

import (
	"path"
	"slices"
	"strings"
)

// shellCommand is a command that an agent wants to run, as rules look at it.
type shellCommand struct {
	text  string // what is run; of a shell that is given a script, the script
	whole string // all of it, with that shell
}

// commandFields are the names under which agents give commands to their tools.
var commandFields = []string{"command", "cmd", "argv", "commands", "commandline", "command_line", "shell_command", "shellcommand", "script"}

const (
	maxCommands = 100 // that are looked for in an input
	maxNested   = 5   // levels of an input that are looked at
)

// commandsIn returns the commands in the input of a tool, wherever in it they
// are, and whether all of them can be read.
func commandsIn(input any) (list []shellCommand, readable bool) {
	readable = true
	var look func(v any, depth int)
	look = func(v any, depth int) {
		switch v := v.(type) {
		case []any:
			for _, x := range v {
				look(x, depth+1)
			}
		case map[string]any:
			for name, x := range v {
				if !slices.Contains(commandFields, strings.ToLower(name)) {
					look(x, depth+1)
					continue
				}
				found, ok := commandsOf(x, v["args"])
				if several, isList := words(x); isList && strings.EqualFold(name, "commands") {
					found = nil
					for _, text := range several {
						found = append(found, shellCommand{text: text, whole: text})
					}
				}
				list = append(list, found...)
				readable = readable && ok
			}
		}
		readable = readable && depth <= maxNested && len(list) <= maxCommands
	}
	if look(input, 1); len(list) == 0 {
		return nil, false
	}
	slices.SortFunc(list, func(a, b shellCommand) int { return strings.Compare(a.whole, b.whole) })
	return list, readable
}

// commandsOf returns the commands in one field: a text, a list of words, or a list
// of such. args are the words of another field.
func commandsOf(v, args any) (list []shellCommand, ok bool) {
	more, _ := words(args)
	switch v := v.(type) {
	case string:
		if strings.TrimSpace(v) == "" {
			return nil, false
		}
		if len(more) > 0 {
			return []shellCommand{commandOf(append([]string{v}, more...))}, true
		}
		return []shellCommand{{text: v, whole: v}}, true
	case []any:
		if argv, ok := words(v); ok {
			return []shellCommand{commandOf(append(argv, more...))}, len(argv) > 0
		}
		ok = true
		for _, x := range v {
			found, readable := commandsOf(x, nil)
			list, ok = append(list, found...), ok && readable
		}
		return list, ok
	case map[string]any:
		return commandsIn(v)
	}
	return nil, false
}

// words returns a list that has nothing but texts.
func words(v any) (list []string, ok bool) {
	values, _ := v.([]any)
	for _, x := range values {
		word, ok := x.(string)
		if !ok {
			return nil, false
		}
		list = append(list, word)
	}
	return list, len(list) > 0
}

// commandOf joins the words of a command. Of a shell that is given a script, the
// script is what is run.
func commandOf(argv []string) shellCommand {
	c := shellCommand{whole: strings.Join(argv, " ")}
	c.text = c.whole
	if !slices.Contains(shells, baseOf(argv[0])) {
		return c
	}
	for i, word := range argv[1:] {
		script := argv[1+i:][1:]
		switch flag := strings.ToLower(word); {
		case len(script) == 0 || !strings.HasPrefix(word, "-") && !strings.HasPrefix(word, "/"):
			return c
		case flag == "-command" || flag == "/c" || !strings.HasPrefix(flag, "--") && strings.Contains(flag, "c"):
			c.text = strings.Join(script, " ")
			return c
		}
	}
	return c
}

// shells are programs that run the script that they are given, runners those that
// run the command after them.
var (
	shells  = []string{"sh", "bash", "zsh", "dash", "ash", "ksh", "fish", "pwsh", "powershell", "cmd"}
	runners = []string{"sudo", "doas", "env", "nohup", "time", "command", "builtin", "exec", "nice", "ionice", "xargs", "timeout", "stdbuf", "setsid", "busybox", "eval",
		"find", "ssh", "watch", "parallel", "su", "chroot", "nsenter", "unshare", "flock", "script", "strace", "ltrace", "gdb", "docker", "podman"}
)

// baseOf returns the name of a program without its folder.
func baseOf(program string) string {
	name := strings.ToLower(path.Base(strings.ReplaceAll(strings.Trim(program, `'"\`), `\`, "/")))
	return strings.TrimSuffix(name, ".exe")
}

// joints are the characters by which a shell is given more than one command, or a
// file to write to. Inside quotation marks they are not, which is not looked at:
// to take a command for more than it is does no harm.
const joints = ";|&\n\r`<>"

// isCompound reports whether a shell might run more than the one command.
func isCompound(command string) bool {
	return strings.ContainsAny(command, joints) || strings.Contains(command, "$(")
}

// keywords are words of a shell that a command follows.
var keywords = []string{"if", "then", "else", "elif", "do", "while", "until", "!", "coproc", "case", "in", "function", "trap", "{"}

// isOpaque reports whether the shell finds out only when it runs the text which
// program it runs.
func isOpaque(text string) bool {
	return slices.ContainsFunc(partsOf(text), func(part string) bool {
		program, _, _ := strings.Cut(part, " ")
		return strings.ContainsAny(program, "$*?[") && program != "[" && program != "[[" || strings.Contains(part, "${")
	}) || slices.ContainsFunc(strings.Fields(text), func(word string) bool {
		return strings.HasPrefix(word, "{") && strings.Contains(word, ",")
	})
}

// partsOf returns the commands that a shell might run of a text, each as it is
// written and as the program that it runs in the end: without what runs it, the
// folder of the program, and settings before it. Quotation marks and backslashes
// within words are left out, too, as a shell does.
func partsOf(text string) (list []string) {
	list = append(commandsOfParts(text, joints+"(){}"), commandsOfParts(text, joints+`(){}'"`)...)
	if bare := strings.NewReplacer("'", "", `"`, "", `\`, "").Replace(text); bare != text {
		list = append(list, commandsOfParts(bare, joints+"(){}")...)
	}
	return list
}

// commandsOfParts divides the text at the characters. What follows a program that
// runs others may begin at any of its words: which of them are the runner's own
// cannot be known.
func commandsOfParts(text, at string) (list []string) {
	for _, p := range strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(at, r) }) {
		p = strings.TrimSpace(p)
		list = append(list, p)
		runs := false
		for fields := strings.Fields(p); len(fields) > 0; fields = fields[1:] {
			word := fields[0]
			setting := strings.Contains(word, "=") || strings.HasPrefix(word, "-") || strings.Trim(word, "0123456789.smhd") == ""
			if isRunner := slices.Contains(runners, baseOf(word)) || slices.Contains(keywords, word); isRunner || setting {
				runs = runs || isRunner
				list = append(list, strings.Join(fields[1:], " "))
				continue
			}
			list = append(list, strings.Join(append([]string{baseOf(word)}, fields[1:]...), " "))
			if !runs {
				break
			}
		}
	}
	return list
}
