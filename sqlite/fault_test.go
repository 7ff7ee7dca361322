package sqlite

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ncruces/go-sqlite3"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/race"
	"github.com/bgagent/bgagent/internal/tempdir"
	"github.com/bgagent/bgagent/storetest"
)

var everyByte = flag.Bool("disk.every", false, "cut the file at every byte of its last page, not only at some")

// persist writes the rest of the script. Like the manager, it repeats failed calls. It returns the number of
// times that it opened the store.
func persist(t *testing.T, s *Store, script *storetest.Script) (opened int) {
	t.Helper()
	n, tries := 0, 0
	for n < script.Len() {
		if tries++; tries > 200 {
			t.Fatalf("batch %d cannot be written", n+1)
		}
		c, err := s.Open(t.Context(), bgagent.StoreOwner{})
		if err != nil {
			continue
		}
		opened++
		if err := script.Check(t.Context(), s, c, n, n+1); err != nil {
			t.Fatal(err)
		}
		for n = int(c.Batch); n < script.Len(); n++ {
			err := s.Write(t.Context(), script.Batch(n+1))
			if errors.Is(err, bgagent.ErrUncertain) {
				break
			}
			if err != nil { // after any error other than ErrUncertain, the store does not contain the batch and remains open, so the batch is written again
				n--
				if tries++; tries > 200 {
					t.Fatalf("batch %d cannot be written: %v", n+2, err)
				}
			}
		}
		if err := s.Close(); err != nil {
			t.Logf("Close: %v", err)
		}
	}
	return opened
}

