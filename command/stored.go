package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/procs"
)

// Lookup is the argument of [Program].Look. It describes the session to read.
type Lookup struct {
	Session   string   // program's id for the session; empty if the program has not reported the id
	Chosen    string   // id that [Program].Choose gave to the session; empty if Session is set or Choose is nil
	Prompt    string   // text of the last prompt
	Directory string   // working directory of the session; empty if unknown
	Env       []string // environment of the program, as NAME=value

	// Command is the command that runs the program: [Agent].Command, or Program.Executable if
	// Agent.Command is empty. If the command is ssh, for example, the files of the session are not on
	// this machine.
	Command []string

	// Began is a time shortly before the program was started for the last prompt. If the time is
	// unknown, Began is zero.
	Began time.Time

	// Run runs the program's command with these arguments in the directory of the session. It
	// returns the standard output. If the program exits with a code other than zero, the error
	// contains the line of standard error that most likely explains the failure. If ctx ends, Run
	// kills the program and returns the cause of ctx. Run can be called concurrently.
	Run func(ctx context.Context, args ...string) ([]byte, error)
}

// Stored is the result of [Program].Look. It contains what the program has stored about a session.
type Stored struct {
	Session string          // program's id for the session
	Prompts []string        // texts of all the session's prompts, oldest first
	Ended   bool            // whether the turn of the last prompt is known to have ended with an answer
	End     bgagent.TurnEnd // how that turn ended; valid only if Ended is set
	Unclear bool            // whether some of the data was not understood; Prompts might then be incomplete

	elsewhere bool // whether the session might be in other files; Prompts might then be incomplete
}

// The method "recall" returns the state of the last prompt in the session and, if the prompt was
// answered, how its turn ended.
func (c *Client) recall(ctx context.Context, s *session, r bgagent.SessionRestore) (bgagent.PromptState, bgagent.TurnEnd, error) {
	program := &s.agent.Program
	var now progress
	if s.now.of(r) {
		now = s.now
	}
	var none bgagent.TurnEnd
	switch {
	case now.Ended:
		return bgagent.PromptAnswered, bgagent.TurnEnd{Stop: bgagent.StopEndOfTurn, Text: now.Answer, Usage: now.Used}, nil
	case program.Look == nil && now.Wrote && s.own != "" && !program.Resume.isZero():
		return bgagent.PromptInterrupted, none, nil
	case program.Look == nil:
		return bgagent.PromptUnknown, none, nil
	}
	earlier := slices.DeleteFunc(slices.Clone(s.sent), func(x sent) bool { return x.ID == r.Last.ID })
	stored, err := program.Look(ctx, c.lookup(s, r, s.own))
	if s.own != "" && s.now.Prompt == r.Last.ID && !s.now.of(r) && lacks(stored, err, r.Last.Text, earlier) {
		// A later manager has repeated the prompt, possibly in a new session of the program.
		if x, xErr := program.Look(ctx, c.lookup(s, r, "")); !errors.Is(xErr, bgagent.ErrNoSession) {
			stored, err = x, xErr
		}
	}
	switch {
	case errors.Is(err, bgagent.ErrNoSession) && s.own != "" && len(earlier) > 0:
		return bgagent.PromptMissing, none, fmt.Errorf("command: %s has lost its session %s: %w", program.Executable, s.own, err)
	case errors.Is(err, bgagent.ErrNoSession):
		c.owns(s, "")
		if now.Called {
			return bgagent.PromptInterrupted, none, nil
		}
		return bgagent.PromptMissing, none, nil
	case err != nil && ctx.Err() != nil:
		return bgagent.PromptUnknown, none, fmt.Errorf("command: reading the session of %s: %w: %w", program.Executable, bgagent.ErrBusy, err)
	case err != nil:
		return bgagent.PromptUnknown, none, unreadable{fmt.Errorf("command: reading the session of %s: %w", program.Executable, err)}
	}
	c.owns(s, stored.Session)
	state, at := stored.state(r.Last.Text, earlier)
	if at >= 0 {
		c.mu.Lock()
		s.sent = append(earlier, sent{ID: r.Last.ID, Hash: hashOf(stored.Prompts[at])})
		s.answered, s.unanswered = true, "" // the program still has the session, so no prompt must be repeated
		c.mu.Unlock()
	}
	switch {
	case state == bgagent.PromptMissing && now.Called:
		state = bgagent.PromptInterrupted // the agent called a tool, although the stored session does not show it
	case state == bgagent.PromptMissing && s.sentCut:
		state = bgagent.PromptUnknown
	case state == bgagent.PromptAnswered:
		return state, stored.End, nil
	}
	return state, none, nil
}

// unreadable is an error about a session whose processes have all ended. It matches
// [bgagent.ErrUnreadable]; its text is the reason.
type unreadable struct{ error }

func (e unreadable) Unwrap() []error { return []error{e.error, bgagent.ErrUnreadable} }

// The method "of" reports whether p describes r's last prompt and r names the manager that handed
// over this prompt.
func (p progress) of(r bgagent.SessionRestore) bool {
	return p.Prompt == r.Last.ID && p.Instance == r.Instance
}

