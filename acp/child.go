package acp

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/bgagent/bgagent/internal/procs"
	"github.com/google/uuid"
)

// childVar is set in the environment of every program that is started here, and
// so in that of whatever those start: it finds children that have left the
// process group, as the shells of agents do, or that outlived their parent. It is
// the variable of package command, so that what runs inside of something that
// the other has started is found as well.
const childVar = procs.TurnVariable

// depthVar tells a program how deep in a chain of agents it works, so that one
// which starts a manager of its own does not begin at the top again. It is the
// variable of package command. One program has many sessions, some of which may
// be deeper: each further program counts all the same, so that no chain is
// endless.
const depthVar = procs.DepthVariable

// depth is that of the programs that are started here.
func depth() int {
	outer, err := strconv.Atoi(os.Getenv(depthVar))
	if err != nil || outer < 0 {
		outer = 0
	}
	return outer + 1
}

// drainTime is how long after a program's end its output is still read. It is
// only used up when something has kept the output open.
const drainTime = time.Second

// baseEnv is what every program gets of the host's environment, so far as it is
// set: what programs cannot do without, and nothing that is a secret. A name that
// ends with * stands for all that begin so.
var baseEnv = []string{
	"PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "TMPDIR", "TZ", "LANG", "LANGUAGE", "LC_*", "XDG_*",
	"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy",
	"SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS",
	// Windows programs do not start without some of these.
	"SystemRoot", "SystemDrive", "COMSPEC", "PATHEXT", "TEMP", "TMP", "USERPROFILE", "USERNAME", "APPDATA", "LOCALAPPDATA", "ProgramData", "ProgramFiles*",
}

// environment returns what programs get of the host's environment: the variables
// of baseEnv and those that more lets through, and then those that it sets. The
// last one counts.
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

// lets reports whether one of the names, which may end with *, is the given one.
func lets(names []string, name string) bool {
	return slices.ContainsFunc(names, func(n string) bool {
		prefix, all := strings.CutSuffix(n, "*")
		return n == name || all && strings.HasPrefix(name, prefix)
	})
}

// child is a program that runs, the first of a process group.
type child struct {
	cmd    *exec.Cmd
	mark   string        // value of childVar
	exited chan struct{} // closed when it has ended, with all that it had started

	mu     sync.Mutex
	reaped bool // its id, and that of its group, may be somebody else's
}

// newMark returns a value of childVar that is found by looking for those that
// begin with the given one.
func newMark(above string) string {
	if above != "" {
		above += "/"
	}
	return above + uuid.NewString()
}

// startChild starts a program in a process group of its own. The files that are
// nil are /dev/null.
func startChild(argv []string, dir string, env []string, mark string, stdin, stdout, stderr *os.File) (*child, error) {
	if dir != "" {
		if err := isDirectory(dir); err != nil {
			return nil, err
		}
	}
	c := &child{cmd: exec.Command(argv[0], argv[1:]...), mark: mark, exited: make(chan struct{})}
	c.cmd.Dir, c.cmd.Env = dir, append(slices.Clone(env), childVar+"="+mark, depthVar+"="+strconv.Itoa(depth()))
	// A nil *os.File in an interface would not be nil.
	if stdin != nil {
		c.cmd.Stdin = stdin
	}
	if stdout != nil {
		c.cmd.Stdout = stdout
	}
	if stderr != nil {
		c.cmd.Stderr = stderr
	}
	ownGroup(c.cmd)
	switch err := c.cmd.Start(); {
	case errors.Is(err, exec.ErrNotFound):
		return nil, fmt.Errorf("there is no program %q in PATH; install it, or give its full path: %w", argv[0], err)
	case err != nil:
		return nil, err
	}
	go func() {
		defer close(c.exited)
		c.reap()
		killMarked(c.mark)
	}()
	return c, nil
}

// isDirectory returns an error that says what is wrong with a working directory.
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

// stop ends the program: first politely, after the grace time by force. It
// returns when nothing of it runs.
func (c *child) stop(grace time.Duration) {
	select {
	case <-c.exited:
		return
	default:
	}
	c.signal(terminateGroup)
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-c.exited:
	case <-timer.C:
		c.kill()
	}
}

// kill ends the program by force. It returns when nothing of it runs.
func (c *child) kill() {
	select {
	case <-c.exited:
	default:
		c.signal(killGroup)
		<-c.exited
	}
}

// signal signals the program's group, if it is still its own.
func (c *child) signal(send func(*os.Process)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.reaped {
		send(c.cmd.Process)
	}
}

// over notes that the program's id belongs to it no more.
func (c *child) over() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reaped = true
}

// how says how the program ended.
func (c *child) how() string {
	if s := c.cmd.ProcessState; s != nil {
		return s.String()
	}
	return "unknown"
}

// tail keeps the end of what is written to it.
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

// text returns what has been kept, from the beginning of a character on, and
// whether something before it is missing.
func (t *tail) text() (string, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	b := t.buf
	for i := 0; t.cut && i < 3 && len(b) > 0 && b[0]&0xc0 == 0x80; i++ {
		b = b[1:]
	}
	return strings.ToValidUTF8(string(b), "\uFFFD"), t.cut
}

// lastLines returns the end of the text, at most max bytes, in one line.
func (t *tail) lastLines(max int) string {
	s, _ := t.text()
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > max {
		s = "…" + strings.ToValidUTF8(s[len(s)-max:], "")
	}
	return s
}

// copyTail reads into the tail until the end, or until the file is closed.
func copyTail(t *tail, r io.Reader) { _, _ = io.Copy(t, r) }
