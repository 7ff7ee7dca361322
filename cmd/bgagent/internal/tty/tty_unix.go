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

// Terminal is a silenced terminal. The methods of a nil Terminal do nothing. All
// methods are safe for concurrent use.
type Terminal struct {
	file  *os.File
	keys  int            // descriptor for reading typed keys, because the field "file" might be open only for writing
	stops chan os.Signal // Ctrl-Z was typed
	goes  chan os.Signal // SIGCONT: the program was resumed
	ended chan struct{}

	mu       sync.Mutex
	before   *unix.Termios  // modes to restore; nil until the terminal is first silenced
	guard    io.WriteCloser // nil if there is no guard
	restored bool
}

// Typed keys are read every lookPause. After a read that found keys, the next read follows after readPause,
// because a terminal buffers only a few KB and does not react to Ctrl-C while its buffer is full.
const (
	lookPause = 50 * time.Millisecond
	readPause = time.Millisecond

	// mostReads is the maximum number of consecutive reads. With this limit, signals are handled soon.
	mostReads = 256
)

// The table hides the cursor and switches on bracketed paste. The constant "hide" contains the escape
// sequences for both, and the constant "show" contains the sequences that reverse them.
const (
	show = "\x1b[?25h\x1b[?2004l"
	hide = "\x1b[?25l\x1b[?2004h"
)

// Silence silences the terminal as soon as this program is in its foreground. It
// returns nil if the file is not a terminal. [Terminal.Restore] restores the
// terminal. If this program ends without calling Restore, even if it is killed, a
// guard process restores the terminal.
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

// The method "foreground" reports whether this program is in the foreground of the terminal. A program that
// changes the terminal from the background is stopped by the system.
func (t *Terminal) foreground() bool {
	group, err := unix.IoctlGetInt(t.fd(), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

// The function "silent" reports whether the modes are those that silenceLocked sets. No other program is
// expected to set these modes, because with them, a read does not wait for keys.
func silent(m *unix.Termios) bool {
	return m.Lflag&(unix.ECHO|unix.ICANON) == 0 && m.Cc[unix.VMIN] == 0 && m.Cc[unix.VTIME] == 0
}

// silenceLocked silences the terminal if it is not silent. The terminal is not silent when this program comes
// to the foreground, either for the first time or after a stop.
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
	quiet.Cc[unix.VMIN], quiet.Cc[unix.VTIME] = 0, 0 // a read does not wait for keys
	_ = unix.IoctlSetTermios(t.fd(), ioctlSet, &quiet)
}

// await discards typed keys until the channel "ended" is closed. While this program is
// stopped with Ctrl-Z, the terminal has its earlier modes.
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
	select { // drops the signal from an earlier stop
	case <-t.goes:
	default:
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
	select { // waits for the signal to continue, because the system might stop this program a little later
	case <-t.goes:
	case <-t.ended:
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.restored && t.foreground() {
		_, _ = io.WriteString(t.file, hide)
	}
}

// The method "look" discards typed keys and reports whether there were any. If a terminal's buffer is full,
// the terminal does not react to Ctrl-C. The keys are read instead of flushed, because a flush would also
// drop keys that the terminal has not processed yet, such as a key that causes a signal.
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

// Restore restores the terminal's original modes. It can be called more than once.
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

// restoredMark is sent to the guard when the terminal has been restored, so that the
// guard does nothing.
const restoredMark = 'k'

// startGuard starts this program as a guard process in its own session, so that signals from the
// terminal do not reach the guard. It returns the pipe to the guard, or nil if the start fails.
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

// Guard runs in the guard process. It waits until the program that draws the table has exited, and restores
// the terminal if that program has not done so. If the terminal is no longer silent, another program is using
// it, and Guard does nothing.
func Guard() {
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM, syscall.SIGTTOU)
	told, _ := io.ReadAll(os.Stdin)
	var before unix.Termios
	size := binary.Size(before)
	if len(told) != size { // the terminal has been restored, or was never changed
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
