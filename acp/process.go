package acp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bgagent/bgagent/internal/procs"
	sdk "github.com/coder/acp-go-sdk"
)

const (
	keptStderr  = 8 << 10 // maximum number of bytes of stderr that are kept
	shownStderr = 1 << 10 // maximum number of bytes of stderr in an error
)

// running is a program that has been started.
type running struct {
	in     io.WriteCloser
	out    io.ReadCloser
	stderr *tail
	pid    int // process id of the program
	marks  procs.Marks
	exited <-chan struct{}           // closed when the program and everything that it started have ended
	how    func() string             // describes how the program ended; valid once the channel "exited" is closed
	stop   func(grace time.Duration) // asks the program to exit, then kills it; returns once the channel "exited" is closed
	rest   func()                    // ends the reading of the program's standard error; called last
}

// The method "spawn" starts the agent's program.
func (c *Client) spawn(instance string) (_ *running, err error) {
	var files []*os.File
	defer func() {
		if err != nil {
			for _, f := range files {
				_ = f.Close()
			}
		}
	}()
	pipe := func() (r, w *os.File) {
		if err != nil {
			return nil, nil
		}
		if r, w, err = os.Pipe(); err == nil {
			files = append(files, r, w)
		}
		return r, w
	}
	inR, inW := pipe()
	outR, outW := pipe()
	errR, errW := pipe()
	if err != nil {
		return nil, fmt.Errorf("making pipes: %w", err)
	}
	ch, err := startChild(procs.Spec{
		Command: c.cfg.Command, Dir: c.cfg.Dir, Env: c.env, Stdin: inR, Stdout: outW, Stderr: errW,
		// A process can run sessions of different depths, so it is treated as one level below its host.
		// This limits the length of a chain of agents that start hosts.
		Marks: procs.NewMarks(1, instance),
	})
	if err != nil {
		return nil, err
	}
	for _, f := range []*os.File{inR, outW, errW} { // the child has its own copies
		_ = f.Close()
	}
	t := &tail{max: keptStderr}
	read := make(chan struct{})
	go func() {
		defer close(read)
		copyTail(io.MultiWriter(t, printer{c, inW}), errR)
	}()
	rest := func() {
		within(drainTime, read)
		_ = errR.Close()
		<-read
	}
	return &running{in: inW, out: outR, stderr: t, pid: ch.PID(), marks: ch.marks, exited: ch.ended, how: ch.how, stop: ch.stop, rest: rest}, nil
}

// printer passes a program's standard error on to Config.Printed.
type printer struct {
	c  *Client
	in io.Writer // input of the program; identifies the program
}

// Write implements [io.Writer]. It never fails.
func (w printer) Write(b []byte) (int, error) {
	if w.c.cfg.Printed == nil {
		return len(b), nil
	}
	var tasks []string
	w.c.mu.Lock()
	for _, s := range w.c.sessions {
		if s.turn != nil && s.proc != nil && s.proc.run.in == w.in {
			tasks = append(tasks, s.turn.prompt.Task)
		}
	}
	w.c.mu.Unlock()
	for _, id := range tasks {
		w.c.cfg.Printed(id, 2, b)
	}
	return len(b), nil
}

// process is a running agent.
type process struct {
	c        *Client
	run      *running
	instance string // value of procs.InstanceVariable in its environment; see Client.instance
	conn     *conn
	init     sdk.InitializeResponse // set before the process is shared

	ending  chan struct{} // closed by the method "end"
	endOnce sync.Once
	reason  error         // reason passed to the method "end"; set before the channel "ending" is closed
	dead    chan struct{} // closed when the process and everything that it started have ended
	why     error         // why the process ended; set before the channel "dead" is closed

	// Client.mu guards the fields below. A process is retired if one of its turns does not stop. A
	// retired process does not get new turns. It is terminated when its only remaining turns are
	// turns that do not stop.
	turns   map[*turn]struct{}
	stuck   int // number of turns that do not stop
	retired bool
}

