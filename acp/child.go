package acp

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bgagent/bgagent/internal/procs"
)

// drainTime limits how long a program's output is read after the program has ended. Reading takes
// that long only if another process keeps the output open.
const drainTime = time.Second

// baseEnv names the host's environment variables that every program gets. Programs need these
// variables, and the variables contain no secrets. A name that ends with * stands for all names
// with that prefix.
var baseEnv = []string{
	"PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "TMPDIR", "TZ", "LANG", "LANGUAGE", "LC_*", "XDG_*",
	"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy",
	"SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS",
	// Windows programs do not start without some of these variables.
	"SystemRoot", "SystemDrive", "COMSPEC", "PATHEXT", "TEMP", "TMP", "USERPROFILE", "USERNAME", "APPDATA", "LOCALAPPDATA", "ProgramData", "ProgramFiles*",
}

// environment returns the environment of programs: the host's variables whose names match an entry
// in baseEnv or in "more", plus the variables that entries in "more" define. If a variable is set
// twice, the last value wins.
func environment(host, more []string) []string {
	values := map[string]string{}
	for _, e := range host {
		name, value, ok := strings.Cut(e, "=")
		if ok && name != "" && !procs.IsMark(name) && (lets(baseEnv, name) || lets(more, name)) {
			values[name] = value
		}
	}
	for _, e := range more {
		if name, value, ok := strings.Cut(e, "="); ok {
			values[name] = value
		}
	}
	env := make([]string, 0, len(values))
	for name, value := range values {
		env = append(env, name+"="+value)
	}
	slices.Sort(env)
	return env
}

// The function "lets" reports whether the name matches one of the names in the list. A * at the
// end of a listed name stands for any characters.
func lets(names []string, name string) bool {
	return slices.ContainsFunc(names, func(n string) bool {
		prefix, all := strings.CutSuffix(n, "*")
		return n == name || all && strings.HasPrefix(name, prefix)
	})
}

// child is a running program. It leads its own operating system session.
type child struct {
	*procs.Program
	marks procs.Marks
	ended chan struct{} // closed when the program and everything that it started have ended
	left  error         // names the processes that could not be terminated; set before the channel "ended" is closed
}

// startChild starts a program. A nil file in the spec stands for the null device.
func startChild(spec procs.Spec) (*child, error) {
	if spec.Dir != "" {
		if err := isDirectory(spec.Dir); err != nil {
			return nil, err
		}
	}
	p, err := procs.Start(spec)
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return nil, fmt.Errorf("there is no program %q in PATH; install it, or give its full path: %w", spec.Command[0], err)
	case err != nil:
		return nil, err
	}
	c := &child{Program: p, marks: spec.Marks, ended: make(chan struct{})}
	go func() {
		defer close(c.ended)
		c.left = p.Finish(0)
	}()
	return c, nil
}

// isDirectory returns an error if dir is not a usable working directory.
func isDirectory(dir string) error {
	info, err := os.Stat(dir)
	switch {
	case err != nil:
		return fmt.Errorf("the working directory %s cannot be used; create it, or name another: %w", dir, err)
	case !info.IsDir():
		return fmt.Errorf("the working directory %s is a file; name a directory", dir)
	}
	return nil
}

// The method "stop" asks the program to exit, and kills it after the grace period. It returns when
// everything that the program started has ended.
func (c *child) stop(grace time.Duration) {
	c.Stop(nil, grace)
	<-c.ended
}

// The method "how" describes in words how the program ended.
func (c *child) how() string {
	how := "unknown"
	if s := c.State(); s != nil {
		how = s.String()
	}
	if c.left != nil {
		how += "; " + c.left.Error()
	}
	return how
}

// tail keeps the last max bytes that are written to it.
type tail struct {
	max int

	mu  sync.Mutex
	buf []byte
	cut bool
}

// Write implements [io.Writer]. It never fails.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(p)
	if over := len(p) - t.max; over > 0 {
		p, t.cut, t.buf = p[over:], true, t.buf[:0]
	}
	if over := len(t.buf) + len(p) - t.max; over > 0 {
		t.buf, t.cut = append(t.buf[:0], t.buf[over:]...), true
	}
	t.buf = append(t.buf, p...)
	return n, nil
}

// text returns the kept text, and whether the text before it was dropped. The kept text
// begins with a whole character.
func (t *tail) text() (string, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	b := t.buf
	for i := 0; t.cut && i < 3 && len(b) > 0 && b[0]&0xc0 == 0x80; i++ {
		b = b[1:]
	}
	return strings.ToValidUTF8(string(b), "\uFFFD"), t.cut
}

// lastLines returns at most the given number of bytes from the end of the kept text, as one line.
func (t *tail) lastLines(max int) string {
	s, _ := t.text()
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > max {
		s = "…" + strings.ToValidUTF8(s[len(s)-max:], "")
	}
	return s
}

// copyTail copies r to t until r ends or is closed.
func copyTail(t io.Writer, r io.Reader) { _, _ = io.Copy(t, r) }
