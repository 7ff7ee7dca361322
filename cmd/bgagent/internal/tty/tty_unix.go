//go:build linux || darwin || dragonfly || freebsd || netbsd || openbsd

package tty

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Terminal is a silenced terminal. A nil Terminal is none. Its methods are safe for
// concurrent use.
type Terminal struct {
	file  *os.File
	keys  int            // to read typed keys from, because file may be open only for writing
	stops chan os.Signal // Ctrl-Z
	goes  chan os.Signal // the program continues after a stop
	ended chan struct{}

	mu       sync.Mutex
	before   *unix.Termios  // nil until the terminal was this program's for the first time
	guard    io.WriteCloser // nil where there is no guard
	restored bool
}

// Pauses between two looks at the terminal. The short one follows a look that found
// typed keys: a terminal takes a few KB at a time, and reacts to Ctrl-C only behind them.
const (
	lookPause = 50 * time.Millisecond
	readPause = time.Millisecond

	// mostReads bounds one look, so that nothing else waits for long.
	mostReads = 256
)

// show and hide switch what the table changes in a terminal besides its modes: the
// cursor, and the marks around pasted text.
const (
	show = "\x1b[?25h\x1b[?2004l"
	hide = "\x1b[?25l\x1b[?2004h"
)

// Silence silences the terminal once this program is in its foreground. It returns nil
// if the file is not a terminal. [Terminal.Restore] gives the terminal back. If this
// program ends without that, even if it is killed, a guard process does.
func Silence(file *os.File) *Terminal {
	t := &Terminal{file: file, stops: make(chan os.Signal, 1), goes: make(chan os.Signal, 1), ended: make(chan struct{})}
	if _, err := unix.IoctlGetTermios(t.fd(), ioctlGet); err != nil {
		return nil
	}
	var err error
	if t.keys, err = unix.Open("/dev/tty", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return nil
	}
	t.look()
	signal.Notify(t.stops, syscall.SIGTSTP)
	signal.Notify(t.goes, syscall.SIGCONT)
	go t.await()
	return t
}

func (t *Terminal) fd() int { return int(t.file.Fd()) }

// foreground reports whether this program is in the foreground of the terminal. The
// system stops programs that change it from the background.
func (t *Terminal) foreground() bool {
	group, err := unix.IoctlGetInt(t.fd(), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

// silent reports whether the modes are those that silence sets: no other program
// wants reads that do not wait.
func silent(m *unix.Termios) bool {
	return m.Lflag&(unix.ECHO|unix.ICANON) == 0 && m.Cc[unix.VMIN] == 0 && m.Cc[unix.VTIME] == 0
}

// silenceLocked silences the terminal where it is not silent. It is not when the
// program comes to the foreground: at first, or after it was stopped.
func (t *Terminal) silenceLocked() {
	now, err := unix.IoctlGetTermios(t.fd(), ioctlGet)
	if err != nil || silent(now) {
		return
	}
	if t.before == nil {
		t.before = now
		t.guard = startGuard(t.file, now)
	}
	quiet := *t.before
	quiet.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON
	quiet.Lflag |= unix.ISIG
	quiet.Cc[unix.VMIN], quiet.Cc[unix.VTIME] = 0, 0 // a read does not wait
	_ = unix.IoctlSetTermios(t.fd(), ioctlSet, &quiet)
}

// await looks at the terminal, and gives it back while Ctrl-Z stops this program.
func (t *Terminal) await() {
	defer unix.Close(t.keys)
	pause := lookPause
	for {
		select {
		case <-t.ended:
			return
		case <-t.stops:
			t.stop()
			pause = 0
		case <-time.After(pause):
			if pause = lookPause; t.look() {
				pause = readPause
			}
		}
	}
}

func (t *Terminal) stop() {
	t.mu.Lock()
	if !t.restored && t.before != nil && t.foreground() {
		_, _ = io.WriteString(t.file, show)
		_ = unix.IoctlSetTermios(t.fd(), ioctlSetFlush, t.before)
	}
	t.mu.Unlock()
	select { // of an earlier stop
	case <-t.goes:
	default:
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
	select { // the system may stop this program a little later
	case <-t.goes:
	case <-t.ended:
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.restored && t.foreground() {
		_, _ = io.WriteString(t.file, hide)
	}
}

// look throws away what was typed, and reports whether there was anything: a terminal
// with too much of it hears no Ctrl-C. It reads rather than flushes. A flush also drops
// what the terminal has not looked at yet, and with it the key that should have made a
// signal.
func (t *Terminal) look() (typed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.restored || !t.foreground() {
		return false
	}
	t.silenceLocked()
	buf := make([]byte, 4096)
	for range mostReads {
		if n, err := unix.Read(t.keys, buf); n > 0 {
			typed = true
		} else if err != unix.EINTR {
			break
		}
	}
	return typed
}

// Restore gives the terminal back as it was. It may be called again.
func (t *Terminal) Restore() {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.restored {
		return
	}
	t.restored = true
	signal.Stop(t.stops)
	signal.Stop(t.goes)
	close(t.ended)
	if t.before != nil && t.foreground() {
		_ = unix.IoctlSetTermios(t.fd(), ioctlSetFlush, t.before)
	}
	if t.guard != nil {
		_, _ = t.guard.Write([]byte{restoredMark})
		_ = t.guard.Close()
	}
}

// restoredMark tells the guard that there is nothing to do.
const restoredMark = 'k'

// startGuard starts this program once more, in a session of its own that no key or
// signal of the terminal reaches. It returns nil if that fails.
func startGuard(file *os.File, before *unix.Termios) io.WriteCloser {
	self, err := os.Executable()
	if err != nil {
		return nil
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil
	}
	defer r.Close()
	cmd := exec.Command(self, GuardArgument)
	cmd.Stdin, cmd.Stdout = r, file
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		_ = w.Close()
		return nil
	}
	go func() { _ = cmd.Wait() }()
	if err := binary.Write(w, binary.NativeEndian, before); err != nil {
		_ = w.Close()
		return nil
	}
	return w
}

// Guard is the guard process. It waits for the end of the program that draws, and
// gives the terminal back if that program did not. It leaves a terminal alone that is
// no longer silenced, because somebody else has it by now.
func Guard() {
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM, syscall.SIGTTOU)
	told, _ := io.ReadAll(os.Stdin)
	var before unix.Termios
	size := binary.Size(before)
	if len(told) != size { // it was restored, or never changed
		return
	}
	if binary.Read(bytes.NewReader(told), binary.NativeEndian, &before) != nil {
		return
	}
	fd := int(os.Stdout.Fd())
	if now, err := unix.IoctlGetTermios(fd, ioctlGet); err != nil || !silent(now) {
		return
	}
	_ = unix.IoctlSetTermios(fd, ioctlSetFlush, &before)
	_, _ = io.WriteString(os.Stdout, show+"\r\n")
}
