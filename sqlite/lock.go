package sqlite

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"time"

	"github.com/bgagent/bgagent"
)

// lock is the lock file of a store. The store's owner holds an operating-system lock on this file. The file
// also contains a witness, which records the number of the last batch. The file has two places for the
// witness, which are written alternately. Therefore, one of them is always intact, no matter when the machine
// stops.
type lock struct {
	f       *os.File
	witness witness // witness that was written last; zero if there is none
}

// witness identifies the last batch that the store contained.
type witness struct {
	Store string `json:"store"` // id of the database
	Batch uint64 `json:"batch"` // number of the last batch in the database
}

// The file consists of two places for the witness, which are written alternately, and the owner.
const (
	placeSize = 512 // size of a sector, which disks write as a whole
	ownerAt   = 2 * placeSize
	ownerMax  = 8 << 10
)

// takeLock takes the lock for the owner. If a living owner has the lock, it returns a
// [*bgagent.StoreOwnedError].
func takeLock(path string, owner bgagent.StoreOwner) (*lock, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|noFollow, 0o600)
		if err != nil {
			return nil, fmt.Errorf("sqlite: the lock of the store cannot be opened: %w", err)
		}
		l := &lock{f: f}
		switch taken, err := l.take(); {
		case err != nil:
			f.Close()
			return nil, fmt.Errorf("sqlite: the store cannot be locked, so it cannot be used here: %w", err)
		case !taken:
			defer f.Close()
			return nil, &bgagent.StoreOwnedError{Owner: readOwner(f)}
		}
		if !l.inPlace(path) { // the file was removed or replaced before it was locked
			f.Close()
			continue
		}
		l.witness = readWitness(f)
		if err := l.name(owner); err != nil {
			f.Close()
			return nil, err
		}
		return l, nil
	}
}

// The method "take" tries for about 50 ms to take the lock, and reports whether it has succeeded. It tries
// more than once, because a reader that checks whether the owner is alive holds the lock for a moment.
func (l *lock) take() (bool, error) {
	for i := 0; ; i++ {
		taken, err := tryLock(l.f, true)
		if taken || err != nil || i == 5 {
			return taken, err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// inPlace reports whether the path still refers to the open file.
func (l *lock) inPlace(path string) bool {
	mine, err := l.f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Lstat(path)
	return err == nil && os.SameFile(mine, there)
}

// id returns a number that differs between a file and its copy. It returns 0 if the number is
// unknown.
func (l *lock) id() int64 { return fileID(l.f) }

// The method "name" writes the owner into the file, for people and for other processes that try to open the
// store.
func (l *lock) name(owner bgagent.StoreOwner) error {
	text, err := json.Marshal(owner)
	if err != nil || len(text)+1 > ownerMax {
		return fmt.Errorf("sqlite: the owner cannot be recorded (%d bytes): %w", len(text), err)
	}
	err = l.f.Truncate(ownerAt)
	if err == nil {
		_, err = l.f.WriteAt(append(text, '\n'), ownerAt)
	}
	if err != nil {
		return fmt.Errorf("sqlite: the lock of the store cannot be written: %w", err)
	}
	return nil
}

func readOwner(f *os.File) (o bgagent.StoreOwner) {
	text, _ := io.ReadAll(io.NewSectionReader(f, ownerAt, ownerMax))
	_ = json.Unmarshal(text, &o) // if the file contains no valid owner, the result is empty
	return o
}

// testify writes the witness. It does not wait until the witness has reached the disk.
func (l *lock) testify(w witness) error {
	text, err := json.Marshal(w)
	if err != nil {
		return err
	}
	place := append(text, fmt.Sprintf(" %08x", crc32.ChecksumIEEE(text))...)
	place = append(place, bytes.Repeat([]byte{' '}, placeSize-1-len(place))...)
	place = append(place, '\n')
	if l.witness.Store != w.Store || l.witness.Batch > w.Batch { // readWitness returns the greater number, so the witness in the other place must be overwritten, too
		_, err = l.f.WriteAt(place, int64((w.Batch+1)%2)*placeSize)
	}
	if err == nil {
		_, err = l.f.WriteAt(place, int64(w.Batch%2)*placeSize)
	}
	if err != nil {
		return fmt.Errorf("sqlite: the lock of the store cannot be written: %w", err)
	}
	l.witness = w
	return nil
}

// readWitness returns the witness with the greater number.
func readWitness(f *os.File) (best witness) {
	for i := range int64(2) {
		place := make([]byte, placeSize)
		if _, err := f.ReadAt(place, i*placeSize); err != nil {
			continue
		}
		place = bytes.TrimSpace(place)
		end := bytes.LastIndexByte(place, ' ')
		if end < 0 || fmt.Sprintf("%08x", crc32.ChecksumIEEE(place[:end])) != string(place[end+1:]) {
			continue
		}
		var w witness
		if json.Unmarshal(place[:end], &w) == nil && (best.Store == "" || w.Batch > best.Batch) {
			best = w
		}
	}
	return best
}

func (l *lock) sync() error { return l.f.Sync() }

// close releases the lock. It removes the owner from the file but keeps the witness.
func (l *lock) close() error { return errors.Join(l.f.Truncate(ownerAt), l.f.Close()) }

// lockHolder returns the owner that the lock file names. The result "lives" is true if this owner still holds
// the lock.
func lockHolder(path string) (o bgagent.StoreOwner, lives bool, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|noFollow, 0)
	if err != nil {
		return o, false, fmt.Errorf("sqlite: the lock of the store cannot be opened: %w", err)
	}
	defer f.Close()
	free, err := tryLock(f, false)
	if err != nil {
		return o, false, fmt.Errorf("sqlite: the lock of the store cannot be examined: %w", err)
	}
	return readOwner(f), !free, nil
}
