package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/procs"
)

// turn is one run of a program.
type turn struct {
	client  *Client
	session *session
	prompt  bgagent.Prompt
	out     *Output
	stop    context.CancelCauseFunc
	own     string      // the program's id of the session to go on with; empty for a new one
	linger  *time.Timer // runs while the program has said that the turn is over

	// Written by the reader of standard output, read when it is done.
	dropped int
	strange int        // bytes of lines before the first that is known
	first   string     // the first line that is not known
	skipped bool       // there was a line that is too long
	lost    *TurnError // why it makes no sense to go on
}

// errAborted is why a turn stops that Abort has stopped.
var errAborted = errors.New("command: the turn was aborted")

// maxStrange is how much a program may print before the first line that its
// decoder knows. Some greet their users.
const maxStrange = 64 << 10

// RunTurn implements [bgagent.TurnRunner]: it runs the agent's program until it
// exits, and returns when nothing of the turn runs any more. The error of a turn
// that has failed is a [*TurnError], and TurnEnd.Stop says what kind of end it
// was; when ctx has ended it is the cause of that.
func (c *Client) RunTurn(ctx context.Context, id string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	t, err := c.open(id, p, r, cancel)
	if err != nil {
		return bgagent.TurnEnd{}, err
	}
	var end bgagent.TurnEnd
	defer func() { t.settle(end, err) }() // also when a function of the host panics
	end, err = t.play(ctx)
	return end, err
}

// open makes the turn the one that runs in the session.
func (c *Client) open(id string, p bgagent.Prompt, r *bgagent.Reporter, stop context.CancelCauseFunc) (*turn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.sessions[id]
	switch {
	case s == nil:
		return nil, noSession(id)
	case c.closed:
		return nil, ErrClosed
	case s.run != nil:
		return nil, fmt.Errorf("command: session %q: %w", id, bgagent.ErrBusy)
	}
	s.turns++
	t := &turn{client: c, session: s, prompt: p, stop: stop, own: s.own}
	program := &s.agent.Program
	if program.Resume.isZero() {
		t.own = ""
	}
	if program.ForgetsUnanswered && !s.answered {
		t.own, t.prompt.Text = "", s.unanswered+p.Text
	}
	var before bgagent.Usage
	if t.own != "" {
		before = s.used
	}
	t.out = newOutput(r, s.turns, before)
	s.talk.begin(p.Text, t.out)
	s.run = t
	c.running.Add(1)
	return t, nil
}

