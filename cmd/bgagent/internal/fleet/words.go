package fleet

import (
	"context"
	"errors"
	"regexp"
	"strings"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/acp"
	"github.com/bgagent/bgagent/command"
)

// The clients are libraries: their errors name fields of Go structs. Whoever
// reads them here has a file with keys, so the names are translated where the
// errors leave the fleet. A field without a key keeps its name.

var (
	inGo = regexp.MustCompile(`\b(?:[a-z]+\.)?(?:Config|Agent)\.([A-Z][A-Za-z]*)`)

	keyOf = map[string]string{
		"Agents": `"agents"`, "Args": `"args"`, "Auth": `"auth"`, "Command": `"command"`, "Dir": `"directory"`, "Directory": `"directory"`,
		"Env": `"env"`, "Files": `"files"`, "Model": `"model"`, "Password": `"passwordEnv"`, "Profile": `"profile"`, "URL": `"url"`, "Username": `"username"`,
	}

	// Where another name is not enough.
	phrases = strings.NewReplacer(
		"Config.StartTimeout is ", "the limit is ", // there is no key for it
		" (Config.MaxLine)", "",
		"set opencode.Config.Password (and Username) to the server's OPENCODE_SERVER_PASSWORD (and OPENCODE_SERVER_USERNAME)",
		`let "passwordEnv" name the environment variable that holds the server's OPENCODE_SERVER_PASSWORD (and "username" be its OPENCODE_SERVER_USERNAME)`,
	)
)

// worded is an error in the words of the program.
type worded struct {
	text string
	err  error
}

// Error implements error.
func (e *worded) Error() string { return e.text }

// Unwrap returns the error in the library's words.
func (e *worded) Unwrap() error { return e.err }

// inKeys translates an error.
func inKeys(err error) error {
	if err == nil {
		return nil
	}
	text := inGo.ReplaceAllStringFunc(phrases.Replace(err.Error()), func(name string) string {
		field := name[strings.LastIndexByte(name, '.')+1:]
		if key, ok := keyOf[field]; ok {
			return key
		}
		return field
	})
	if text == err.Error() {
		return err
	}
	return &worded{text, err}
}

// problemOf is what a client has against its configuration, for a place that
// names the key already.
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

// keyAt is the key that a client's error is about; empty when it has none.
func keyAt(err error) string {
	var input *bgagent.InputError
	if !errors.As(err, &input) {
		return ""
	}
	key := keyOf[input.Field[strings.LastIndexByte(input.Field, '.')+1:]]
	return strings.Trim(key, `"`)
}

// programs is a client for command lines.
type programs struct {
	*command.Client
	f *Fleet
}

// CreateSession implements [bgagent.SessionClient].
func (p programs) CreateSession(ctx context.Context, s bgagent.SessionSpec) (string, error) {
	id, err := p.Client.CreateSession(ctx, s)
	return id, inKeys(err)
}

// RunTurn implements [bgagent.TurnRunner].
func (p programs) RunTurn(ctx context.Context, session string, prompt bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
	return p.f.recorded(prompt, r, func(r *bgagent.Reporter) (bgagent.TurnEnd, error) { return p.Client.RunTurn(ctx, session, prompt, r) })
}

// speakers is a client for programs that speak ACP.
type speakers struct {
	*acp.Client
	f *Fleet
}

// CreateSession implements [bgagent.SessionClient].
func (s speakers) CreateSession(ctx context.Context, spec bgagent.SessionSpec) (string, error) {
	id, err := s.Client.CreateSession(ctx, spec)
	return id, inKeys(err)
}

// RunTurn implements [bgagent.TurnRunner].
func (s speakers) RunTurn(ctx context.Context, session string, prompt bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
	return s.f.recorded(prompt, r, func(r *bgagent.Reporter) (bgagent.TurnEnd, error) { return s.Client.RunTurn(ctx, session, prompt, r) })
}
