package command

import (
	"cmp"
	"context"
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

// Program describes how a command-line program is called and how its output is decoded. It is
// plain data. To define a program, change a copy of a preset or write a new Program.
//
// Arguments can contain the placeholders {prompt}, {session} (the program's id for the session),
// {model}, {profile}, {system} and {directory}. With |json, as in {model|json}, the value becomes a
// quoted string that is valid in JSON and in TOML. All placeholders are replaced in one pass, so
// placeholders in values are not replaced. No shell interprets the arguments.
type Program struct {
	// Executable is the path of the program, or a name that is looked up in the host's
	// PATH. Errors use it as the name of the program.
	Executable string

	// Start is the call that begins a session. Resume is the call that continues a session.
	// Without Resume, every turn begins a new session, and the program knows nothing about
	// earlier turns.
	Start, Resume Form

	// Model, Profile and System are the arguments for the model, the [Agent].Profile and the
	// host's system text. They follow the arguments of the Form. If a turn has no model,
	// profile or system text, the arguments for it are left out. If Model is nil, a turn with a
	// model fails. If Profile is nil, an agent with a profile is an error. If System is nil,
	// the system text is put in front of the session's first prompt.
	Model, Profile, System []string

	// Rules converts the permissions of a task to arguments and to environment variables in
	// the form NAME=value. It returns an error if the program cannot enforce a rule that
	// denies something. If Rules is nil, every rule that denies or asks is an error.
	Rules func(rules []bgagent.Permission) (args, env []string, err error)

	// Overrides lists the flags and settings keys with which [Agent].Args could undo the result of
	// Rules. If Rules returns arguments or variables and the agent's arguments contain such a flag
	// or key, the turn fails. A key also stands for the keys below it. The arguments from Rules
	// come after [Agent].Args. The turn also fails if [Agent].Env sets a variable that Rules sets.
	Overrides []string

	// Decode returns a decoder for the output of one turn. If Decode is nil, the whole output
	// is the answer, and exit code 0 means that the answer is complete.
	Decode func() Decoder

	// NoRetries contains the environment variables, as NAME=value, that stop the program from retrying
	// requests that the provider refused; see [Agent].LeaveRetries. Nil means that there are none.
	NoRetries []string

	// NoTokens means that the output does not report all tokens that a turn uses. NoCost means that
	// the output does not report the turn's cost. A task is refused if its budget limits a figure
	// that is not reported. If Decode is nil, neither tokens nor cost are known.
	NoTokens, NoCost bool

	// Environ names the host's environment variables that the program needs in addition to
	// [DefaultEnviron]. A name can end with *.
	Environ []string

	// Interrupt is the signal that asks the program to exit. Nil means SIGTERM. Interrupt has no
	// effect on Windows.
	Interrupt os.Signal

	// NewSession means that the program can give a continued session a new id. If NewSession is
	// false, any id other than the requested id is an error, because some programs begin a new
	// session if they do not find the old one.
	NewSession bool

	// Commands contains the characters that begin commands to the program itself, such as "/"
	// if the program has a command /quit. A prompt must never run such a command. If a prompt
	// begins with one of these characters, the line "The task:" is put in front of it.
	Commands string

	// ForgetsUnanswered means that the program loses a session if its agent has neither written text nor
	// called a tool in it. Text in a turn that the program reported as failed does not count. After such
	// a loss, the next turn begins a new session, and the earlier prompts are put in front of its prompt.
	ForgetsUnanswered bool

	// Choose contains the arguments that give a new session an id. The client chooses the id, a
	// UUID, and puts it in place of {session}. The arguments follow Start.Args. They are used only
	// if the manager has a store. With the id, the client can find the session again after the host
	// is killed.
	Choose []string

	// Look returns what the program has stored about a session. [Client.RestoreSession] calls Look
	// after all processes of the session have stopped. Look must not send a request to the model.
	// It must be safe for concurrent use.
	//
	// If it is certain that the session does not exist, Look must return an error that wraps
	// [bgagent.ErrNoSession]. If no earlier prompt is lost with the session, the last prompt is
	// then given to a new session of the program. After any other error, the state of the last
	// prompt is unknown.
	//
	// If the earlier host had read a successful end of the turn, Look is not called, and the prompt is
	// treated as answered. If Look is nil, the client decides by three conditions: the program can
	// resume sessions, it has reported its session, and it has printed text or a tool call from the
	// agent. If all are met, the prompt is treated as interrupted. Otherwise, its state is unknown.
	//
	// A preset's Look function reads files on this machine. If [Agent].Command runs the program
	// with another executable, such as ssh, docker, sudo or a script, the session might be stored
	// somewhere else. If Look then does not find the session or the prompt, the state of the prompt
	// is unknown. To read the session from where it is stored, write your own function.
	Look func(ctx context.Context, l Lookup) (Stored, error)

	asks bool // whether the program asks questions on standard output, as Claude Code does

	// decodeErrors returns a function that reads the lines of standard error. That function does not run
	// on the decoder's goroutine. The function "explain" completes the description of a provider failure
	// after the program has exited. Both can be nil.
	decodeErrors func() func(line string, o *Output)
	explain      func(e *bgagent.ProviderError, said said, x outcome) *bgagent.ProviderError
}

// Form is one way to call a program. The arguments of the call come in this order: Args; the
// arguments for the model, the profile and the system text; [Agent].Args; the arguments from
// the rules; and Prompt.
//
// If an argument of Prompt contains {prompt}, standard input is empty. Otherwise the prompt
// goes to standard input. If the prompt is too long for an argument (more than about 127 KiB), the
// arguments in Stdin replace those in Prompt, and the prompt goes to standard input. If
// Stdin is nil, a prompt that is too long is an error.
//
// If the prompt is a separate argument, begins with a dash and has no "--" in front of it, a space
// is put in front of the prompt, so that no program treats the prompt as a flag.
type Form struct {
	Args   []string
	Prompt []string
	Stdin  []string
}

func (f Form) isZero() bool { return f.Args == nil && f.Prompt == nil && f.Stdin == nil }

// maxArgument is the size of the longest argument that Linux accepts: MAX_ARG_STRLEN minus the
// terminating zero. This limit is checked on all systems. A limit on the total size of all
// arguments is not checked.
const maxArgument = 128<<10 - 1

// turnSpec holds the values for the arguments of one turn.
type turnSpec struct {
	prompt    string
	session   string // program's id for the session; empty for a new session
	chosen    string // id that the client chose for a new session; empty if it chose none
	model     string
	profile   string
	system    string
	directory string
	args      []string // Agent.Args
	before    []string // arguments in Agent.Command
	set       []string // entries NAME=value of Agent.Env
	rules     []bgagent.Permission
}

// invocation describes one run of a program, for one turn.
type invocation struct {
	args    []string
	env     []string
	stdin   string
	toStdin bool   // whether the field "stdin" is written to standard input, which is otherwise empty
	prompt  string // text of the prompt as the program receives it
}

// The method "invoke" returns the invocation of the program for a turn.
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
	const always = "always" // the name and the value of an entry whose arguments are added in every call
	for _, o := range []struct {
		what, value string
		args        []string
	}{
		{always, always, form.Args}, {"session", t.chosen, p.Choose}, {"model", t.model, p.Model}, {"profile", t.profile, p.Profile}, {"system text", t.system, p.System},
	} {
		switch {
		case o.value == "":
			continue
		case o.args == nil && o.what != always:
			return call, fmt.Errorf("%s has no option for the %s, but %q was requested; leave it empty", p.Executable, o.what, o.value)
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
	call.args, call.env, call.prompt = slices.Concat(call.args, t.args, args), env, t.prompt
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

// lead is put in front of a prompt that the program would treat as a command.
const lead = "The task:\n\n"

// takesForCommand reports whether the program would treat the prompt as a command. White
// space in front of the command is ignored. U+FEFF is treated as white space, as in JavaScript.
func (p *Program) takesForCommand(prompt string) bool {
	prompt = strings.TrimLeftFunc(prompt, func(r rune) bool { return unicode.IsSpace(r) || r == '\ufeff' })
	first, _ := utf8.DecodeRuneInString(prompt)
	return prompt != "" && strings.ContainsRune(p.Commands, first)
}

// addPrompt adds the arguments of the prompt and the text for standard input to the call.
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

// tooLong returns the error for text that does not fit into an argument. The limit in the error is
// 1 KiB below the real limit, because the argument can also contain other text.
func tooLong(what, text, program string) error {
	return fmt.Errorf("the %s has %d bytes, but %s takes it as an argument of at most %d bytes; shorten it, or put it into a file and name that", what, len(text), program, maxArgument-1024)
}

var placeholders = []string{"prompt", "session", "model", "profile", "system", "directory"}

func hasPlaceholder(args []string, name string) bool {
	return slices.ContainsFunc(args, func(s string) bool {
		return strings.Contains(s, "{"+name+"}") || strings.Contains(s, "{"+name+"|json}")
	})
}

// The method "expand" returns one argument with its placeholders replaced. A value that is the whole
// argument must not act as a flag; otherwise, a language model that chooses the value could set any
// flag of the program. If the value begins with a dash, it is refused, unless it is a prompt or a
// system text: these get a leading space instead. If literal is true, an earlier command-line
// argument is "--", so the value cannot act as a flag and is not changed.
func (t *turnSpec) expand(arg string, literal bool) (string, error) {
	if !strings.Contains(arg, "{") {
		return arg, nil
	}
	values := []string{t.prompt, cmp.Or(t.session, t.chosen), t.model, t.profile, t.system, t.directory}
	var pairs []string
	for i, name := range placeholders {
		if v := values[i]; arg == "{"+name+"}" && strings.HasPrefix(v, "-") && !literal {
			if name != "prompt" && name != "system" {
				return "", fmt.Errorf("the %s %s begins with a dash and would be treated as a flag; give its name without the dash", name, strconv.Quote(v))
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

// The method "check" returns an error if p is invalid.
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
	if p.Choose != nil && !hasPlaceholder(p.Choose, "session") {
		return errors.New("Program.Choose has no {session}; it must give the session its id")
	}
	return nil
}