// settle keeps what later turns and readers need, and lets the next turn run.
func (t *turn) settle(end bgagent.TurnEnd, err error) {
	c, s, said := t.client, t.session, t.out.said()
	x := exchange{answer: end.Text, tools: said.tools, stop: end.Stop}
	if x.answer == "" {
		x.answer = said.text
	}
	if err != nil {
		x.problem = err.Error()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s.talk.end(x)
	s.run = nil
	if program := &s.agent.Program; said.session != "" && (t.own == "" || program.NewSession) {
		s.own = said.session // and not what a program began that had lost the old one
	}
	if said.totaled {
		s.used = said.total
	}
	if s.answered = s.answered || said.text != "" || len(said.tools) > 0; s.answered {
		s.unanswered = ""
	} else {
		s.unanswered = cut(t.prompt.Text, c.cfg.Keep) + "\n\n"
	}
	c.running.Done()
}

// play runs the program.
func (t *turn) play(ctx context.Context) (bgagent.TurnEnd, error) {
	if ctx.Err() != nil {
		return t.judge(outcome{stopped: context.Cause(ctx)})
	}
	program := &t.session.agent.Program
	p, err := t.begin()
	if err != nil {
		return bgagent.TurnEnd{Stop: bgagent.StopError}, err
	}
	var errs tail
	var readers sync.WaitGroup
	t.linger = time.NewTimer(t.client.cfg.Grace)
	t.linger.Stop()
	readers.Go(func() { t.read(p.stdout) })
	readers.Go(func() { copyAll(&errs, p.stderr) })
	t.await(ctx, p)
	stopped := context.Cause(ctx) // looked at before what is left over is ended, which takes time
	left := p.finish(t.client.cfg.Grace, &readers)
	return t.judge(outcome{
		program: program.Executable, plain: program.Decode == nil, stopped: stopped,
		code: p.State().ExitCode(), signal: procs.SignalOf(p.State()), stderr: errs.String(), left: left,
	})
}

// await returns when the program has exited. It is stopped when the turn must
// stop, and when it has said that the turn is over and does not exit: what it has
// said counts then.
func (t *turn) await(ctx context.Context, p *process) {
	defer t.linger.Stop()
	for {
		select {
		case <-p.Exited():
			return
		case <-ctx.Done():
		case <-t.linger.C:
			if !t.out.seal() {
				continue // it has gone on at the last moment
			}
		}
		p.Stop(t.session.agent.Program.Interrupt, t.client.cfg.Grace)
		return
	}
}

// begin starts the program.
func (t *turn) begin() (*process, error) {
	s, a := t.session, t.session.agent
	path, err := findProgram(a)
	if err != nil {
		return nil, err
	}
	if err := checkDirectory(s.dir); err != nil {
		return nil, err
	}
	spec := turnSpec{
		prompt: t.prompt.Text, model: t.prompt.Model, profile: a.Profile, system: t.prompt.System, directory: s.dir,
		args: a.Args, session: t.own, rules: t.prompt.Permissions,
	}
	through, set := splitEnv(a.Env)
	spec.set = set
	if len(a.Command) > 1 {
		spec.before = a.Command[1:]
	}
	if spec.model == "" {
		spec.model = a.Model
	}
	call, err := a.Program.invoke(spec)
	if err != nil {
		return nil, fmt.Errorf("command: %w", err)
	}
	through = slices.Concat(through, defaultEnviron, a.Program.Environ)
	p, err := start(procs.Spec{
		Command: slices.Concat([]string{path}, spec.before, call.args), Dir: s.dir,
		Env: environ(os.Environ(), through, set, call.env), Marks: procs.NewMarks(s.depth, t.client.cfg.Instance),
	}, call.toStdin)
	if err != nil {
		return nil, fmt.Errorf("command: starting %s: %w", a.Program.Executable, err)
	}
	if call.toStdin {
		p.feed(call.stdin)
	}
	return p, nil
}

// read reads what the program prints.
func (t *turn) read(f *os.File) {
	program := &t.session.agent.Program
	returned := false
	defer func() {
		if !returned { // a decoder is the host's own, and must not end the host
			t.giveUp(fmt.Sprintf("its decoder panicked: %v", recover()))
		}
	}()
	if program.Decode == nil {
		readText(f, t.out.Text)
		returned = true
		return
	}
	decode := program.Decode()
	over := false
	t.dropped = readLines(f, t.client.cfg.MaxLine, func(line []byte) (enough bool) {
		said := t.out.brief()
		if said.sealed { // what it says of being stopped is not about the turn
			return false
		}
		decode(line, t.out)
		if said = t.out.brief(); said.over != over {
			if over = said.over; over {
				t.linger.Reset(t.client.cfg.Grace)
			} else {
				t.linger.Stop()
			}
		}
		if !said.known {
			if t.first == "" {
				t.first = cut(string(line[:min(len(line), 200)]), 100)
			}
			if t.isStrange(len(line) + 1) {
				return true
			}
		}
		if t.own != "" && said.session != "" && said.session != t.own && !program.NewSession {
			t.giveUp("it did not go on with its session " + t.own + " but began " + said.session)
			return true
		}
		return false
	}, func(n int) (enough bool) {
		t.skipped = true
		return !t.out.brief().known && t.isStrange(n)
	})
	returned = true
}

// isStrange counts bytes of lines that are not known, of a program none of whose
// lines was, and gives it up when they are too many.
func (t *turn) isStrange(n int) bool {
	if t.strange += n; t.strange <= maxStrange {
		return false
	}
	t.giveUp(t.unknown())
	return true
}

// giveUp stops a program of which nothing is to be expected any more.
func (t *turn) giveUp(problem string) {
	t.lost = &TurnError{Program: t.session.agent.Program.Executable, Problem: problem}
	t.stop(t.lost)
}

// unknown says what is wrong with a program that prints what its decoder does
// not know.
func (t *turn) unknown() string {
	what := "it printed nothing"
	switch {
	case t.skipped:
		what = fmt.Sprintf("it printed a line of more than %d bytes (Config.MaxLine), and nothing that is known of it", t.client.cfg.MaxLine)
	case t.first != "":
		what = "it printed nothing that is known of it, first " + strconv.Quote(t.first)
	}
	return what + "; is it the program, in a version, that the agent's Program is for?"
}
