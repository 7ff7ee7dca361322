package fleet

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/acp"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/settings"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/transcript"
	"github.com/bgagent/bgagent/command"
)

// The clients are libraries, so their errors name fields of Go structs. Users of this program have
// a file with keys instead. Therefore, the fleet replaces field names in errors with keys. A field
// without a key keeps its name.

var (
	inGo = regexp.MustCompile(`\b(?:[a-z]+\.)?(?:Config|Agent)\.([A-Z][A-Za-z]*)`)

	keyOf = map[string]string{
		"Agents": `"agents"`, "Args": `"args"`, "Auth": `"auth"`, "Command": `"command"`, "Dir": `"directory"`, "Directory": `"directory"`,
		"MaxLine": "the longest line that is read", "Silence": "the limit of silence", // these two have no key
		"Env": `"env"`, "Files": `"files"`, "LeaveRetries": `"leaveRetries"`, "Model": `"model"`, "Password": `"passwordEnv"`, "Profile": `"profile"`, "URL": `"url"`, "Username": `"username"`,
	}

	// The replacer "phrases" changes those texts in which more than a field's name must change.
	phrases = strings.NewReplacer(
		"Config.StartTimeout is ", "the limit is ", // this limit has no key
		" (Config.MaxLine)", "",
		"put them into Username and Password", `remove them, and use "username" and "passwordEnv"`,
		"nothing that its decoder knows", "nothing that is understood",
		"check that the program and its version match the agent's Program", `check "preset", "format" and the version of the program`,
		"(budget.tree.cost) or LaunchInput.TreeBudget sets", `(budget.tree.cost) or the flag --max-cost of "run" sets`,
		" or LaunchInput.TreeBudget sets", " sets", // users of the program have no access to this Go field
		" or LaunchInput.Budget sets the limit, and the host can raise it with ResumeInput.Budget", " sets the limit",
		"set opencode.Config.Password (and Username) to the server's OPENCODE_SERVER_PASSWORD (and OPENCODE_SERVER_USERNAME)",
		`let "passwordEnv" name the environment variable that holds the server's OPENCODE_SERVER_PASSWORD (and "username" be its OPENCODE_SERVER_USERNAME)`,
	)
)

// ofLibrary matches fields of the library's Config that are followed by their key in
// brackets.
var ofLibrary = regexp.MustCompile(`\bConfig\.[A-Z][A-Za-z]* \(([a-z][A-Za-z.]*)\)`)

// InKeys replaces field names with keys in text from the library, such as the reason why a task
// ended.
func InKeys(text string) string {
	return inGo.ReplaceAllStringFunc(ofLibrary.ReplaceAllString(phrases.Replace(text), `"$1"`), keyFor)
}

// keyFor returns the key for a Go field, or the name of the field if it has no key.
func keyFor(name string) string {
	field := name[strings.LastIndexByte(name, '.')+1:]
	if key, ok := keyOf[field]; ok {
		return key
	}
	return field
}

// worded is an error whose text names keys instead of fields.
type worded struct {
	text string
	err  error
}

// Error implements error.
func (e *worded) Error() string { return e.text }

// Unwrap returns the original error from the library.
func (e *worded) Unwrap() error { return e.err }

// inKeys replaces field names with keys in the text of an error.
func inKeys(err error) error {
	if err == nil {
		return nil
	}
	text := InKeys(err.Error())
	if text == err.Error() {
		return err
	}
	return &worded{text, err}
}

// endLines and endBytes are the maximum numbers of lines and bytes that an error shows from the end of
// standard error.
const (
	endLines = 5
	endBytes = 600
)

// turnError returns a turn's error, worded for users of this program. The text names keys instead
// of fields, does not contain package names, and includes the last lines of the program's standard
// error. Secrets are masked.
func (f *Fleet) turnError(err error) error {
	if err == nil {
		return nil
	}
	text := withoutPackage(inKeys(err).Error())
	var turn *command.TurnError
	if errors.As(err, &turn) {
		text = strings.TrimPrefix(text, filepath.Dir(turn.Program)+string(filepath.Separator))
		if end := lastLines(turn.Stderr); len(end) > 1 {
			text += "; the end of its standard error: " + strings.Join(end, " | ")
		}
	}
	if text = f.secrets.Mask(text); text == err.Error() {
		return err
	}
	return &worded{text, err}
}

