package command

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/jsonlines"
	"github.com/bgagent/bgagent/internal/procs"
)

// turn is one turn of a session. Each turn is one run of a program.
type turn struct {
	client  *Client
	session *session
	prompt  bgagent.Prompt
	out     *Output
	stop    context.CancelCauseFunc
	own     string      // program's id for the session to continue; empty for a new session
	chosen  string      // id that the client chose for a new session; empty if it chose none
	dialog  *dialog     // answers the program's questions; nil if the program cannot ask
	linger  *time.Timer // time for the program to exit after it has reported the end of the turn
	forgets bool        // whether the program loses the session if the agent does nothing in this turn
	follows bool        // whether the session had earlier turns

	mark string // value of TurnVariable in the program's environment; guarded by Client.mu

	heard atomic.Bool // whether the program has printed anything

	// The reader of standard output writes the fields below. They are read only after the reader
	// has returned.
	noise   jsonlines.Noise // output that was not understood
	garbled bool            // whether the output of a plain-text program is not UTF-8
	lost    *TurnError      // why the program was stopped before the end of the turn
	kept    brief           // the program's output when the method "notes" last saved the state
}

// errAborted is the cancellation cause of a turn's context after Abort stops the turn.
var errAborted = errors.New("command: the turn was aborted")

// maxStrange is the maximum number of bytes that a program may print before the first line
// that its decoder knows. Some programs print a greeting.
const maxStrange = 64 << 10

// afterBackground replaces a smaller Config.Grace after a program ends its background work. The
// agent then gets the results and might continue.
const afterBackground = time.Minute

// RunTurn implements [bgagent.TurnRunner]. It runs the agent's program until the program exits, and
// returns when everything that the turn started has stopped. The error of a failed turn is a
// [*TurnError], and TurnEnd.Stop is the reason why the turn ended. If a request to the model
// provider failed, the error wraps a [*bgagent.ProviderError]. If ctx has ended, the error is the
// cause of ctx. If the turn cannot begin, the error can also match [bgagent.ErrNoSession],
// [bgagent.ErrBusy] or [ErrClosed].
func (c *Client) RunTurn(ctx context.Context, id string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	t, err := c.open(id, p, r, cancel)
	if err != nil {
		return bgagent.TurnEnd{}, err
	}
	var end bgagent.TurnEnd
	defer func() { // deferred, because one of the host's functions could panic
		t.settle(end, err)
		t.save(r)
	}()
	end, err = t.play(ctx)
	return end, err
}

// The method "open" begins a new turn and makes it the current turn of the session.
func (c *Client) open(id string, p bgagent.Prompt, r *bgagent.Reporter, stop context.CancelCauseFunc) (t *turn, err error) {
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
	t = &turn{client: c, session: s, prompt: p, stop: stop, own: s.own}
	program := &s.agent.Program
	if program.Resume.isZero() {
		t.own = ""
	}
	switch {
	case program.ForgetsUnanswered && !s.answered:
		t.own, t.prompt.Text = "", s.unanswered+p.Text
	case t.own == "" && s.talk.any() && !program.Resume.isZero():
		if t.prompt.Text, err = s.talk.retell(p.Text); err != nil {
			return nil, fmt.Errorf("command: %s: %w", program.Executable, err)
		}
		c.log(slog.LevelWarn, "the program never reported its session; the conversation is put in front of the prompt", s, slog.String("session", id))
	}
	if t.own == "" && program.Choose != nil && p.Instance != "" {
		t.chosen = chosenID(id, p.ID, p.Instance)
	}
	s.turns++
	var before bgagent.Usage
	if t.own != "" {
		before = s.used
	}
	t.forgets, t.follows = program.ForgetsUnanswered && !s.answered, s.talk.any() || s.unanswered != ""
	t.out = newOutput(r, s.turns, before)
	t.out.step = t.step
	if t.own != "" {
		t.out.memory = s.memory
	}
	s.talk.begin(p.Text, t.out)
	s.run, s.by = t, p.Instance
	c.running.Add(1)
	return t, nil
}

