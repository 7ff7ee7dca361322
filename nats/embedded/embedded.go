// Package embedded runs a NATS server with JetStream inside the calling process. It is meant for
// single machines and for tests.
//
//	server, err := embedded.Start(embedded.Options{Dir: "/var/lib/myprogram/nats"})
//	nc, err := nats.Connect("", server.Connection(), nats.MaxReconnects(-1))
//	store := bgnats.NewStore(nc, "tasks", bgnats.StoreOptions{Grace: -1})
//
// The server syncs each write to the disk before it answers. The package is a separate module, so
// that programs that connect to other servers do not link the server.
package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// Options contains the settings of a server.
type Options struct {
	// Dir is the folder for the server's files. It is required. If it does not exist, Start creates
	// it with mode 0700. The folder must be on a local file system.
	Dir string

	// Listen is the address, such as 127.0.0.1:4222, on which the server accepts connections from
	// other processes. These connections need no password and are not encrypted. If the port is 0,
	// the system chooses a port. If Listen is empty, only this process can connect.
	Listen string

	// Log receives the server's warnings and errors. If Log is nil, they are dropped.
	Log *slog.Logger
}

// Server is a running server. Its methods are safe for concurrent use.
type Server struct {
	s    *server.Server
	lock *os.File
}

// startWithin is the maximum time that the server may take to start after JetStream has read its files.
const startWithin = time.Minute

// lockName is the name of the lock file in the folder. The server that uses the folder holds the
// operating system's lock on this file.
const lockName = "bgagent.lock"

// Start starts a server and waits until it accepts connections. The caller must close the server. Start
// returns an error if another server uses the folder, even in another process.
func Start(o Options) (*Server, error) { return startWith(o, func(*server.Options) {}) }

// startWith is like Start, but also takes a function that changes the server's options.
func startWith(o Options, change func(*server.Options)) (*Server, error) {
	if o.Dir == "" {
		return nil, errors.New("embedded: Options.Dir must name the folder of the server's files")
	}
	options := &server.Options{
		ServerName: "bgagent", JetStream: true, StoreDir: o.Dir, SyncAlways: true, NoSigs: true, NoLog: true, DontListen: o.Listen == "",
	}
	if o.Listen != "" {
		host, port, err := hostPort(o.Listen)
		if err != nil {
			return nil, fmt.Errorf("embedded: Options.Listen must be an address such as 127.0.0.1:4222: %w", err)
		}
		options.Host, options.Port = host, port
	}
	change(options)
	lock, err := lockFolder(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("embedded: %w", err)
	}
	s, err := start(options, o.Log)
	if err != nil {
		return nil, fmt.Errorf("embedded: %w", errors.Join(err, lock.Close()))
	}
	return &Server{s, lock}, nil
}

func start(options *server.Options, log *slog.Logger) (*server.Server, error) {
	s, err := server.NewServer(options)
	if err != nil {
		return nil, err
	}
	l := &logger{to: log}
	s.SetLoggerV2(l, false, false, false)
	s.Start()
	err = nil
	switch {
	case !s.JetStreamEnabled():
		err = errors.New("the server does not start")
	case !s.ReadyForConnections(startWithin):
		err = fmt.Errorf("the server is not ready after %v", startWithin)
	}
	if err == nil {
		return s, nil
	}
	s.Shutdown()
	if why := l.fatal.Load(); why != nil {
		err = fmt.Errorf("%w: %s", err, *why)
	}
	return nil, err
}

// hostPort splits an address into host and port. The server uses the number -1 for a port that the
// system chooses.
func hostPort(address string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, err
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return "", 0, err
	}
	if port = int(n); port == 0 {
		port = server.RANDOM_PORT
	}
	return host, port, nil
}

// lockFolder creates the folder and takes its lock.
func lockFolder(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	taken, err := tryLock(f)
	if err == nil && !taken {
		err = errors.New("another server uses it")
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("the folder %s cannot be used: %w", dir, err)
	}
	return f, nil
}

// URL returns the address for clients in other processes, such as nats://127.0.0.1:4222. If the
// server does not accept such clients, URL returns "".
func (s *Server) URL() string {
	if s.s.Addr() == nil {
		return ""
	}
	return s.s.ClientURL()
}

// Connection returns the option that makes [nats.Connect] connect within the process. In this case, the
// address passed to Connect does not matter.
func (s *Server) Connection() nats.Option { return nats.InProcessServer(s) }

// InProcessConn returns a new connection within the process. It implements [nats.InProcessConnProvider].
func (s *Server) InProcessConn() (net.Conn, error) { return s.s.InProcessConn() }

// Close stops the server and waits until it has closed its files. Later calls do nothing.
func (s *Server) Close() error {
	s.s.Shutdown()
	s.s.WaitForShutdown()
	if err := s.lock.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("embedded: close: %w", err)
	}
	return nil
}

// logger passes the server's warnings and errors to a [slog.Logger].
type logger struct {
	to    *slog.Logger
	fatal atomic.Pointer[string] // the last error that prevented the start
}

func (l *logger) log(level slog.Level, format string, args []any) {
	if l.to != nil {
		l.to.Log(context.Background(), level, fmt.Sprintf(format, args...))
	}
}

func (l *logger) Warnf(format string, v ...any)  { l.log(slog.LevelWarn, format, v) }
func (l *logger) Errorf(format string, v ...any) { l.log(slog.LevelError, format, v) }
func (l *logger) Fatalf(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	l.fatal.Store(&text)
	l.log(slog.LevelError, format, v)
}
func (l *logger) Noticef(string, ...any) {}
func (l *logger) Debugf(string, ...any)  {}
func (l *logger) Tracef(string, ...any)  {}
