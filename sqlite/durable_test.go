package sqlite

import (
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/ncruces/go-sqlite3"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/tempdir"
	"github.com/bgagent/bgagent/storetest"
)

// After a failed sync, the operating system may drop the data that it could not write, but still return this
// data to readers. A later sync then succeeds, but does not write the data to the disk.
func TestWhatOpenReturnsIsOnTheDiskEvenAfterAFailedSync(t *testing.T) {
	const batches = 6
	script := storetest.NewScript(41, batches, time.Now().Add(-time.Hour))
	d, j := newDisk(41), newJudge(t, script)
	failing := false
	watch := func(a act) error {
		if f := d.files[a.file]; failing && a.what == "sync" && f != nil {
			f.later = slices.DeleteFunc(f.later, func(a act) bool { return a.what == "write" })
			return syscall.EIO
		}
		d.happened(a)
		return nil
	}
	dir := filepath.Join(tempdir.InMemory(t), "tasks")
	start := func() (*Store, *spy, bgagent.StoreContents) {
		layer := newSpy(t, watch)
		s := New(dir, Options{KeepFor: -1, KeepTasks: -1, KeepBytes: -1})
		s.vfs = layer.name
		return s, layer, open(t, s)
	}
	s, layer, c := start()
	there := 0
	for n := 1; n <= batches; n++ {
		failing = true
		if err := s.Write(t.Context(), script.Batch(n)); err == nil {
			t.Fatal("a batch was acknowledged without a sync")
		}
		failing = false
		crash(s, layer)
		if s, layer, c = start(); c.Batch == uint64(n) {
			there++
		} else if err := s.Write(t.Context(), script.Batch(n)); err != nil {
			t.Fatal(err)
		}
		if err := j.look(d.images(act{})["nothing unsynced"], n, n); err != nil {
			t.Errorf("Open returned batch %d; after a power loss: %v", n, err)
		}
	}
	if there == 0 {
		t.Error("no batch was readable after its sync had failed, so the test shows nothing")
	}
}

func TestEveryConnectionWaitsForOthersAndForTheDisk(t *testing.T) {
	s := New(folder(t), Options{})
	open(t, s)
	for name, conn := range map[string]*sqlite3.Conn{"writer": s.w.conn, "reader": s.reader.conn} {
		for pragma, want := range map[string]string{"busy_timeout": "5000", "journal_mode": "wal", "synchronous": "2"} {
			if got, err := ask(conn, "PRAGMA "+pragma); err != nil || got != want {
				t.Errorf("%s: %s is %s, %v; want %s", name, pragma, got, err, want)
			}
		}
	}
}