// The function "lacks" reports whether the result of [Program].Look shows that the session does not
// have the prompt.
func lacks(st Stored, err error, prompt string, earlier []sent) bool {
	if err != nil {
		return errors.Is(err, bgagent.ErrNoSession)
	}
	state, _ := st.state(prompt, earlier)
	return state == bgagent.PromptMissing
}

// The method "owns" records the id by which the program knows the session.
func (c *Client) owns(s *session, own string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.own = own
}

// The method "state" returns the state of the prompt in the session and the prompt's index in
// st.Prompts. The index is -1 if the prompt was not found. The prompts in "earlier" are those that
// the program got before this one.
func (st Stored) state(prompt string, earlier []sent) (state bgagent.PromptState, at int) {
	waits, doubt := map[string]int{}, false
	for _, x := range earlier {
		waits[x.Hash]++
		doubt = doubt || x.Doubt && x.Hash == hashOf(prompt)
	}
	at = -1
	strange := false
	for i, p := range st.Prompts {
		if h := hashOf(p); waits[h] > 0 {
			waits[h]--
		} else if isPrompt(p, prompt, i == 0) {
			at = i
		} else {
			strange = true
		}
	}
	for _, n := range waits {
		doubt = doubt || n > 0
	}
	switch {
	case plain(prompt) == "":
		return bgagent.PromptUnknown, -1
	case at >= 0 && at == len(st.Prompts)-1 && st.Ended && !st.Unclear:
		return bgagent.PromptAnswered, at
	case at >= 0:
		return bgagent.PromptInterrupted, at
	case strange || doubt || st.Unclear || st.elsewhere:
		return bgagent.PromptUnknown, -1
	}
	return bgagent.PromptMissing, -1
}

// isPrompt reports whether a stored prompt is the given prompt. If the stored prompt is the first of
// its session, another text can come before it, such as the host's system text.
func isPrompt(stored, prompt string, first bool) bool {
	stored, prompt = plain(stored), plain(prompt)
	return stored == prompt || stored == plain(lead)+" "+prompt || first && strings.HasSuffix(stored, " "+prompt)
}

// lookup returns the argument for the Look function of the session's program. own is the program's
// id for the session to read; it is empty for the session that began with the last prompt.
func (c *Client) lookup(s *session, r bgagent.SessionRestore, own string) Lookup {
	program := &s.agent.Program
	through, set := splitEnv(s.agent.Env)
	l := Lookup{
		Session: own, Prompt: r.Last.Text, Command: s.agent.Command,
		Env: environ(os.Environ(), slices.Concat(through, defaultEnviron, program.Environ), set),
	}
	if filepath.IsAbs(s.dir) { // the earlier host might have been started in another directory
		l.Directory = s.dir
	}
	if len(l.Command) == 0 {
		l.Command = []string{program.Executable}
	}
	if s.now.Prompt == r.Last.ID {
		l.Began = s.now.Began
	}
	if l.Session == "" && program.Choose != nil {
		l.Chosen = chosenID(r.Session, r.Last.ID, r.Instance)
	}
	marks := procs.NewMarks(s.depth, procs.Instances(c.cfg.Instance, r.Spec.Instance))
	l.Run = func(ctx context.Context, args ...string) ([]byte, error) {
		path, err := findProgram(s.agent)
		if err != nil {
			return nil, err
		}
		if err := checkDirectory(s.dir); err != nil {
			return nil, err
		}
		var before []string
		if len(s.agent.Command) > 1 {
			before = s.agent.Command[1:]
		}
		select {
		case c.looking <- struct{}{}:
			defer func() { <-c.looking }()
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		return capture(ctx, procs.Spec{Command: slices.Concat([]string{path}, before, args), Dir: s.dir, Env: l.Env, Marks: marks})
	}
	return l
}

// maxLooking is the maximum number of programs that Lookup.Run runs concurrently. The limit exists
// because a host can restore many sessions after a restart, and each start of opencode occupies a
// processor for several seconds.
const maxLooking = 4

// maxCaptured is the maximum number of bytes that a program may print to standard output in one
// call to Lookup.Run.
const maxCaptured = 256 << 20

// The function "capture" runs a program without input and returns its standard output. If ctx ends,
// the program is killed.
func capture(ctx context.Context, spec procs.Spec) ([]byte, error) {
	p, err := start(spec, false)
	if err != nil {
		return nil, err
	}
	var errs tail
	var out []byte
	var readers sync.WaitGroup
	readers.Go(func() {
		out, _ = io.ReadAll(io.LimitReader(p.stdout, maxCaptured+1))
		copyAll(io.Discard, p.stdout)
	})
	readers.Go(func() { copyAll(&errs, p.stderr) })
	select {
	case <-p.Exited():
	case <-ctx.Done():
		p.Stop(nil, 0)
	}
	left := p.finish(0, &readers)
	switch code := p.State().ExitCode(); {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case left != nil:
		return nil, left
	case len(out) > maxCaptured:
		return nil, fmt.Errorf("it printed more than %d bytes", maxCaptured)
	case code != 0:
		return nil, fmt.Errorf("it exited with code %d: %s", code, hint(errs.String()))
	}
	return out, nil
}
