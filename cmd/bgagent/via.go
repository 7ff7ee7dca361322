package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/bgagent/bgagent/cmd/bgagent/internal/bridge"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/fleet"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/settings"
	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// viaFlags make "bgagent mcp" a bridge to a "bgagent serve".
type viaFlags struct {
	Via       string `placeholder:"URL" help:"Use the bgagent serve at this address, such as http://127.0.0.1:8321, instead of running tasks here."`
	TokenFile string `type:"path" placeholder:"FILE" help:"With --via: the file with the server's token. It must be readable only by you."`
}

// The method "bridge" passes lines from standard input to the server, and from the server to standard output.
// It ends when the host program closes its output, when a signal arrives, or when the server can no longer be
// used.
func (f viaFlags) bridge(all *cli, stop stops) error {
	turn, err := turnAround()
	if err != nil {
		return err
	}
	at, err := bridge.ParseAddress(f.Via)
	if err != nil {
		return &exitError{exitInput, fmt.Errorf("--via %w", err)}
	}
	token, err := untilStopped(stop.soft, f.token)
	if err != nil {
		return unlessStopped(stop.soft, &exitError{exitInput, err})
	}
	narrow, err := projectNarrow(all.Config)
	if err != nil {
		return &exitError{exitInput, err}
	}
	dir, err := filepath.Abs(".")
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir) // the project is the same, no matter which path was used to enter it
	}
	if err != nil {
		return err
	}
	id, err := all.bridgeID()
	if err != nil {
		return &exitError{exitInput, err}
	}
	if err := at.Reach(stop.soft); err != nil {
		return unlessStopped(stop.soft, f.gone(err))
	}
	in := bufio.NewReaderSize(os.Stdin, 64<<10)
	first, err := untilStopped(stop.soft, func() ([]byte, error) { return firstLine(in) })
	if err != nil {
		return unlessStopped(stop.soft, err)
	}
	conn, err := at.Connect(stop.soft, token, bridge.Hello{Key: bridge.KeyOf(id, dir, programOf(first)), Directory: dir, Narrow: narrow, Turn: turn})
	if err != nil {
		return unlessStopped(stop.soft, f.gone(err))
	}
	return f.pass(stop.soft, conn, io.MultiReader(bytes.NewReader(first), in), os.Stdout)
}

// turnAround returns the mark of the turn that this program is running in, or "" if there is
// none. The server knows the turn's task, and thus its depth.
func turnAround() (string, error) {
	depth, err := fleet.Depth()
	if err != nil {
		return "", &exitError{exitInput, err}
	}
	turn := fleet.Turn()
	if depth > 0 && turn == "" {
		return "", &exitError{exitInput, errors.New("this command is inside a turn of a task that is not known, and a bridge cannot launch tasks for it")}
	}
	return turn, nil
}

// bridgeLeaveTime is how long the server may take to end the connection after a signal.
const bridgeLeaveTime = 2 * time.Second

// bridgeAnswerTime is the maximum time that the bridge waits for the last answers after the end of its input.
// The server normally ends the connection after a second, but it might hang.
const bridgeAnswerTime = 10 * time.Second

// bridgeWriteTime is the maximum time that a write to the server can take. A server reads immediately unless
// it hangs, for example because it was stopped with SIGSTOP.
const bridgeWriteTime = 30 * time.Second

// bridgeConn is the connection of a bridge.
type bridgeConn interface {
	net.Conn
	CloseWrite() error
}

// The method "pass" copies data between the streams in both directions.
func (f viaFlags) pass(ctx context.Context, conn bridgeConn, in io.Reader, host io.Writer) error {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() {
		// The bridge gives the server some time to end the connection. Before the server does that, it makes
		// the scope available to the next bridge.
		_ = conn.SetReadDeadline(time.Now().Add(bridgeLeaveTime))
		_ = conn.CloseWrite()
	})()
	ended := make(chan struct{}) // closed when the host program has ended its input
	hangs := make(chan struct{}) // closed when the server does not read
	go func() {
		switch _, err := io.Copy(boundedWriter{conn}, in); {
		case err == nil:
			close(ended)
			if ctx.Err() == nil {
				_ = conn.SetReadDeadline(time.Now().Add(bridgeAnswerTime))
			}
			_ = conn.CloseWrite()
		case errors.Is(err, os.ErrDeadlineExceeded):
			close(hangs)
			_ = conn.Close()
		}
	}()
	out := &outputWriter{w: host}
	_, _ = io.Copy(out, conn) // it does not matter whether the server ended the connection or the connection broke
	select {
	case <-ctx.Done(): // a signal asked the bridge to stop
		return nil
	case <-ended:
		return out.err
	case <-hangs:
		return f.silent(fmt.Errorf("it has read nothing for %v", bridgeWriteTime))
	default:
	}
	if out.err != nil {
		return fmt.Errorf("writing to the host program: %w", out.err)
	}
	return f.gone(errors.New("it has ended the connection"))
}

