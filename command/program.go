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

// Program says how one kind of command line is called and read. It is plain data: take
// a preset and change it, or write one from scratch.
//
// Arguments may contain the placeholders {prompt}, {session} (the program's own id of
// the session), {model}, {profile}, {system} and {directory}. {model|json} is the value
// as a quoted JSON string, which is also a TOML string. All placeholders are replaced in
// one pass, and no shell sees them.
type Program struct {
	// Executable is the path of the program, or its name, which is looked up in the
	// host's PATH. Errors call the program by this name.
	Executable string

	// Start is the call that begins a session, and Resume the call that continues one.
	// Without a Resume, every turn begins a new session, and the program knows nothing
	// about earlier turns.
	Start, Resume Form

	// Model, Profile and System are the arguments for the model, the [Agent].Profile
	// and the host's system text. They follow those of the Form, if there is such a
	// value. Without Model or Profile, a turn that has such a value fails. Without
	// System, the text is put in front of the session's first prompt.
	Model, Profile, System []string

	// Rules turns the permissions of a task into arguments and environment variables,
	// each NAME=value. It returns an error if a rule denies something that the program
	// cannot be kept from. If Rules is nil, every rule that denies or asks is refused.
	Rules func(rules []bgagent.Permission) (args, env []string, err error)

	// Overrides are the flags and the keys of settings with which [Agent].Args could
	// undo the result of Rules. They are refused in a turn that has rules. A key also
	// stands for the keys below it. The arguments from Rules come after [Agent].Args. If
	// [Agent].Env sets a variable that Rules sets, the turn fails.
	Overrides []string

	// Decode returns a decoder for the lines of one turn. If Decode is nil, the whole
	// output is the answer, and exit code 0 means that it is complete.
	Decode func() Decoder

	// Environ names the variables of the host's environment that the program needs in
	// addition to [DefaultEnviron]. A name may end with *.
	Environ []string

	// Interrupt is the signal that asks the program to end. Nil means SIGTERM. It has no
	// effect on Windows.
	Interrupt os.Signal

	// NewSession says that the program may give a continued session a new id. Without
	// it, any id other than the requested one is an error, because some programs begin a
	// new session if they do not find the old one.
	NewSession bool

	// Commands are the characters that begin a command to the program itself, such as
	// "/" if it has /quit. The line "The task:" is put in front of a prompt that begins
	// with one of them, because a task is no such command.
	Commands string

	// ForgetsUnanswered says that the program loses a session if its agent has not said
	// or done anything in it. The next turn then begins a new session, with the earlier
	// prompts in front of its own.
	ForgetsUnanswered bool
}

// Form is one way to call a program. Its arguments are, in this order: Args, those for
// the model, the profile and the system text, [Agent].Args, those from the rules, and
// Prompt.
//
// If an argument of Prompt contains {prompt}, standard input is empty; otherwise the
// prompt goes to standard input. If the prompt is too long for an argument (128 KiB on
// Linux), Stdin replaces Prompt, and the prompt goes to standard input; if Stdin is
// nil, that is an error. If the prompt is an argument of its own, begins with a dash
// and has no "--" in front of it, it is passed with a leading space, so that no program
// takes it for a flag.
type Form struct {
	Args   []string
	Prompt []string
	Stdin  []string
}

func (f Form) isZero() bool { return f.Args == nil && f.Prompt == nil && f.Stdin == nil }

// maxArgument is the longest argument that Linux accepts: MAX_ARG_STRLEN minus the
// terminating zero. Other systems limit only the sum of all arguments, and that limit is
// no smaller.
const maxArgument = 128<<10 - 1

// turnSpec has the values for the arguments of one turn.
type turnSpec struct {
	prompt    string
	session   string // the program's own id; empty for a new session
	model     string
	profile   string
	system    string
	directory string
	args      []string // Agent.Args
	before    []string // the arguments in Agent.Command
	set       []string // the entries NAME=value of Agent.Env
	rules     []bgagent.Permission
}

// invocation is how a program is called for one turn.
type invocation struct {
	args    []string
	env     []string
	stdin   string
	toStdin bool // whether stdin is written; otherwise standard input is empty
}

// invoke returns the call for a turn.
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
	const always = "always" // the arguments of the form need no value
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
			return call, fmt.Errorf("%s cannot be told which %s to use, but %q was requested; leave it empty", p.Executable, o.what, o.value)
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
			return call, errors.New("the prompt, or another argument, contains a NUL byte, which cannot be passed on; remove it")
		}
	}
	return call, nil
}

// lead is put in front of a prompt that the program would take for a command.
const lead = "The task:\n\n"

// takesForCommand reports whether the program would take the prompt for a command. White
// space in front of it, as JavaScript defines that, does not count.
func (p *Program) takesForCommand(prompt string) bool {
	prompt = strings.TrimLeftFunc(prompt, func(r rune) bool { return unicode.IsSpace(r) || r == '\ufeff' })
	first, _ := utf8.DecodeRuneInString(prompt)
	return prompt != "" && strings.ContainsRune(p.Commands, first)
}

// addPrompt adds the arguments of the prompt, and standard input.
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

// tooLong returns the error for a text that does not fit into an argument. It leaves
// some room for the other text in the argument.
func tooLong(what, text, program string) error {
	return fmt.Errorf("the %s has %d bytes, but %s takes it as an argument of at most %d bytes; shorten it, or put it into a file and name that", what, len(text), program, maxArgument-1024)
}

var placeholders = []string{"prompt", "session", "model", "profile", "system", "directory"}

func hasPlaceholder(args []string, name string) bool {
	return slices.ContainsFunc(args, func(s string) bool {
		return strings.Contains(s, "{"+name+"}") || strings.Contains(s, "{"+name+"|json}")
	})
}

// expand replaces the placeholders of one argument. A value that is a whole argument
// must not become a flag, because language models may name models, too.
func (t *turnSpec) expand(arg string, literal bool) (string, error) {
	if !strings.Contains(arg, "{") {
		return arg, nil
	}
	values := []string{t.prompt, t.session, t.model, t.profile, t.system, t.directory}
	var pairs []string
	for i, name := range placeholders {
		if v := values[i]; arg == "{"+name+"}" && strings.HasPrefix(v, "-") && !literal {
			if name != "prompt" && name != "system" {
				return "", fmt.Errorf("the %s %s begins with a dash and would be taken for a flag; give its name without the dash", name, strconv.Quote(v))
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

// check returns what is wrong with the program.
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
			return fmt.Errorf("Program.%s.Stdin has {prompt}; remove it, because the form is for prompts on standard input", f.name)
		}
		if hasPlaceholder(f.form.Args, "prompt") {
			return fmt.Errorf("Program.%s.Args has {prompt}; move it to Program.%s.Prompt", f.name, f.name)
		}
	}
	if f := p.Resume; !f.isZero() && !hasPlaceholder(slices.Concat(f.Args, f.Prompt), "session") {
		return errors.New("Program.Resume has no {session}; it must say which session to continue")
	}
	return nil
}
