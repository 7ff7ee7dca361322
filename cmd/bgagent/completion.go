package main

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// completionCmd is the command "bgagent completion".
type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"The shell: bash, zsh or fish."`
}

// Help implements kong's help provider.
func (completionCmd) Help() string {
	return `Prints a script that completes the commands, the flags, and the ids of tasks. Load it in bash with: source <(bgagent completion bash), in zsh with: source <(bgagent completion zsh), and in fish with: bgagent completion fish | source.

Exit codes: 0 the script was printed; 1 the output could not be written; 2 invalid input.`
}

// Run implements the subcommand. Kong does not provide completion, but it knows all commands and
// flags.
func (c completionCmd) Run(parsed *kong.Context) error {
	m := completionOf(parsed.Model)
	script := map[string]func() []byte{"bash": m.bash, "zsh": m.zsh, "fish": m.fish}[c.Shell]()
	_, err := os.Stdout.Write(script)
	return err
}

// completion contains the words that the scripts complete.
type completion struct {
	flags    []completionFlag // flags that all commands have
	commands []completionCommand
}

type completionCommand struct {
	name, help string
	flags      []completionFlag
	tasks      bool     // the first argument is the id of a task
	words      []string // the values of the first argument; nil if they are not a fixed list
}

type completionFlag struct {
	name, help string
	short      rune // 0 if there is none
	value      bool // the flag takes a value
	path       bool // the value is the path of a file or directory
}

// completionOf returns the commands and flags in the command line's model.
func completionOf(app *kong.Application) completion {
	m := completion{flags: flagsOf(app.Node)}
	for _, node := range app.Children {
		c := completionCommand{name: node.Name, help: node.Help, flags: flagsOf(node)}
		if len(node.Positional) > 0 {
			first := node.Positional[0]
			c.tasks = first.Name == "id"
			if first.Enum != "" {
				c.words = strings.Split(first.Enum, ",")
			}
		}
		m.commands = append(m.commands, c)
	}
	return m
}

func flagsOf(node *kong.Node) (all []completionFlag) {
	for _, f := range node.Flags {
		if !f.Hidden {
			all = append(all, completionFlag{f.Name, f.Help, f.Short, !f.IsBool(), f.Tag.Type == "path" || slices.Contains([]string{"DIR", "FILE"}, f.PlaceHolder)})
		}
	}
	return all
}

// The function "words" returns the flags as they are typed.
func words(flags []completionFlag) []string {
	var all []string
	for _, f := range flags {
		all = append(all, "--"+f.name)
	}
	return all
}

// taskIDs is a shell command that prints task ids.
const taskIDs = `bgagent tasks --kept 2>/dev/null | grep -o '^  bg_[a-z0-9]*'`

// bash returns the script for bash. The script also works in zsh after a call to bashcompinit.
func (m completion) bash() []byte {
	var b bytes.Buffer
	var names []string
	for _, c := range m.commands {
		names = append(names, c.name)
	}
	files := map[string]bool{} // the flags whose value is a path
	b.WriteString("_bgagent() {\n  local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} command= i\n  COMPREPLY=()\n")
	b.WriteString("  for ((i = 1; i < COMP_CWORD; i++)); do\n    case ${COMP_WORDS[i]} in\n")
	fmt.Fprintf(&b, "    %s) command=${COMP_WORDS[i]}; break ;;\n    esac\n  done\n", strings.Join(names, "|"))
	fmt.Fprintf(&b, "  local words=%q\n", strings.Join(words(m.flags), " "))
	b.WriteString("  case $command in\n")
	fmt.Fprintf(&b, "  '') [[ $word == -* ]] || words=%q ;;\n", strings.Join(names, " "))
	all := slices.Clone(m.flags)
	for _, c := range m.commands {
		all = append(all, c.flags...)
		fmt.Fprintf(&b, "  %s)\n    words+=%q\n", c.name, " "+strings.Join(words(c.flags), " "))
		switch {
		case c.tasks:
			fmt.Fprintf(&b, "    [[ $word == -* ]] || words=$(%s) ;;\n", taskIDs)
		case c.words != nil:
			fmt.Fprintf(&b, "    [[ $word == -* ]] || words=%q ;;\n", strings.Join(c.words, " "))
		default:
			b.WriteString("    [[ $word == -* ]] || words= ;;\n")
		}
	}
	b.WriteString("  esac\n")
	var values []string
	for _, f := range all {
		if f.value && !files[f.name] {
			files[f.name] = true
			values = append(values, "--"+f.name)
			if f.short != 0 {
				values = append(values, "-"+string(f.short))
			}
		}
	}
	slices.Sort(values)
	fmt.Fprintf(&b, "  case $before in %s) words= ;; esac\n", strings.Join(slices.Compact(values), "|"))
	// If nothing matches, the shell completes file names.
	b.WriteString("  local IFS=$' \\t\\n'\n  COMPREPLY=($(compgen -W \"$words\" -- \"$word\"))\n}\n")
	b.WriteString("complete -o default -F _bgagent bgagent\n")
	return b.Bytes()
}

// zsh returns the script for zsh.
func (m completion) zsh() []byte {
	return append([]byte("(( $+functions[compdef] )) || { autoload -U +X compinit && compinit -i }\nautoload -U +X bashcompinit && bashcompinit\n"), m.bash()...)
}

// fish returns the script for fish.
func (m completion) fish() []byte {
	var b bytes.Buffer
	quoted := func(text string) string {
		return "'" + strings.NewReplacer(`\`, `\\`, "'", `\'`, "\n", " ").Replace(text) + "'"
	}
	flag := func(condition string, f completionFlag) {
		line := "complete -c bgagent" + condition + " -l " + f.name
		if f.short != 0 {
			line += " -s " + string(f.short)
		}
		switch {
		case f.path:
			line += " -r -F"
		case f.value:
			line += " -x"
		}
		fmt.Fprintf(&b, "%s -d %s\n", line, quoted(f.help))
	}
	b.WriteString("complete -c bgagent -e\n")
	for _, f := range m.flags {
		flag("", f)
	}
	for _, c := range slices.SortedFunc(slices.Values(m.commands), func(a, b completionCommand) int { return cmp.Compare(a.name, b.name) }) {
		fmt.Fprintf(&b, "complete -c bgagent -f -n __fish_use_subcommand -a %s -d %s\n", c.name, quoted(c.help))
		within := " -n '__fish_seen_subcommand_from " + c.name + "'"
		for _, f := range c.flags {
			flag(within, f)
		}
		switch {
		case c.tasks:
			fmt.Fprintf(&b, "complete -c bgagent -f%s -a %s\n", within, quoted("("+taskIDs+" | string trim)"))
		case c.words != nil:
			fmt.Fprintf(&b, "complete -c bgagent -f%s -a %s\n", within, quoted(strings.Join(c.words, " ")))
		}
	}
	return b.Bytes()
}
