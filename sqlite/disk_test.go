package sqlite

import (
	"bytes"
	"crypto/sha256"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/ncruces/go-sqlite3"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/race"
	"github.com/bgagent/bgagent/internal/tempdir"
	"github.com/bgagent/bgagent/storetest"
)

var diskBatches = flag.Int("disk.batches", 10, "how many batches the model of the disk goes through")

// sector is the unit of unsynced data that a disk keeps or loses.
const sector = 512

// disk models the contents of a disk. For each file, it contains the synced data and the later writes in
// order. Killing a process would not be enough for these tests, because the operating system keeps everything
// that the process wrote.
type disk struct {
	files map[string]*diskFile
	rnd   *rand.Rand
}

type diskFile struct {
	synced []byte
	there  bool // the name of the file is durable
	later  []act
}

func newDisk(seed uint64) *disk {
	return &disk{files: map[string]*diskFile{}, rnd: rand.New(rand.NewPCG(seed, 2))}
}

// apply returns the content after the change. It can overwrite the given content.
func (a act) apply(content []byte) []byte {
	if a.what == "truncate" {
		if int(a.off) <= len(content) {
			return content[:a.off]
		}
		return append(content, make([]byte, int(a.off)-len(content))...)
	}
	if end := int(a.off) + len(a.data); end > len(content) {
		content = append(content, make([]byte, end-len(content))...)
	}
	copy(content[a.off:], a.data)
	return content
}

// The method "happened" applies the change to the model.
func (d *disk) happened(a act) {
	f := d.files[a.file]
	if f == nil {
		f = &diskFile{}
		d.files[a.file] = f
	}
	switch a.what {
	case "sync":
		for _, w := range f.later {
			f.synced = w.apply(f.synced)
		}
		f.later, f.there = nil, true
	case "delete":
		delete(d.files, a.file)
	default:
		a.data = bytes.Clone(a.data)
		f.later = append(f.later, a)
	}
}

// images returns what the disk can contain if the machine stops during the change. There is one image with
// only the synced data, one with all data, one with some of the unsynced sectors, and one with all earlier
// data and half of the change.
func (d *disk) images(a act) map[string]map[string][]byte {
	all := map[string]map[string][]byte{}
	for _, kind := range []string{"nothing unsynced", "all", "some sectors", "torn"} {
		image := map[string][]byte{}
		for name, f := range d.files {
			content, there := slices.Clone(f.synced), f.there
			for _, w := range f.later {
				switch kind {
				case "all", "torn":
					content, there = w.apply(content), true
				case "some sectors":
					content, there = d.some(w, content, 0.5), true
				}
			}
			if there {
				image[name] = content
			}
		}
		if kind == "torn" && a.what == "write" {
			torn := a
			torn.data = a.data[:d.rnd.IntN(len(a.data)+1)]
			image[a.file] = torn.apply(image[a.file])
		}
		all[kind] = image
	}
	return all
}

// The method "some" returns the content after a random part of the change. chance is the probability that a
// sector, or a truncation, is part of it.
func (d *disk) some(a act, content []byte, chance float64) []byte {
	if a.what == "truncate" {
		if d.rnd.Float64() < chance {
			return a.apply(content)
		}
		return content
	}
	for off := 0; off < len(a.data); {
		end := min(len(a.data), off+sector-int(a.off+int64(off))%sector)
		if d.rnd.Float64() < chance {
			content = act{what: "write", off: a.off + int64(off), data: a.data[off:end]}.apply(content)
		}
		off = end
	}
	return content
}

// judge opens images of the disk and compares their contents with the script.
type judge struct {
	t      *testing.T
	script *storetest.Script
	dir    string
	layer  *spy
	seen   map[[32]byte]bool
	opened int
	bad    int
}

func newJudge(t *testing.T, script *storetest.Script) *judge {
	return &judge{t: t, script: script, dir: tempdir.InMemory(t), layer: newSpy(t, nil), seen: map[[32]byte]bool{}}
}

// look opens an image, unless an identical image was opened before. The error describes what is wrong with
// the image.
func (j *judge) look(image map[string][]byte, acked, tried int) error {
	h := sha256.New()
	fmt.Fprint(h, acked, tried)
	for _, name := range slices.Sorted(maps.Keys(image)) {
		fmt.Fprintf(h, "%q %d:", name, len(image[name]))
		h.Write(image[name])
	}
	if key := [32]byte(h.Sum(nil)); j.seen[key] {
		return nil
	} else {
		j.seen[key] = true
	}
	j.opened++
	dir := filepath.Join(j.dir, fmt.Sprint(j.opened))
	defer os.RemoveAll(dir)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	for name, content := range image {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return err
		}
	}
	s := New(dir, Options{KeepFor: -1, KeepTasks: -1, KeepBytes: -1})
	s.vfs = j.layer.name
	c, err := s.Open(j.t.Context(), bgagent.StoreOwner{})
	if err != nil {
		return fmt.Errorf("it cannot be opened: %w", err)
	}
	defer s.Close()
	return j.script.Check(j.t.Context(), s, c, acked, tried)
}

