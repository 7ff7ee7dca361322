package acp

import (
	"path"
	"slices"
	"strings"
)

// shellCommand is a command that an agent wants to run. Rules are matched against both of its
// fields.
type shellCommand struct {
	text  string // the command; for a shell with a script, only the script
	whole string // the whole command, including a shell in front of a script
}

// commandFields are the names of the fields that hold commands in the input of agents' tools.
var commandFields = []string{"command", "cmd", "argv", "commands", "commandline", "command_line", "shell_command", "shellcommand", "script"}

const (
	maxCommands = 100 // maximum number of commands in an input; an input with more commands is treated as unreadable
	maxNested   = 5   // maximum number of levels in an input; a deeper input is treated as unreadable
)

// commandsIn returns the commands at all levels of a tool's input, and whether all of
// them can be read.
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

// commandsOf returns the commands in the field v, and whether all of them can be read. The field is
// a string, a list of words, an object with commands in its fields, or a list of these. args
// contains further words of the command.
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

// The function "words" returns the strings of a list. It reports false if the list is empty or has
// an element that is not a string.
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

// commandOf joins the words of a command. If the program is a shell that gets a script as an
// argument, the script becomes the text of the result.
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

// shells are programs that run a script given in their arguments. runners are programs that run
// another command given in their arguments.
var (
	shells  = []string{"sh", "bash", "zsh", "dash", "ash", "ksh", "fish", "pwsh", "powershell", "cmd"}
	runners = []string{"sudo", "doas", "env", "nohup", "time", "command", "builtin", "exec", "nice", "ionice", "xargs", "timeout", "stdbuf", "setsid", "busybox", "eval",
		"find", "ssh", "watch", "parallel", "su", "chroot", "nsenter", "unshare", "flock", "script", "strace", "ltrace", "gdb", "docker", "podman"}
)

// baseOf returns the name of a program in lower case, without its folder and .exe.
func baseOf(program string) string {
	name := strings.ToLower(path.Base(strings.ReplaceAll(strings.Trim(program, `'"\`), `\`, "/")))
	return strings.TrimSuffix(name, ".exe")
}

// joints are the characters that separate commands in a shell, redirect input or output, or begin a
// command substitution. They are also treated as joints inside quotation marks, where a shell
// treats most of them as plain text. If one command is treated as several, the rules only become
// stricter.
const joints = ";|&\n\r`<>"

// isCompound reports whether a shell might run more than one command.
func isCompound(command string) bool {
	return strings.ContainsAny(command, joints) || strings.Contains(command, "$(")
}

// keywords are the words of the shell language that can precede a command, though not always directly.
var keywords = []string{"if", "then", "else", "elif", "do", "while", "until", "!", "coproc", "case", "in", "function", "trap", "{"}

// isOpaque reports whether the text does not spell out the names of the programs that it runs. In
// this case, only a shell that runs the text can determine the names.
func isOpaque(text string) bool {
	return slices.ContainsFunc(partsOf(text), func(part string) bool {
		program, _, _ := strings.Cut(part, " ")
		return strings.ContainsAny(program, "$*?[") && program != "[" && program != "[[" || strings.Contains(part, "${")
	}) || slices.ContainsFunc(strings.Fields(text), func(word string) bool {
		return strings.HasPrefix(word, "{") && strings.Contains(word, ",")
	})
}

// partsOf returns the commands that a shell might run when it runs the text. It returns each
// command as written, and again without the program's folder and without the runners and settings
// in front of the program. It also returns the commands with quotation marks and backslashes
// removed, as a shell removes them.
func partsOf(text string) (list []string) {
	list = append(commandsOfParts(text, joints+"(){}"), commandsOfParts(text, joints+`(){}'"`)...)
	if bare := strings.NewReplacer("'", "", `"`, "", `\`, "").Replace(text); bare != text {
		list = append(list, commandsOfParts(bare, joints+"(){}")...)
	}
	return list
}

// commandsOfParts splits the text into commands. The characters in the string "at" separate them.
// After a runner, such as sudo, the command can begin at any word, because it is unknown which
// words are arguments of the runner. Therefore, commandsOfParts returns one command for each word
// after the runner.
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
