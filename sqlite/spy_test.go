package sqlite

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/ncruces/go-sqlite3/vfs"
)

// act is one change that SQLite makes to a file.
type act struct {
	what string // "write", "sync", "truncate" or "delete"
	file string // base name
	off  int64  // offset of a write, or the new size of a truncated file
	data []byte // data of a write; valid only during the call
}

// spy is a file system layer for SQLite. Prior to each change to a file, it calls the function "before". By
// default, it does not wait for the disk, because the tests decide what is left after the machine crashes.
type spy struct {
	name   string
	syncs  bool // the spy also waits for the disk
	mu     sync.Mutex
	before func(act) error // an error prevents the change; nil allows all changes
}

var spies atomic.Int64

// newSpy registers a spy. The spy is removed at the end of the test.
func newSpy(t interface{ Cleanup(func()) }, before func(act) error) *spy {
	s := &spy{name: fmt.Sprintf("spy-%d", spies.Add(1)), before: before}
	vfs.Register(s.name, s)
	t.Cleanup(func() { vfs.Unregister(s.name) })
	return s
}

// set replaces the function that is called before each change.
func (s *spy) set(before func(act) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = before
}

func (s *spy) ask(a act) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.before == nil {
		return nil
	}
	return s.before(a)
}

func (s *spy) system() vfs.VFSFilename { return vfs.Find("").(vfs.VFSFilename) }

func (s *spy) Open(name string, flags vfs.OpenFlag) (vfs.File, vfs.OpenFlag, error) {
	return s.system().Open(name, flags)
}

func (s *spy) OpenFilename(name *vfs.Filename, flags vfs.OpenFlag) (vfs.File, vfs.OpenFlag, error) {
	f, flags, err := s.system().OpenFilename(name, flags)
	if err != nil {
		return nil, flags, err
	}
	return &spyFile{File: f, s: s, name: filepath.Base(name.String())}, flags, nil
}

func (s *spy) Delete(name string, syncDir bool) error {
	if err := s.ask(act{what: "delete", file: filepath.Base(name)}); err != nil {
		return err
	}
	return s.system().Delete(name, false)
}

func (s *spy) Access(name string, flags vfs.AccessFlag) (bool, error) {
	return s.system().Access(name, flags)
}
func (s *spy) FullPathname(name string) (string, error) { return s.system().FullPathname(name) }

type spyFile struct {
	vfs.File
	s    *spy
	name string
}

func (f *spyFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.s.ask(act{what: "write", file: f.name, off: off, data: p}); err != nil {
		return 0, err
	}
	return f.File.WriteAt(p, off)
}

func (f *spyFile) Truncate(size int64) error {
	if err := f.s.ask(act{what: "truncate", file: f.name, off: size}); err != nil {
		return err
	}
	return f.File.Truncate(size)
}

func (f *spyFile) Sync(flag vfs.SyncFlag) error {
	err := f.s.ask(act{what: "sync", file: f.name})
	if err == nil && f.s.syncs {
		err = f.File.Sync(flag)
	}
	return err
}

func (f *spyFile) LockState() vfs.LockLevel { return f.File.(vfs.FileLockState).LockState() }

func (f *spyFile) SharedMemory() vfs.SharedMemory {
	return f.File.(vfs.FileSharedMemory).SharedMemory()
}

// folder returns the path of a folder that a store accepts.
func folder(t interface{ TempDir() string }) string { return filepath.Join(t.TempDir(), "tasks") }

// crash has the same effect on the files as the death of the process that has the store open: no more data is
// written, and the locks are released.
func crash(s *Store, sp *spy) {
	sp.set(func(act) error { return errDead })
	s.life.Lock() // waits for a Reopen in progress, which can no longer write
	defer s.life.Unlock()
	l := s.held
	w, r := s.halt()
	if w != nil {
		l = w.lock
		_ = errors.Join(r.close(), w.disconnect()) // an error is expected, because the files cannot be written
	}
	if l != nil {
		_ = l.f.Close() // releases the lock without removing the owner from the file
	}
	s.held = nil
}

var errDead = fmt.Errorf("the process is dead")

// parts describes the files of a database in one line for messages.
func parts(all map[string][]byte) string {
	var out []string
	for name, data := range all {
		out = append(out, fmt.Sprintf("%s: %d bytes", name, len(data)))
	}
	return strings.Join(out, ", ")
}