// powerLoss writes the script and checks the contents of the disk for each moment at which the machine can
// stop. plant is passed to setSync. If the number "enough" is 0, every bad image fails the test. Otherwise,
// powerLoss only counts the bad images, and stops checking images when it has found that many. The count is
// in the returned judge.
func powerLoss(t *testing.T, batches int, plant string, enough int) *judge {
	script := storetest.NewScript(11, batches, time.Now().Add(-time.Hour))
	d, j := newDisk(11), newJudge(t, script)
	acked, tried, moments := 0, 0, 0
	layer := newSpy(t, nil)
	layer.set(func(a act) error {
		if a.file == "" { // the file is temporary
			return nil
		}
		if enough == 0 || j.bad < enough {
			moments++
			for kind, image := range d.images(a) {
				if err := j.look(image, acked, tried); err != nil {
					j.bad++
					if enough == 0 {
						t.Errorf("in batch %d, at a %s of %s, with %s (%s): %v", tried, a.what, a.file, kind, parts(image), err)
					}
				}
			}
		}
		d.happened(a)
		return nil
	})
	s := New(filepath.Join(tempdir.InMemory(t), "tasks"), Options{KeepFor: -1, KeepTasks: -1, KeepBytes: -1})
	s.vfs = layer.name
	open(t, s)
	setSync(t, s, plant)
	for n := 1; n <= batches; n++ {
		layer.mu.Lock()
		tried = n
		layer.mu.Unlock()
		write(t, s, script.Batch(n))
		layer.mu.Lock()
		acked = n
		layer.mu.Unlock()
		if n%7 == 0 {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Open(t.Context(), bgagent.StoreOwner{}); err != nil {
				t.Fatal(err)
			}
			setSync(t, s, plant)
		}
		if n%5 == 0 { // copies the WAL into the database, as the store's upkeep does
			mode := sqlite3.CHECKPOINT_RESTART
			if n%3 == 0 { // as if the WAL were large
				mode = sqlite3.CHECKPOINT_TRUNCATE
			}
			if _, _, err := s.w.conn.WALCheckpoint("main", mode); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	t.Logf("%d batches, %d moments, %d images, %d bad", batches, moments, j.opened, j.bad)
	return j
}

// setSync makes the writer omit syncs: plant is the value of SQLite's setting "synchronous". If plant is
// empty, setSync changes nothing.
func setSync(t *testing.T, s *Store, plant string) {
	t.Helper()
	if plant != "" {
		if err := s.w.conn.Exec("PRAGMA synchronous=" + plant); err != nil {
			t.Fatal(err)
		}
	}
}

// After a first stop, the machine can stop again while the store is being opened.
func TestNothingIsLostIfTheMachineStopsAgain(t *testing.T) {
	batches := 12
	if race.Enabled { // SQLite takes about ten times as long with the race detector
		batches = 4
	}
	script := storetest.NewScript(12, batches, time.Now().Add(-time.Hour))
	d, j := newDisk(12), newJudge(t, script)
	acked, tried := 0, 0
	var left []stopped
	layer := newSpy(t, func(a act) error {
		if a.what == "sync" && tried > 2 {
			left = append(left, stopped{d.images(a)["some sectors"], acked, tried})
		}
		d.happened(a)
		return nil
	})
	s := New(filepath.Join(tempdir.InMemory(t), "tasks"), Options{KeepFor: -1, KeepTasks: -1, KeepBytes: -1})
	s.vfs = layer.name
	open(t, s)
	for n := 1; n <= batches; n++ {
		tried = n
		write(t, s, script.Batch(n))
		acked = n
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, at := range left {
		j.again(at)
	}
	t.Logf("stopped %d times, then at any moment of the next Open: %d images", len(left), j.opened)
	if len(left) < batches-2 || j.opened < 4*len(left) {
		t.Errorf("too few images")
	}
}

// The type "stopped" describes the contents of a disk after the machine has stopped.
type stopped struct {
	image        map[string][]byte
	acked, tried int
}

// The method "again" reopens the image and checks the contents of the disk for each moment at which
// the machine can stop while the image is being opened.
func (j *judge) again(at stopped) {
	dir := filepath.Join(tempdir.InMemory(j.t), "tasks")
	if err := os.Mkdir(dir, 0o700); err != nil {
		j.t.Fatal(err)
	}
	d := newDisk(uint64(at.tried))
	for name, content := range at.image {
		d.files[name] = &diskFile{synced: slices.Clone(content), there: true}
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			j.t.Fatal(err)
		}
	}
	layer := newSpy(j.t, func(a act) error {
		for kind, image := range d.images(a) {
			if err := j.look(image, at.acked, at.tried); err != nil {
				j.t.Errorf("stopped in batch %d, and again at a %s of %s, with %s (%s): %v", at.tried, a.what, a.file, kind, parts(image), err)
			}
		}
		d.happened(a)
		return nil
	})
	s := New(dir, Options{KeepFor: -1, KeepTasks: -1, KeepBytes: -1})
	s.vfs = layer.name
	if _, err := s.Open(j.t.Context(), bgagent.StoreOwner{}); err != nil {
		j.t.Error(err)
	}
	if err := s.Close(); err != nil {
		j.t.Error(err)
	}
}

func TestNothingIsLostWheneverTheMachineStops(t *testing.T) {
	batches := *diskBatches
	if race.Enabled { // SQLite takes about ten times as long with the race detector
		batches = min(batches, 2)
	}
	j := powerLoss(t, batches, "", 0)
	if j.opened < 4*batches {
		t.Errorf("only %d images were checked", j.opened)
	}
}

// The model must detect that a sync is missing.
func TestTheModelOfTheDiskFindsMissingSyncs(t *testing.T) {
	if race.Enabled {
		t.Skip("takes long with the race detector, and the model is the same")
	}
	for _, plant := range []string{"NORMAL", "OFF"} {
		t.Run(plant, func(t *testing.T) {
			if j := powerLoss(t, 25, plant, 20); j.bad < 20 {
				t.Errorf("of %d images, %d were bad; without a sync for each batch, there must be more", j.opened, j.bad)
			}
		})
	}
}
