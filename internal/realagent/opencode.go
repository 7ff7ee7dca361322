package realagent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"testing"
	"time"
)

// OpencodeOptions are the settings of an opencode server. With the zero value, the server
// has no password and runs in the world's work directory.
type OpencodeOptions struct {
	Password string   // password of the user "opencode" for Basic auth; "" means no password
	Dir      string   // working directory; "" means World.Dir
	Env      []string // variables (NAME=VALUE) that are added to the world's environment
}

// OpencodeServer is a running "opencode serve". Its methods must not be called
// concurrently.
type OpencodeServer struct {
	URL      string
	Password string

	w    *World
	t    testing.TB
	opts OpencodeOptions
	port int
	mark string // variable (NAME=VALUE) that identifies the server's processes
	log  string // path of the log file
	cmd  *exec.Cmd
	done chan struct{} // closed when the process ends
}

// ServeOpencode starts an opencode server in the world and returns when the server is healthy.
// At the end of the test, the server and all processes that it has started are terminated. If
// the test fails, the end of the server's log is shown.
func (w *World) ServeOpencode(t testing.TB) *OpencodeServer {
	t.Helper()
	return w.ServeOpencodeWith(t, OpencodeOptions{})
}

// ServeOpencodeWith is [World.ServeOpencode] with options.
func (w *World) ServeOpencodeWith(t testing.TB, opts OpencodeOptions) *OpencodeServer {
	t.Helper()
	if opts.Dir == "" {
		opts.Dir = w.Dir
	}
	w.servers++
	s := &OpencodeServer{Password: opts.Password, w: w, t: t, opts: opts,
		mark: fmt.Sprintf("BGAGENT_SERVER=%s-%d", w.mark, w.servers), log: w.path(fmt.Sprintf("opencode-%d.log", w.servers))}
	t.Cleanup(s.stop)
	var err error
	for range 3 { // another process can take the free port before the server does
		if s.port, err = freePort(); err != nil {
			break
		}
		s.URL = fmt.Sprintf("http://127.0.0.1:%d", s.port)
		if err = s.start(); err == nil {
			return s
		}
		s.Kill()
	}
	t.Fatalf("realagent: starting opencode serve: %v\n%s", err, s.Log())
	return nil
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// The method "start" starts the server and waits until it is healthy.
func (s *OpencodeServer) start() error {
	log, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	argv := s.w.Opencode("serve", "--hostname", "127.0.0.1", "--port", fmt.Sprint(s.port), "--print-logs")
	cmd := s.w.Command(context.Background(), argv...)
	cmd.Dir = s.opts.Dir
	cmd.Env = append(cmd.Env[:len(cmd.Env):len(cmd.Env)], s.mark)
	cmd.Env = append(cmd.Env, s.opts.Env...)
	if s.Password != "" {
		cmd.Env = append(cmd.Env, "OPENCODE_SERVER_PASSWORD="+s.Password)
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		cmd.Wait()
	}()
	s.cmd, s.done = cmd, done
	return s.healthy()
}

// The method "healthy" waits until the server is healthy. Each request has a short timeout, because
// a server that is still starting might never answer a request.
func (s *OpencodeServer) healthy() error {
	client := &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	var last error
	for end := time.Now().Add(3 * time.Minute); time.Now().Before(end); {
		if last = s.ask(client); last == nil {
			return nil
		}
		select {
		case <-s.done:
			return fmt.Errorf("the process ended: %v", s.cmd.ProcessState)
		case <-time.After(50 * time.Millisecond):
		}
	}
	return fmt.Errorf("not healthy after 3 minutes: %w", last)
}

func (s *OpencodeServer) ask(client *http.Client) error {
	req, err := http.NewRequest(http.MethodGet, s.URL+"/global/health", nil)
	if err != nil {
		return err
	}
	if s.Password != "" {
		req.SetBasicAuth("opencode", s.Password)
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && (resp.StatusCode != http.StatusOK || !bytes.Contains(body, []byte(`"healthy":true`))) {
		err = fmt.Errorf("GET /global/health: %s: %s", resp.Status, body)
	}
	return err
}

// Kill kills the server as kill -9 does, and then terminates all processes that the server has
// started. It returns when these processes have ended. If the server is not running, Kill does
// nothing.
func (s *OpencodeServer) Kill() {
	if s.cmd == nil {
		return
	}
	s.cmd.Process.Kill()
	<-s.done
	s.sweep()
}

// Restart starts the server again, on the same port and with its stored data. It returns
// when the server is healthy. If the server is running, Restart kills it first.
func (s *OpencodeServer) Restart() {
	s.t.Helper()
	s.Kill()
	if err := s.start(); err != nil {
		s.t.Fatalf("realagent: restarting opencode serve: %v\n%s", err, s.Log())
	}
}

// Log returns the last 8 KiB of the server's log.
func (s *OpencodeServer) Log() string {
	b, err := os.ReadFile(s.log)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err.Error()
	}
	const most = 8 << 10
	if len(b) > most {
		b = append([]byte("…"), b[len(b)-most:]...)
	}
	return string(b)
}

// The method "sweep" terminates the remaining processes that the server has started. It finds them
// by their environment, because commands started by tools run in their own process groups.
func (s *OpencodeServer) sweep() {
	untilGone(func() []process {
		left := processesWith(s.mark, "")
		for _, p := range left {
			p.kill()
		}
		return left
	})
}

// The method "stop" stops the server at the end of the test, and logs its output if the test has
// failed.
func (s *OpencodeServer) stop() {
	if s.cmd != nil {
		terminate(s.cmd.Process)
		select {
		case <-s.done:
		case <-time.After(10 * time.Second):
		}
		s.Kill()
	}
	if s.t.Failed() {
		s.t.Logf("the end of opencode's log:\n%s", s.Log())
	}
}
