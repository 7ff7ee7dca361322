package command

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/bgagent/bgagent"
)

// Program says how one kind of command line is called and read. It is plain
// data: take a preset, change what is different, or write one from scratch.
//
// Arguments may hold the placeholders {prompt}, {session} (the program's own id
// of the session), {model}, {profile}, {system} and {directory}; {model|json}
// is the same as a quoted JSON string, which also is one of TOML. They are
// replaced in one go, and no shell sees them.
type Program struct {
	// Executable is the name of the program, looked up in the host's PATH, or
	// its path. It also is what the program is called in errors.
	Executable string

	// Start is how a session is begun, Resume how one is gone on with. Without
	// a Resume every turn begins a new session, and the program knows nothing of
	// the turns before.
	Start, Resume Form

	// Arguments that are added where there is something to say, after those of
	// the Form: the model, the [Agent].Profile, the host's system text. A
	// program without Model or Profile is refused one. Without System the text
	// is put before the first prompt of the session.
	Model, Profile, System []string

	// Rules turns the permissions of a task into arguments and into
	// environment variables, each NAME=value. It returns an error when a rule
	// denies something that the program cannot be kept from. When nil, rules
	// that deny anything this package has a name for are refused.
	Rules func(rules []bgagent.Permission) (args, env []string, err error)

	// Overrides are the flags, and the keys of settings, by which [Agent].Args
	// could undo what Rules has made: they are refused in a turn that has rules. A
	// key stands for those below it, too. What Rules returns comes after
	// [Agent].Args, and a variable that it sets must not be set by [Agent].Env.
	Overrides []string

	// Decode returns a decoder for the lines of one turn. When nil the whole
	// output is the answer and exit code 0 says that it is whole.
	Decode func() Decoder

	// Environ names the variables of the host's environment that the program
	// needs beside [DefaultEnviron]; a name may end with *.
	Environ []string

	// Interrupt is the signal that asks the program to end; SIGTERM when nil.
	// It has no meaning on Windows.
	Interrupt os.Signal

	// NewSession says that the program gives a session that is gone on with a
	// new id. Otherwise another id than the one asked for is an error: some
	// programs begin a new session when they do not find the old one.
	NewSession bool

	// Commands are the characters with which a prompt begins that the program
	// takes for a command to itself, such as "/" for one that has /quit. A task
	// is none: the line "The task:" is put before such a prompt.
	Commands string

	// ForgetsUnanswered says that the program does not keep a session in which
	// its agent has not said or done anything. What follows begins a new one
	// then, and the earlier prompts are put before the new one.
	ForgetsUnanswered bool
}

// Form is one way to call a program: Args, then what is added for the model and
// the like, then [Agent].Args, then what comes of the rules, then Prompt.
//
// When no argument of Prompt has {prompt}, the prompt goes to standard input;
// otherwise that is empty. A prompt that is too long for an argument (128 KiB on
// Linux) is passed in the form Stdin in place of Prompt, and is an error
// where that is nil. A prompt that begins with a dash and stands alone in its
// argument, with no "--" before it, is passed with a space before it, so
// that no program takes it for a flag.
type Form struct {
	Args   []string
	Prompt []string
	Stdin  []string
}

func (f Form) isZero() bool { return f.Args == nil && f.Prompt == nil && f.Stdin == nil }

// maxArgument is the longest argument that Linux takes, MAX_ARG_STRLEN less the
// terminating zero. Elsewhere only the sum of all arguments has a limit, which
// is not less.
const maxArgument = 128<<10 - 1

// turnSpec is what is put into the arguments of one turn.
type turnSpec struct {
	prompt    string
	session   string // the program's own; empty for a new one
	model     string
	profile   string
	system    string
	directory string
	args      []string // Agent.Args
	before    []string // of Agent.Command
	set       []string // of Agent.Env, NAME=value
	rules     []bgagent.Permission
}

// invocation is how a program is called for one turn.
type invocation struct {
	args    []string
	env     []string
	stdin   string
	toStdin bool // else standard input is empty
}