// errSlowStart is the cancellation cause of a start's context if the start takes too long.
var errSlowStart = errors.New("it took too long")

// startProcess starts the program and performs the protocol's handshake.
func (c *Client) startProcess(ctx context.Context, instance string) (*process, error) {
	run, err := c.launch(instance)
	if err != nil {
		return nil, err
	}
	p := &process{c: c, run: run, instance: instance, turns: map[*turn]struct{}{}, ending: make(chan struct{}), dead: make(chan struct{})}
	p.conn = newConn(run.in, handlers{request: p.request, notify: p.update, noise: p.noise, told: p.told})
	c.mu.Lock()
	c.all[p] = struct{}{}
	if c.closed {
		p.end(errClosed)
	}
	c.mu.Unlock()
	c.wg.Go(p.supervise)
	if err := p.handshake(ctx); err != nil {
		err = p.failed(ctx, err)
		p.end(err)
		<-p.dead
		return nil, err
	}
	return p, nil
}

// The method "end" makes the method "supervise" terminate the process, and returns immediately. If it is
// called again, the first reason is kept.
func (p *process) end(reason error) {
	p.endOnce.Do(func() {
		p.reason = reason
		close(p.ending)
	})
}

// isEnding reports whether the method "end" was called.
func (p *process) isEnding() bool {
	select {
	case <-p.ending:
		return true
	default:
		return false
	}
}

// usable reports whether the connection works and the process is not being terminated.
func (p *process) usable() bool { return !p.isEnding() && p.conn.ended() == nil }

// supervise runs the connection. It terminates the process when the method "end" is called, when
// the program exits, or when the connection ends. It returns when the process and everything
// that it started have ended.
func (p *process) supervise() {
	served := make(chan struct{})
	go func() {
		defer close(served)
		p.conn.serve(p.run.out)
	}()
	select {
	case <-p.ending:
	case <-p.run.exited:
	case <-p.conn.ctx.Done():
		if errors.Is(p.conn.ended(), errOutputEnded) {
			// The output often ends just before the program exits. Thanks to this wait, the error
			// can state how the program ended.
			within(drainTime, p.run.exited)
		}
	}
	p.conn.out.close()
	p.run.stop(p.c.cfg.CloseGrace)
	within(drainTime, served)
	_ = p.run.out.Close()
	<-served
	p.run.rest()
	p.gone()
}

// The function "within" waits until the channel "done" is closed, but no longer than d.
func within(d time.Duration, done <-chan struct{}) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}

// The method "gone" removes the ended process from the client.
func (p *process) gone() {
	p.end(nil) // later calls to the method "end" cannot change the reason
	p.why = p.cause()
	c := p.c
	c.mu.Lock()
	delete(c.all, p)
	if c.proc[p.instance] == p {
		delete(c.proc, p.instance)
	}
	for _, s := range c.sessions {
		if s.proc == p {
			s.proc, s.lost = nil, p.why
		}
	}
	c.mu.Unlock()
	close(p.dead)
	if p.reason == nil {
		c.cfg.Logger.Warn("acp: the agent process has ended", "program", c.cfg.Command[0], "how", p.run.how())
	}
}

// cause returns the reason why the process ended.
func (p *process) cause() error {
	if p.reason != nil {
		return p.reason
	}
	if err := p.conn.ended(); err != nil && !errors.Is(err, errOutputEnded) {
		return p.withStderr(err)
	}
	err := fmt.Errorf("it ended (%s)", p.run.how())
	if noise := p.conn.noise(); noise.Any() { // some programs write their errors to stdout
		err = fmt.Errorf("%w; %s", err, noise)
	}
	return p.withStderr(err)
}

// withStderr adds the end of the agent's stderr, if any, to the error.
func (p *process) withStderr(err error) error {
	if s := p.run.stderr.lastLines(shownStderr); s != "" {
		return fmt.Errorf("%w; the end of its stderr: %s", err, s)
	}
	return err
}