// The method "settle" stores the result of the turn for later turns and for Messages. After that,
// the next turn can begin.
func (t *turn) settle(end bgagent.TurnEnd, err error) {
	c, s, said := t.client, t.session, t.out.said()
	x := exchange{answer: end.Text, tools: said.tools, stop: end.Stop}
	if x.answer == "" {
		x.answer = said.text
	}
	if err != nil {
		x.problem = err.Error()
	}
	if errors.As(err, &x.provider) {
		x.undone = x.provider.Next == bgagent.NextRepeat // the same prompt is sent again, and the conversation must not contain it twice
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s.talk.end(x)
	s.run = nil
	t.ownsLocked(said.session)
	if said.totaled {
		s.used = said.total
	}
	s.memory = t.out.memory
	if s.answered = s.answered || (said.text != "" || len(said.tools) > 0) && !t.keepsNothing(said); s.answered {
		s.unanswered = ""
	} else if !x.undone {
		s.unanswered = cut(t.prompt.Text, c.cfg.Keep) + "\n\n"
	}
	s.wroteLocked(said.text != "", len(said.tools) > 0)
	// The answer is saved because the host might be killed before the manager stores the end of the
	// turn. After a panic, end is zero, so no answer is saved.
	s.now.Answer, s.now.Used = "", bgagent.Usage{}
	s.now.Ended = err == nil && (end.Stop == bgagent.StopEndOfTurn || end.Stop == bgagent.StopUntold && end.Text != "")
	if s.now.Ended {
		s.now.Answer, s.now.Used = x.answer, said.whole
	}
	c.running.Done()
}

// ownsLocked records the program's id for the session. It accepts the first id that the program
// reports. If Program.NewSession is set, it also accepts a later id.
func (t *turn) ownsLocked(session string) {
	if session != "" && (t.own == "" || t.session.agent.Program.NewSession) {
		t.session.own = session
	}
}

// The method "play" runs the program and returns how the turn ended.
func (t *turn) play(ctx context.Context) (bgagent.TurnEnd, error) {
	if ctx.Err() != nil {
		return t.judge(outcome{stopped: context.Cause(ctx)})
	}
	program := &t.session.agent.Program
	p, err := t.begin(ctx)
	if err != nil {
		return bgagent.TurnEnd{Stop: bgagent.StopError}, err
	}
	var errs tail
	var readers sync.WaitGroup
	t.linger = time.NewTimer(t.client.cfg.Grace)
	t.linger.Stop()
	readers.Go(func() { t.read(t.hears(p.stdout, 1)) })
	readers.Go(func() { copyAll(t.errors(&errs), t.hears(p.stderr, 2)) })
	silent := t.await(ctx, p)
	if t.dialog != nil {
		t.dialog.stop()
	}
	stopped := context.Cause(ctx) // read before p.finish, because ctx can end while finish runs
	left := p.finish(t.client.cfg.Grace, &readers)
	if t.dialog != nil {
		t.dialog.wait()
	}
	t.out.tellDraft()
	if silent {
		t.lost = &TurnError{Program: program.Executable, Problem: fmt.Sprintf("it printed nothing for %v (Config.Silence), and was stopped", t.client.cfg.Silence)}
	}
	if t.noise.Any() {
		t.client.log(slog.LevelWarn, t.noise.String(), t.session)
	}
	return t.judge(outcome{
		program: program.Executable, plain: program.Decode == nil, stopped: stopped,
		code: p.State().ExitCode(), signal: procs.SignalOf(p.State()), stderr: errs.String(), left: left,
	})
}

// The method "await" waits until the program has exited. It stops the program if the turn must stop, if the
// program does not exit after it reports the end of the turn, or if the program prints nothing. An end that
// the program has reported remains valid. If await stopped the program because it printed nothing, the
// result "silent" is true.
func (t *turn) await(ctx context.Context, p *process) (silent bool) {
	defer t.linger.Stop()
	silence := time.NewTimer(t.client.cfg.Silence)
	defer silence.Stop()
	for {
		select {
		case <-p.Exited():
			return false
		case <-ctx.Done():
		case <-t.linger.C:
			if said := t.out.brief(); said.over && t.dialog != nil && t.dialog.over() { // the program exits when its input ends
				t.linger.Reset(t.client.cfg.Grace)
				continue
			}
			if !t.out.seal() {
				continue // the program has just continued the turn
			}
		case <-silence.C:
			if silent = !t.heard.Load() && t.session.agent.Program.Decode != nil; !silent {
				continue
			}
		}
		p.Stop(t.session.agent.Program.Interrupt, t.client.cfg.Grace)
		return silent
	}
}

// The method "begin" starts the program with the arguments and the environment for the turn.
func (t *turn) begin(ctx context.Context) (*process, error) {
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
		args: a.Args, session: t.own, chosen: t.chosen, rules: t.prompt.Permissions,
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
	if a.Program.asks && !call.toStdin {
		return nil, fmt.Errorf("command: %s reads its prompt and the answers to its questions from standard input; leave Form.Prompt empty", a.Program.Executable)
	}
	through = slices.Concat(through, defaultEnviron, a.Program.Environ)
	t.sends(call.prompt)
	marks := procs.NewMarks(s.depth, procs.Instances(t.client.cfg.Instance, t.prompt.Instance))
	t.client.mu.Lock()
	t.mark = marks.Turn
	t.client.mu.Unlock()
	p, err := start(procs.Spec{
		Command: slices.Concat([]string{path}, spec.before, call.args), Dir: s.dir,
		Env: environ(os.Environ(), through, set, call.env), Marks: marks,
	}, call.toStdin)
	if err != nil {
		return nil, fmt.Errorf("command: starting %s: %w", a.Program.Executable, err)
	}
	switch {
	case a.Program.asks:
		t.dialog = newDialog(ctx, t.out.r, t.prompt.Permissions, p.input, claudePrompt(call.stdin))
	case call.toStdin:
		p.feed(call.stdin)
	}
	return p, nil
}

// The method "sends" is called before the program gets the prompt. It stores the prompt and saves the state
// of the session.
func (t *turn) sends(prompt string) {
	place := placeOf(t.session.dir)
	t.client.mu.Lock()
	t.session.place = cmp.Or(t.session.place, place)
	if t.session.sendsLocked(t.prompt.ID, prompt, t.own == ""); t.own == "" {
		t.session.own = ""
	}
	t.session.now.Instance, t.session.now.Began = t.prompt.Instance, time.Now().UTC().Truncate(time.Second)
	t.client.mu.Unlock()
	t.save(t.out.r)
}

// The method "notes" saves the session's state if the program has printed something that the next
// process needs in order to restore the session.
func (t *turn) notes(said brief) {
	said.known, said.sealed, said.waited = false, false, false
	said.wrote = said.wrote && t.session.agent.Program.Look == nil // a Look function shows by itself whether the session has the prompt
	if t.prompt.Instance == "" || said == t.kept {
		return
	}
	t.kept = said
	now := progress{Prompt: t.prompt.ID, Wrote: said.wrote || said.called, Called: said.called}
	if whole := t.out.said(); said.over && whole.end != nil && badness(whole.end.stop) == 0 {
		now.Ended, now.Answer, now.Used = true, whole.text, whole.whole
	}
	t.client.mu.Lock()
	t.ownsLocked(said.session)
	t.session.wroteLocked(now.Wrote, now.Called)
	now.Instance, now.Began = t.session.now.Instance, t.session.now.Began
	t.session.now = now
	t.client.mu.Unlock()
	t.save(t.out.r)
}

// The method "read" reads the program's standard output until it ends.
func (t *turn) read(r io.Reader) {
	program := &t.session.agent.Program
	returned := false
	defer func() {
		if !returned { // a panic in a decoder must not crash the host
			t.giveUp(fmt.Sprintf("its decoder panicked: %v", recover()))
		}
	}()
	if program.Decode == nil {
		t.garbled = readText(r, t.out.Text)
	} else {
		t.readObjects(r, program)
	}
	returned = true
}

// readObjects reads the JSON objects that the program prints, and decodes them.
func (t *turn) readObjects(r io.Reader, program *Program) {
	cfg := jsonlines.Config{MaxLine: t.client.cfg.MaxLine, MaxNoise: maxStrange, Echo: t.prompt.System + "\n" + t.prompt.Text}
	if t.dialog != nil {
		cfg.Dropped = func(line []byte) { t.cannotAnswer(t.dialog.misses(line)) }
	}
	in := jsonlines.NewReader(r, cfg)
	defer func() { t.noise = in.Noise() }()
	decode := program.Decode()
	var over, waited bool
	for {
		line, err := in.Next()
		if errors.Is(err, jsonlines.ErrNoise) {
			t.noise = in.Noise()
			t.giveUp(t.unknown())
		}
		if err != nil {
			return
		}
		if t.out.brief().sealed { // output after the end of the turn is ignored
			continue
		}
		if t.dialog != nil {
			if mine, problem := t.dialog.hears(line); mine {
				t.out.Activity()
				t.cannotAnswer(problem)
				continue
			}
		}
		decode(line, t.out)
		t.out.reportUsage()
		said := t.out.brief()
		if said.over != over || said.over && said.waited != waited {
			over, waited = said.over, said.waited
			t.lingers(said)
		}
		if !t.out.understood() {
			in.Reject(line)
		}
		if t.own != "" && said.session != "" && said.session != t.own && !program.NewSession {
			t.giveUp("it did not continue its session " + t.own + " but began " + said.session)
			return
		}
		t.notes(said)
	}
}

// The method "lingers" starts the timer for the program's exit if the turn is over. It stops the
// timer if the turn continues. If the program can ask questions, its input ends with the turn.
// After background work, the agent might continue and ask again, so the input ends only when the
// timer runs out.
func (t *turn) lingers(said brief) {
	switch {
	case !said.over:
		t.linger.Stop()
	case said.waited:
		t.linger.Reset(max(t.client.cfg.Grace, t.client.afterBackground))
	default:
		t.linger.Reset(t.client.cfg.Grace)
		if t.dialog != nil {
			t.dialog.over()
		}
	}
}

// The method "errors" returns the writer for the program's standard error. The writer writes to errs. If
// Program.decodeErrors is set, the writer also passes each line to the function that decodeErrors returns.
func (t *turn) errors(errs *tail) io.Writer {
	decode := t.session.agent.Program.decodeErrors
	if decode == nil {
		return errs
	}
	line := decode()
	return io.MultiWriter(errs, &lineWriter{line: func(s string) { line(s, t.out) }})
}

// hears is a reader that records whether the program prints anything. It also passes the
// output on to Config.Printed.
type hears struct {
	r      io.Reader
	t      *turn
	stream int
}

func (t *turn) hears(r io.Reader, stream int) hears { return hears{r, t, stream} }

// Read implements [io.Reader].
func (h hears) Read(p []byte) (int, error) {
	n, err := h.r.Read(p)
	if n > 0 {
		h.t.heard.Store(true)
		if tell := h.t.client.cfg.Printed; tell != nil {
			tell(h.t.prompt.Task, h.stream, p[:n])
		}
	}
	return n, err
}

// giveUp stops a program that cannot complete the turn. The problem becomes the turn's error.
func (t *turn) giveUp(problem string) {
	t.lost = &TurnError{Program: t.session.agent.Program.Executable, Problem: problem}
	t.stop(t.lost)
}

// cannotAnswer stops the program if it would wait forever for an answer. An empty problem means that it
// would not.
func (t *turn) cannotAnswer(problem string) {
	if problem != "" && t.lost == nil {
		t.giveUp(problem)
	}
}

// The method "unknown" is called if the decoder has not recognized any line of the program's output.
// It returns a description of this problem.
func (t *turn) unknown() string {
	what := "it printed nothing"
	switch {
	case t.noise.Dropped > 0:
		what = fmt.Sprintf("it printed a line of more than %d bytes (Config.MaxLine), and nothing that its decoder knows", t.client.cfg.MaxLine)
	case t.noise.Texts > 0:
		what = "it printed nothing that its decoder knows, first " + t.noise.Quoted()
	}
	return what + "; check that the program and its version match the agent's Program"
}