// boundedWriter limits the duration of each write.
type boundedWriter struct{ conn net.Conn }

// Write implements io.Writer.
func (w boundedWriter) Write(p []byte) (int, error) {
	if err := w.conn.SetWriteDeadline(time.Now().Add(bridgeWriteTime)); err != nil {
		return 0, err
	}
	return w.conn.Write(p)
}

// outputWriter keeps the output's error separate from connection errors.
type outputWriter struct {
	w   io.Writer
	err error
}

// Write implements io.Writer.
func (o *outputWriter) Write(p []byte) (int, error) {
	n, err := o.w.Write(p)
	o.err = err
	return n, err
}

// The method "gone" returns a one-sentence error for a server that cannot be used. The bridge ends with this
// error. It runs no tasks without the server, because the server's limits would not apply to them.
func (f viaFlags) gone(err error) error {
	var refused *bridge.RefusedError
	if errors.As(err, &refused) {
		return &exitError{exitInput, fmt.Errorf("the bgagent serve at %s cannot be used: %w", f.Via, refused)}
	}
	if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
		return f.silent(err)
	}
	return &exitError{exitInput, fmt.Errorf("there is no bgagent serve at %s (%w); start it, and start this program again", f.Via, err)}
}

// The method "silent" returns the error for a server that hangs.
func (f viaFlags) silent(err error) error {
	return &exitError{exitInput, fmt.Errorf("the bgagent serve at %s does not respond (%w); if it hangs, end it and start it again, and start this program again", f.Via, err)}
}

// unlessStopped returns the error, or nil if a signal asked this program to stop.
func unlessStopped(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// The method "token" reads the file with the token.
func (f viaFlags) token() (string, error) {
	if f.TokenFile == "" {
		return "", nil
	}
	if err := private(f.TokenFile); err != nil {
		return "", fmt.Errorf("--token-file %s: %w", f.TokenFile, err)
	}
	var s secrets
	token, err := s.read("--token-file "+f.TokenFile, "@"+f.TokenFile, "token")
	if err == nil && strings.ContainsAny(token, " \t\r\n") {
		err = fmt.Errorf("--token-file %s: the token contains a space, which a header cannot carry", f.TokenFile)
	}
	return token, err
}

// projectNarrow returns the restrictions that the project's file adds to the server's settings. The argument
// is the file that the command line names, or "". The user's own file is ignored, because it applies to
// servers and not to bridges.
func projectNarrow(file string) (n bridge.Narrow, err error) {
	if file == "" {
		if file, err = settings.FindProject("."); file == "" || err != nil {
			return n, err
		}
	}
	p, err := settings.Narrow(file)
	if err != nil {
		return n, err
	}
	if len(p.Unused) > 0 {
		warn("%s: the limits of the server apply, and these keys of background_task have no effect: %s", file, strings.Join(p.Unused, ", "))
	}
	return bridge.Narrow{NoAgents: p.NoAgents, Without: p.Removed, Rules: p.Rules, TaskBudget: p.TaskBudget, TreeBudget: p.TreeBudget}, nil
}

// bridgeID returns the id that is part of the key of each of this user's bridges. If no tasks are kept, each
// bridge has its own id.
func (f stateFlags) bridgeID() (string, error) {
	if !f.keeps() {
		return rand.Text(), nil
	}
	folder, err := f.folder()
	if err != nil {
		return "", err
	}
	base := filepath.Dir(folder.Dir())
	if err := os.MkdirAll(base, 0o700); err != nil {
		return "", err
	}
	return bridge.ID(base)
}

// firstLine returns the first line that is not blank, including its newline, if any. If no such
// line is left, the result is blank.
func firstLine(in *bufio.Reader) (line []byte, err error) {
	for {
		part, err := in.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case errors.Is(err, bufio.ErrBufferFull) && len(line) < maxLine:
			continue
		case errors.Is(err, bufio.ErrBufferFull), errors.Is(err, io.EOF):
			return line, nil
		case err != nil || len(bytes.TrimSpace(line)) > 0:
			return line, err
		}
		line = line[:0]
	}
}

// programOf returns the host program's name from the program's first message. If the message does not contain
// a name, the result is "unknown".
func programOf(line []byte) string {
	type info struct{ Name string }
	var first struct {
		Params struct {
			ClientInfo info
			Meta       map[string]json.RawMessage `json:"_meta"`
		}
	}
	_ = json.Unmarshal(line, &first) // the server answers an invalid message
	name := first.Params.ClientInfo.Name
	if name == "" {
		var meta info
		_ = json.Unmarshal(first.Params.Meta[mcp.MetaKeyClientInfo], &meta)
		name = meta.Name
	}
	if name == "" {
		return "unknown"
	}
	return name
}