// invoke puts the arguments of a turn together.
func (p *Program) invoke(t turnSpec) (invocation, error) {
	var call invocation
	form := p.Start
	if t.session != "" {
		form = p.Resume
	}
	if t.system != "" && p.System == nil {
		if t.session == "" {
			t.prompt = t.system + "\n\n" + t.prompt
		}
		t.system = ""
	}
	if p.takesForCommand(t.prompt) {
		t.prompt = lead + t.prompt
	}
	const always = "always" // the form itself is not about anything
	for _, o := range []struct {
		what, value string
		args        []string
	}{
		{always, always, form.Args}, {"model", t.model, p.Model}, {"profile", t.profile, p.Profile}, {"system text", t.system, p.System},
	} {
		switch {
		case o.value == "":
			continue
		case o.args == nil && o.what != always:
			return call, fmt.Errorf("%s cannot be told which %s to use; %q was asked for", p.Executable, o.what, o.value)
		}
		for _, arg := range o.args {
			s, err := t.expand(arg, false)
			if err != nil {
				return call, fmt.Errorf("%s: %w", p.Executable, err)
			}
			if len(s) > maxArgument {
				return call, tooLong(o.what, o.value, p.Executable)
			}
			call.args = append(call.args, s)
		}
	}
	rules := p.Rules
	if rules == nil {
		rules = noRules(p.Executable)
	}
	args, env, err := rules(t.rules)
	if err != nil {
		return call, err
	}
	if err := p.undone(args, env, t); err != nil {
		return call, err
	}
	call.args, call.env = slices.Concat(call.args, t.args, args), env
	if err := p.addPrompt(&call, form, t); err != nil {
		return call, err
	}
	for _, s := range slices.Concat(call.args, call.env, []string{call.stdin}) {
		if strings.IndexByte(s, 0) >= 0 {
			return call, errors.New("the prompt, or what is passed with it, holds a NUL byte, which cannot be passed on; remove it")
		}
	}
	return call, nil
}

// lead is put before a prompt that the program would take for a command.
const lead = "The task:\n\n"

// takesForCommand reports whether the program would take the prompt for a
// command. Space before it, and what JavaScript takes for it, does not count.
func (p *Program) takesForCommand(prompt string) bool {
	prompt = strings.TrimLeftFunc(prompt, func(r rune) bool { return unicode.IsSpace(r) || r == '\ufeff' })
	first, _ := utf8.DecodeRuneInString(prompt)
	return prompt != "" && strings.ContainsRune(p.Commands, first)
}

// addPrompt adds the last arguments, and standard input.
func (p *Program) addPrompt(call *invocation, form Form, t turnSpec) error {
	tail := form.Prompt
	if hasPlaceholder(tail, "prompt") && len(t.prompt) >= maxArgument-1024 {
		if form.Stdin == nil {
			return tooLong("prompt", t.prompt, p.Executable)
		}
		tail = form.Stdin
	}
	if call.toStdin = !hasPlaceholder(tail, "prompt"); call.toStdin {
		call.stdin = t.prompt
	}
	literal := false
	for _, arg := range tail {
		s, err := t.expand(arg, literal)
		if err != nil {
			return fmt.Errorf("%s: %w", p.Executable, err)
		}
		literal = literal || arg == "--"
		call.args = append(call.args, s)
	}
	return nil
}

// tooLong is the error for what does not fit into an argument, with what else
// stands in it.
func tooLong(what, text, program string) error {
	return fmt.Errorf("the %s has %d bytes, and %s takes it as an argument, of which %d bytes is the most; shorten it, or put it into a file and name that", what, len(text), program, maxArgument-1024)
}

var placeholders = []string{"prompt", "session", "model", "profile", "system", "directory"}

func hasPlaceholder(args []string, name string) bool {
	return slices.ContainsFunc(args, func(s string) bool {
		return strings.Contains(s, "{"+name+"}") || strings.Contains(s, "{"+name+"|json}")
	})
}

// expand replaces the placeholders of one argument. A value that stands alone in
// it must not become a flag: models are named by language models, too.
func (t *turnSpec) expand(arg string, literal bool) (string, error) {
	if !strings.Contains(arg, "{") {
		return arg, nil
	}
	values := []string{t.prompt, t.session, t.model, t.profile, t.system, t.directory}
	var pairs []string
	for i, name := range placeholders {
		if v := values[i]; arg == "{"+name+"}" && strings.HasPrefix(v, "-") && !literal {
			if name != "prompt" && name != "system" {
				return "", fmt.Errorf("the %s %s begins with a dash and would be taken for a flag; give its name without", name, strconv.Quote(v))
			}
			return " " + v, nil
		}
		pairs = append(pairs, "{"+name+"}", values[i])
		if strings.Contains(arg, "{"+name+"|json}") {
			pairs = append(pairs, "{"+name+"|json}", jsonString(values[i]))
		}
	}
	return strings.NewReplacer(pairs...).Replace(arg), nil
}

// check says what is wrong with a program that somebody has written.
func (p *Program) check() error {
	if p.Executable == "" {
		return errors.New("Program.Executable is empty; it must name the program to run")
	}
	for _, f := range []struct {
		name string
		form Form
	}{{"Start", p.Start}, {"Resume", p.Resume}} {
		if f.form.isZero() {
			continue
		}
		if hasPlaceholder(f.form.Stdin, "prompt") {
			return fmt.Errorf("Program.%s.Stdin has {prompt}; it is for prompts on standard input", f.name)
		}
		if hasPlaceholder(f.form.Args, "prompt") {
			return fmt.Errorf("Program.%s.Args has {prompt}; it belongs into Program.%s.Prompt", f.name, f.name)
		}
	}
	if f := p.Resume; !f.isZero() && !hasPlaceholder(slices.Concat(f.Args, f.Prompt), "session") {
		return errors.New("Program.Resume has no {session}; it must say which session to go on with")
	}
	return nil
}
