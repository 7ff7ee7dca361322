package sqlite

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/bgagent/bgagent"
)

// doubtful returns an open store with one batch. The commit of the second batch has failed.
func doubtful(t *testing.T) (s *Store, layer *spy, dir string) {
	t.Helper()
	dir = folder(t)
	layer = newSpy(t, nil)
	s = New(dir, Options{})
	s.vfs = layer.name
	if _, err := s.Open(t.Context(), bgagent.StoreOwner{Instance: "first"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	write(t, s, &bgagent.StoreBatch{Number: 1, Records: []bgagent.StoreRecord{task(1)}})
	layer.set(func(a act) error {
		if a.what == "sync" {
			return syscall.EIO
		}
		return nil
	})
	if err := s.Write(t.Context(), &bgagent.StoreBatch{Number: 2, Records: []bgagent.StoreRecord{task(2)}}); !errors.Is(err, bgagent.ErrUncertain) {
		t.Fatalf("Write returned %v", err)
	}
	return s, layer, dir
}

// The function "owned" fails the test if another manager can open the store.
func owned(t *testing.T, dir string) {
	t.Helper()
	var by *bgagent.StoreOwnedError
	if _, err := New(dir, Options{}).Open(t.Context(), bgagent.StoreOwner{Instance: "second"}); !errors.As(err, &by) || by.Owner.Instance != "first" {
		t.Errorf("another manager opened the store; the error is %v", err)
	}
}

func TestTheOwnerKeepsTheStoreWhileACommitIsInDoubt(t *testing.T) {
	s, layer, dir := doubtful(t)
	owned(t, dir)
	for range 3 { // Reopen fails each time, because the disk fails
		if _, err := s.Reopen(t.Context()); err == nil {
			t.Fatal("Reopen succeeded on a disk that fails")
		}
		owned(t, dir)
	}
	if err := s.Write(t.Context(), &bgagent.StoreBatch{Number: 2}); err == nil {
		t.Error("Write succeeded before Reopen")
	}
	layer.set(nil)
	c, err := s.Reopen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	owned(t, dir)
	write(t, s, &bgagent.StoreBatch{Number: c.Batch + 1, Records: []bgagent.StoreRecord{task(3)}})
	if _, err := s.Text(t.Context(), task(1).Key, "none"); !errors.Is(err, bgagent.ErrNoText) {
		t.Errorf("Text returned %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if again := open(t, New(dir, Options{})); again.Batch != c.Batch+1 || again.Outdated != "" {
		t.Errorf("the next manager found batch %d instead of %d, outdated: %q", again.Batch, c.Batch+1, again.Outdated)
	}
}

func TestCloseReleasesAStoreThatCannotBeReopened(t *testing.T) {
	s, layer, dir := doubtful(t)
	if _, err := s.Reopen(t.Context()); err == nil {
		t.Fatal("Reopen succeeded on a disk that fails")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := s.Reopen(t.Context()); err == nil {
		t.Error("Reopen succeeded after Close")
	}
	layer.set(nil)
	open(t, New(dir, Options{}))
}

// The lock does not protect the store if the lock file was removed, or if the owner has closed the store.
func TestABatchOfSomebodyElseIsNotTakenForTheOwnersBatch(t *testing.T) {
	for name, leave := range map[string]func(t *testing.T, s *Store, dir string) (again func() error){
		"the lock was removed": func(t *testing.T, s *Store, dir string) func() error {
			if err := os.Remove(filepath.Join(dir, lockName)); err != nil {
				t.Fatal(err)
			}
			return func() error { _, err := s.Reopen(t.Context()); return err }
		},
		"the owner closed it": func(t *testing.T, s *Store, dir string) func() error {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			return func() error {
				_, err := s.Open(t.Context(), bgagent.StoreOwner{Instance: "first"})
				return err
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, layer, dir := doubtful(t)
			layer.set(nil)
			again := leave(t, s, dir)
			thief := New(dir, Options{})
			c, err := thief.Open(t.Context(), bgagent.StoreOwner{Instance: "second"})
			if err != nil {
				t.Fatal(err)
			}
			write(t, thief, &bgagent.StoreBatch{Number: c.Batch + 1, Records: []bgagent.StoreRecord{task(9)}})
			if err := thief.Close(); err != nil {
				t.Fatal(err)
			}
			var by *bgagent.StoreOwnedError
			if err := again(); !errors.As(err, &by) || by.Owner.Instance != "second" {
				t.Errorf("opening the store again returned %v", err)
			}
		})
	}
}

func TestARollbackThatFailsMakesTheManagerReopenTheStore(t *testing.T) {
	s := New(folder(t), Options{})
	open(t, s)
	write(t, s, &bgagent.StoreBatch{Number: 1, Records: []bgagent.StoreRecord{task(1)}, Texts: []bgagent.StoreText{{Record: task(1).Key, Name: "prompt.1", Text: "x"}}})
	broken, err := s.w.stmt("INSERT INTO meta (one) VALUES (2)")
	if err != nil {
		t.Fatal(err)
	}
	s.w.known["ROLLBACK"] = broken
	bad := &bgagent.StoreBatch{Number: 2, Texts: []bgagent.StoreText{{Record: task(1).Key, Name: "prompt.1", Text: "another"}}}
	if err := s.Write(t.Context(), bad); !errors.Is(err, bgagent.ErrUncertain) {
		t.Fatalf("Write returned %v", err)
	}
	c, err := s.Reopen(t.Context())
	if err != nil || c.Batch != 1 {
		t.Fatalf("Reopen returned batch %d and %v", c.Batch, err)
	}
	write(t, s, &bgagent.StoreBatch{Number: 2, Records: []bgagent.StoreRecord{task(2)}})
}

func TestAFullDiskIsKnownToEveryProgram(t *testing.T) {
	if !errors.Is(ErrDiskFull, syscall.ENOSPC) || errors.Is(ErrDiskFull, syscall.EIO) || !strings.Contains(ErrDiskFull.Error(), "full") {
		t.Errorf("the error is %v", ErrDiskFull)
	}
}

func TestCloseDoesNotWaitForACheckOfTheDatabase(t *testing.T) {
	warned := make(chan error, 8)
	s := New(folder(t), Options{Warn: func(err error) { warned <- err }})
	open(t, s)
	write(t, s, &bgagent.StoreBatch{Number: 1, Records: []bgagent.StoreRecord{task(1)}})
	u := newUpkeep(s)
	u.doubt.Store(true)
	u.end() // Close also calls u.end while a check is running
	if err := u.look(); err != nil {
		t.Errorf("the check returned %v", err)
	}
	if u.conn != nil {
		_ = u.conn.Close()
	}
	select {
	case err := <-warned:
		t.Errorf("a check that was stopped reported %v", err)
	default:
	}
}