func TestAnErrorOfTheDiskAtAnyCallLosesNothing(t *testing.T) {
	script := storetest.NewScript(21, 6, time.Now().Add(-time.Hour))
	step := 1
	if race.Enabled { // SQLite takes about ten times as long with the race detector
		step = 12
	}
	for _, last := range []int{1, 4} { // number of consecutive calls that fail
		reached := true
		for at := rand.IntN(step); reached; at += step {
			calls, failed := 0, ""
			layer := newSpy(t, func(a act) error {
				if calls++; calls > at && calls <= at+last {
					failed = a.what + " of " + a.file
					return syscall.EIO
				}
				return nil
			})
			dir := filepath.Join(tempdir.InMemory(t), "tasks")
			s := New(dir, Options{KeepFor: -1, KeepTasks: -1, KeepBytes: -1})
			s.vfs = layer.name
			persist(t, s, script)
			reached = failed != ""
			layer.set(nil)
			c := open(t, s)
			if err := script.Check(t.Context(), s, c, script.Len(), script.Len()); err != nil {
				t.Fatalf("after an error at call %d (%s): %v", at, failed, err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestAFullDiskIsNamedAndIsNoLoss(t *testing.T) {
	script := storetest.NewScript(22, 12, time.Now().Add(-time.Hour))
	for name, fault := range map[string]error{
		"with its number": &os.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC},
		"as a quota":      &os.PathError{Op: "write", Path: "x", Err: syscall.EDQUOT},
		"as any error":    sqlite3.IOERR_WRITE, // the error does not name the cause, so the store asks the file system for its free space
	} {
		t.Run(name, func(t *testing.T) {
			askRoom = func(string) (room, bool) { return room{free: 4096}, true }
			t.Cleanup(func() { askRoom = roomIn })
			layer := newSpy(t, nil)
			s := New(folder(t), Options{})
			s.vfs = layer.name
			open(t, s)
			acked := 0
			for n := 1; n <= script.Len(); n++ {
				if n%3 != 0 {
					write(t, s, script.Batch(n))
					acked = n
					continue
				}
				layer.set(func(a act) error {
					if a.what == "write" {
						return fault
					}
					return nil
				})
				err := s.Write(t.Context(), script.Batch(n))
				if !errors.Is(err, ErrDiskFull) || !strings.Contains(err.Error(), "the disk is full") {
					t.Fatalf("on a full disk Write returned %v", err)
				}
				layer.set(nil) // the disk has free space again
				if errors.Is(err, bgagent.ErrUncertain) {
					if err := s.Close(); err != nil {
						t.Fatal(err)
					}
					c := open(t, s)
					if err := script.Check(t.Context(), s, c, acked, n); err != nil {
						t.Fatal(err)
					}
					if int(c.Batch) == n {
						continue
					}
				}
				write(t, s, script.Batch(n))
				acked = n
			}
		})
	}
}

func TestWhatCannotBeWrittenIsSaidToBeReadOnly(t *testing.T) {
	askRoom = func(string) (room, bool) { return room{readOnly: true}, true }
	t.Cleanup(func() { askRoom = roomIn })
	layer := newSpy(t, nil)
	s := New(folder(t), Options{})
	s.vfs = layer.name
	open(t, s)
	layer.set(func(act) error { return &os.PathError{Op: "write", Path: "x", Err: syscall.EROFS} })
	err := s.Write(t.Context(), &bgagent.StoreBatch{Number: 1, Records: []bgagent.StoreRecord{task(1)}})
	if err == nil || !strings.Contains(err.Error(), "cannot be written, only read") {
		t.Errorf("on a read-only disk Write returned %v", err)
	}
}

// If a file was truncated, SQLite reads zeros in place of the missing bytes, and returns no error.
func TestAFileThatWasCutIsNoticed(t *testing.T) {
	dir := filepath.Join(tempdir.InMemory(t), "tasks")
	s := New(dir, Options{})
	open(t, s)
	b := &bgagent.StoreBatch{Number: 1}
	texts := map[string]string{}
	for i := range 4 {
		r := task(i)
		texts[r.Key] = strings.Repeat(fmt.Sprintf("text %d. ", i), 400)
		b.Records = append(b.Records, r)
		b.Texts = append(b.Texts, bgagent.StoreText{Record: r.Key, Name: "result.1", Text: texts[r.Key]})
	}
	write(t, s, b)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(filepath.Join(dir, databaseName))
	if err != nil {
		t.Fatal(err)
	}
	step := 97
	if *everyByte {
		step = 1
	}
	for cut := 1; cut <= pageSize; cut += step {
		if err := os.WriteFile(filepath.Join(dir, databaseName), whole[:len(whole)-cut], 0o600); err != nil {
			t.Fatal(err)
		}
		s := New(dir, Options{KeepFor: -1, KeepTasks: -1, KeepBytes: -1})
		c, err := s.Open(t.Context(), bgagent.StoreOwner{})
		if err != nil {
			if !strings.Contains(err.Error(), "damaged") {
				t.Errorf("cut by %d bytes, Open returned %v", cut, err)
			}
			continue
		}
		if len(c.Damage) == 0 || !strings.Contains(c.Damage[len(c.Damage)-1].Problem, "it was cut") {
			t.Errorf("cut by %d bytes, Open reports %v", cut, c.Damage)
		}
		for key, want := range texts {
			if text, err := s.Text(t.Context(), key, "result.1"); err == nil && text != want {
				t.Errorf("cut by %d bytes, the text of %s is %.40q", cut, key, text)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestARecordThatVanishedIsMissed(t *testing.T) {
	dir := folder(t)
	s := New(dir, Options{})
	open(t, s)
	write(t, s, &bgagent.StoreBatch{Number: 1, Records: []bgagent.StoreRecord{task(1), task(2), task(3)}})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	spoil(t, dir, "DELETE FROM records WHERE key = ?", task(2).Key)
	c := open(t, s)
	if len(c.Records) != 2 || len(c.Damage) != 1 || !strings.Contains(c.Damage[0].Problem, "1 of the 3 records to continue cannot be found") {
		t.Errorf("Open returned %d records and reports %v", len(c.Records), c.Damage)
	}
}

// The function "dies" returns the folder of a store whose process died after it had written the given number
// of batches.
func dies(t *testing.T, batches int) (dir string) {
	t.Helper()
	dir = folder(t)
	layer := newSpy(t, nil)
	s := New(dir, Options{})
	s.vfs = layer.name
	open(t, s)
	for n := 1; n <= batches; n++ {
		write(t, s, &bgagent.StoreBatch{Number: uint64(n), Records: []bgagent.StoreRecord{task(n)}})
	}
	crash(s, layer)
	return dir
}

func TestALostOrDamagedWALIsSaidUntilABatchIsWritten(t *testing.T) {
	for name, spoil := range map[string]func(wal string) error{
		"removed": os.Remove,
		"a flipped bit": func(wal string) error {
			content, err := os.ReadFile(wal)
			if err == nil {
				content[len(content)/3] ^= 1
				err = os.WriteFile(wal, content, 0o600)
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := dies(t, 9)
			if err := spoil(filepath.Join(dir, databaseName+"-wal")); err != nil {
				t.Fatal(err)
			}
			s := New(dir, Options{})
			for range 2 {
				c := open(t, s)
				if want := fmt.Sprintf("its last %d batches are lost", 9-c.Batch); c.Batch == 9 || !strings.Contains(c.Outdated, want) {
					t.Errorf("batch %d is in the store, and Open reports %q", c.Batch, c.Outdated)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
			c := open(t, s)
			write(t, s, &bgagent.StoreBatch{Number: c.Batch + 1})
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if c := open(t, s); c.Outdated != "" {
				t.Errorf("after a batch, Open reports %q", c.Outdated)
			}
		})
	}
}

func TestAStoreThatDiedIsNotOutdated(t *testing.T) {
	dir := dies(t, 5)
	if c := open(t, New(dir, Options{})); c.Outdated != "" || c.Batch != 5 || len(c.Records) != 5 {
		t.Errorf("Open returned batch %d, %d records, outdated: %q", c.Batch, len(c.Records), c.Outdated)
	}
}
