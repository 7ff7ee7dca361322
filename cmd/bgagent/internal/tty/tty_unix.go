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

	"golang.org/x/sys/unix"
)

// Terminal is a silenced terminal. A nil Terminal is none. Its methods are safe for
// concurrent use.
type Terminal struct {
	file  *os.File
	keys  int            // to read typed keys from, because file may be open only for writing
	guard io.WriteCloser // nil if there is no guard
	stops chan os.Signal
	ended chan struct{}

	mu       sync.Mutex
	before   *unix.Termios
	restored bool
}

// Silence silences the terminal. It returns nil if the file is not a terminal, or if
// this program is not in its foreground. [Terminal.Restore] gives the terminal back.
// If this program ends without that, even if it is killed, a guard process does.
func Silence(file *os.File) *Terminal {
	t := &Terminal{file: file, stops: make(chan os.Signal, 1), ended: make(chan struct{})}
	var err error
	if t.before, err = unix.IoctlGetTermios(t.fd(), ioctlGet); err != nil || !t.foreground() {
		return nil
	}
	if t.keys, err = unix.Open("/dev/tty", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return nil
	}
	t.guard = startGuard(file, t.before)
	t.silence()
	signal.Notify(t.stops, syscall.SIGTSTP)
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

func (t *Terminal) silence() {
	quiet := *t.before
	quiet.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON
	quiet.Lflag |= unix.ISIG
	quiet.Cc[unix.VMIN], quiet.Cc[unix.VTIME] = 0, 0 // a read does not wait
	_ = unix.IoctlSetTermios(t.fd(), ioctlSet, &quiet)
}

// await gives the terminal back while Ctrl-Z stops this program.
func (t *Terminal) await() {
	for {
		select {
		case <-t.ended:
			return
		case <-t.stops:
		}
		t.mu.Lock()
		if !t.restored && t.foreground() {
			_ = unix.IoctlSetTermios(t.fd(), ioctlSetFlush, t.before)
		}
		t.mu.Unlock()
		_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
		t.mu.Lock()
		if !t.restored && t.foreground() {
			t.silence()
		}
		t.mu.Unlock()
	}
}

// Drain discards what was typed, because a terminal that holds too much of it does
// not react to Ctrl-C. It reads rather than flushes. A flush also drops what the
// terminal has not looked at yet, and with it the key that should make a signal.
func (t *Terminal) Drain() {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	buf := make([]byte, 4096)
	for !t.restored && t.foreground() {
		if n, err := unix.Read(t.keys, buf); n <= 0 && err != unix.EINTR {
			return
		}
	}
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
	close(t.ended)
	if t.foreground() {
		_ = unix.IoctlSetTermios(t.fd(), ioctlSetFlush, t.before)
	}
	_ = unix.Close(t.keys)
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
// gives the terminal back if that program did not.
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
	_ = unix.IoctlSetTermios(fd, ioctlSetFlush, &before)
	_, _ = io.WriteString(os.Stdout, "\x1b[?25h\r\n")
}