// handshake initializes the protocol and authenticates.
func (p *process) handshake(ctx context.Context) error {
	cfg := &p.c.cfg
	title := "bgagent"
	req := sdk.InitializeRequest{
		ProtocolVersion: sdk.ProtocolVersionNumber,
		ClientInfo:      &sdk.Implementation{Name: "bgagent", Title: &title, Version: "1"},
		ClientCapabilities: sdk.ClientCapabilities{
			Fs:       sdk.FileSystemCapabilities{ReadTextFile: cfg.Files >= FilesRead, WriteTextFile: cfg.Files >= FilesReadWrite},
			Terminal: cfg.Terminal != nil,
		},
	}
	version := ""
	seen := func(m received) { version = versionIn(m.Result) }
	if err := p.conn.callSeen(ctx, sdk.AgentMethodInitialize, req, &p.init, seen); err != nil {
		return during("initialize", err)
	}
	if info := p.init.AgentInfo; info != nil && info.Name != "" {
		name := fmt.Sprintf("%.80q", info.Name)
		p.c.told.Store(&name)
	}
	if err := checkVersion(version); err != nil {
		return err
	}
	if cfg.Auth == "" {
		return nil
	}
	methods := p.authMethods()
	if !slices.Contains(methods, cfg.Auth) {
		return fmt.Errorf("it has no authentication method %q; %s", cfg.Auth, thereAre(methods))
	}
	if err := p.conn.call(ctx, sdk.AgentMethodAuthenticate, sdk.AuthenticateRequest{MethodId: cfg.Auth}, nil); err != nil {
		return during(fmt.Sprintf("authenticate with the method %q", cfg.Auth), err)
	}
	return nil
}

// authMethods returns the ids of the agent's authentication methods.
func (p *process) authMethods() (ids []string) {
	for _, m := range p.init.AuthMethods {
		switch {
		case m.Agent != nil:
			ids = append(ids, m.Agent.Id)
		case m.EnvVar != nil:
			ids = append(ids, m.EnvVar.Id)
		case m.Terminal != nil:
			ids = append(ids, m.Terminal.Id)
		}
	}
	return ids
}

func thereAre(names []string) string {
	if len(names) == 0 {
		return "there are none: leave Config.Auth empty"
	}
	return "there are: " + strings.Join(names, ", ")
}

// The function "during" adds the failed request to the error.
func during(request string, err error) error {
	var re *sdk.RequestError
	switch {
	case errors.As(err, &re):
		return fmt.Errorf("it refused to %s: %w", request, &agentError{re})
	case errors.Is(err, errSlowStart):
		return fmt.Errorf("no answer to the request to %s: %w", request, err)
	}
	return err
}

// The method "failed" adds an explanation to the error of a request that starts the agent or sets
// up a session. If the process has ended, the result is the reason why it ended.
func (p *process) failed(ctx context.Context, err error) error {
	switch {
	case errors.Is(context.Cause(ctx), errClosed):
		return errClosed // after Close, every other error is a consequence of Close
	case p.conn.ended() != nil && ctx.Err() == nil:
		<-p.dead
		return p.why
	case errors.Is(err, errSlowStart):
		err = fmt.Errorf("%w (Config.StartTimeout is %v)", err, p.c.cfg.StartTimeout)
		if noise := p.conn.noise(); noise.Any() {
			err = fmt.Errorf("%w; it prints something other than JSON-RPC, which begins with %q", err, noise.First)
		}
		return p.withStderr(err)
	}
	var re *sdk.RequestError
	if errors.As(err, &re) && re.Code == codeAuth {
		if methods := p.authMethods(); len(methods) > 0 {
			return fmt.Errorf("it wants authentication; set Config.Auth (%s), or log in with the program itself: %w", thereAre(methods), err)
		}
		return fmt.Errorf("it wants authentication; log in with the program itself: %w", err)
	}
	return err
}