// withoutPackage removes the name of the client's package from the beginning of an error.
func withoutPackage(text string) string {
	for _, p := range []string{"command: ", "acp: ", "opencode: ", "inproc: "} {
		text = strings.TrimPrefix(text, p)
	}
	return text
}

// sessionError returns the error for a session that could not be created, worded for users.
func sessionError(err error) error {
	if err == nil {
		return nil
	}
	if text := withoutPackage(inKeys(err).Error()); text != err.Error() {
		return &worded{text, err}
	}
	return err
}

// lastLines returns the last non-empty lines of a text: at most endLines lines and endBytes bytes in total,
// but at least one line if there is any.
func lastLines(text string) (lines []string) {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	lines = lines[max(0, len(lines)-endLines):]
	size := 0
	for i, line := range slices.Backward(lines) {
		if size += len(line); size > endBytes {
			return lines[min(i+1, len(lines)-1):]
		}
	}
	return lines
}

// secretWords are words in variable names that suggest a secret.
var secretWords = []string{"KEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL", "AUTH"}

// addSecrets adds the secrets in the environment of an agent's program: the values of the variables that the
// agent's preset or its "env" names. A path is treated as a secret only if its variable's name suggests a
// secret.
func addSecrets(s *transcript.Secrets, a settings.Agent) {
	if a.PasswordEnv != "" {
		s.Add(a.PasswordEnv, os.Getenv(a.PasswordEnv))
	}
	given := a.Env
	if a.Kind == settings.Command {
		given = slices.Concat(program(a).Environ, a.Env)
	}
	for _, v := range environOf(given) {
		name, value, _ := strings.Cut(v, "=")
		if isSecret(name) || !filepath.IsAbs(value) {
			s.Add(name, value)
		}
	}
}

// isSecret reports whether the name of a variable suggests a secret.
func isSecret(name string) bool {
	return slices.ContainsFunc(secretWords, func(w string) bool { return strings.Contains(strings.ToUpper(name), w) })
}

// problemOf returns the problem in a client's error about its configuration, for a
// message that already names the key.
func problemOf(err error) string {
	var input *bgagent.InputError
	if errors.As(err, &input) {
		problem := input.Problem
		if field, rest, ok := strings.Cut(problem, " "); ok && keyOf[field] != "" {
			problem = keyOf[field] + " " + rest
		}
		err = errors.New(problem)
	}
	return inKeys(err).Error()
}

// keyAt returns the key of the field that a client's error names, or "" if there is no such key.
func keyAt(err error) string {
	var input *bgagent.InputError
	if !errors.As(err, &input) {
		return ""
	}
	key := keyOf[input.Field[strings.LastIndexByte(input.Field, '.')+1:]]
	return strings.Trim(key, `"`)
}

// programs is the client for agents of the kind "command".
type programs struct {
	*command.Client
	f *Fleet
}

// CreateSession implements [bgagent.SessionClient].
func (p programs) CreateSession(ctx context.Context, s bgagent.SessionSpec) (string, error) {
	id, err := p.Client.CreateSession(ctx, s)
	return id, sessionError(err)
}

// RunTurn implements [bgagent.TurnRunner].
func (p programs) RunTurn(ctx context.Context, session string, prompt bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
	return p.f.recorded(prompt, r, func(r *bgagent.Reporter) (bgagent.TurnEnd, error) { return p.Client.RunTurn(ctx, session, prompt, r) })
}

// speakers is a client for agents of the kind "acp".
type speakers struct {
	*acp.Client
	f *Fleet
}

// CreateSession implements [bgagent.SessionClient].
func (s speakers) CreateSession(ctx context.Context, spec bgagent.SessionSpec) (string, error) {
	id, err := s.Client.CreateSession(ctx, spec)
	return id, sessionError(err)
}

// RunTurn implements [bgagent.TurnRunner].
func (s speakers) RunTurn(ctx context.Context, session string, prompt bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
	return s.f.recorded(prompt, r, func(r *bgagent.Reporter) (bgagent.TurnEnd, error) { return s.Client.RunTurn(ctx, session, prompt, r) })
}
