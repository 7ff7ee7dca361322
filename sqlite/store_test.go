package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ncruces/go-sqlite3"

	"github.com/bgagent/bgagent"
)

// The function "refused" returns the text of the error with which Open refuses to open the store.
func refused(t *testing.T, s *Store) string {
	t.Helper()
	if _, err := s.Open(t.Context(), bgagent.StoreOwner{}); err != nil {
		return err.Error()
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	return "not refused"
}

// filled returns the folder of a closed store that contains one batch.
func filled(t *testing.T) (dir string) {
	t.Helper()
	dir = folder(t)
	s := New(dir, Options{})
	open(t, s)
	b := &bgagent.StoreBatch{Number: 1, Records: []bgagent.StoreRecord{task(1)}}
	b.Texts = []bgagent.StoreText{{Record: task(1).Key, Name: "prompt.1", Text: "the prompt"}}
	write(t, s, b)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestAFolderThatIsNotOursIsRefusedWithASentence(t *testing.T) {
	for want, spoil := range map[string]func(dir string) error{
		"other users can access":                func(dir string) error { return os.Chmod(dir, 0o755) },
		"run chmod 0700":                        func(dir string) error { return os.Chmod(dir, 0o710) },
		"run chmod 0600":                        func(dir string) error { return os.Chmod(filepath.Join(dir, databaseName), 0o640) },
		"lock (mode 0644)":                      func(dir string) error { return os.Chmod(filepath.Join(dir, lockName), 0o644) },
		"does not follow links":                 func(dir string) error { return link(dir, databaseName) },
		"lock is not a regular file":            func(dir string) error { return link(dir, lockName) },
		"folder of the store cannot be created": func(dir string) error { return errors.Join(os.RemoveAll(dir), os.WriteFile(dir, nil, 0o600)) },
		"is not a database": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, databaseName), []byte(strings.Repeat("a text ", 900)), 0o600)
		},
		"belongs to another program":    func(dir string) error { return sql(dir, "PRAGMA application_id=7") },
		"newer version of bgagent":      func(dir string) error { return sql(dir, "PRAGMA user_version=2003") },
		"the version 2.3; this program": func(dir string) error { return sql(dir, "PRAGMA user_version=2003") },
		"damaged":                       func(dir string) error { return sql(dir, "DELETE FROM meta") },
	} {
		t.Run(want, func(t *testing.T) {
			dir := filled(t)
			if err := spoil(dir); err != nil {
				t.Fatal(err)
			}
			if got := refused(t, New(dir, Options{})); !strings.Contains(got, want) || !strings.HasPrefix(got, "sqlite: ") {
				t.Errorf("Open returned: %s", got)
			}
			if _, err := OpenReader(dir); err == nil && want != "damaged" {
				t.Error("a reader opened the store")
			}
		})
	}
}

// link moves the file elsewhere, and replaces it with a symbolic link to the moved file.
func link(dir, name string) error {
	elsewhere := filepath.Join(filepath.Dir(dir), "elsewhere")
	return errors.Join(os.Rename(filepath.Join(dir, name), elsewhere), os.Symlink(elsewhere, filepath.Join(dir, name)))
}

// sql changes the database as another program would.
func sql(dir, statement string) error {
	conn, err := sqlite3.Open(filepath.Join(dir, databaseName))
	if err != nil {
		return err
	}
	return errors.Join(conn.Exec(statement), conn.Close())
}

func TestAFolderOfAnotherUserIsRefused(t *testing.T) {
	dir := "/" // this folder belongs to the superuser
	if os.Geteuid() == 0 {
		dir = filled(t)
		if err := os.Chown(dir, 4711, 4711); err != nil {
			t.Fatal(err)
		}
	}
	if got := refused(t, New(dir, Options{})); !strings.Contains(got, "belongs to user") {
		t.Errorf("Open returned: %s", got)
	}
}

func TestANewerMinorVersionIsOpened(t *testing.T) {
	dir := filled(t)
	if err := sql(dir, "PRAGMA user_version=1007; ALTER TABLE records ADD COLUMN later TEXT; ALTER TABLE meta ADD COLUMN later TEXT"); err != nil {
		t.Fatal(err)
	}
	s := New(dir, Options{})
	if c := open(t, s); len(c.Records) != 1 || len(c.Damage) > 0 {
		t.Errorf("Open returned %+v", c)
	}
	write(t, s, &bgagent.StoreBatch{Number: 2, Records: []bgagent.StoreRecord{task(2)}})
}

func TestOnlyItsOwnerCanReadAFileOfTheStore(t *testing.T) {
	dir := filled(t)
	s := New(dir, Options{})
	open(t, s)
	write(t, s, &bgagent.StoreBatch{Number: 2, Records: []bgagent.StoreRecord{task(2)}})
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 4 {
		t.Fatal(entries, err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || info.Mode() != 0o600 {
			t.Errorf("%s has the mode %v, %v", e.Name(), info.Mode(), err)
		}
	}
	if info, err := os.Lstat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder has the mode %v, %v", info.Mode(), err)
	}
}

func TestALinkToTheFolderIsFollowed(t *testing.T) {
	dir := filled(t)
	other := filepath.Join(t.TempDir(), "link with spaces, % and ?#")
	if err := os.Symlink(dir, other); err != nil {
		t.Fatal(err)
	}
	if c := open(t, New(other, Options{})); c.Batch != 1 || c.Outdated != "" {
		t.Errorf("Open returned %+v", c)
	}
	if c := open(t, New(filepath.Join(t.TempDir(), "a % b?c#d"), Options{})); c.Batch != 0 {
		t.Errorf("Open returned %+v", c)
	}
}

func TestACopyIsRecognised(t *testing.T) {
	for want, copy := range map[string]func(t *testing.T, from, to string) error{
		"it is a copy of the folder": func(_ *testing.T, from, to string) error { return os.CopyFS(to, os.DirFS(from)) },
		"its file lock was removed":  func(_ *testing.T, from, to string) error { return one(from, to) },
		"the folder contained another database, with 1 batches": func(t *testing.T, from, to string) error {
			return errors.Join(os.Rename(filled(t), to), os.Remove(filepath.Join(to, databaseName)), one(from, to))
		},
		"it is a backup of": func(t *testing.T, from, to string) error {
			r, err := OpenReader(from)
			if err != nil {
				return err
			}
			return errors.Join(os.Mkdir(to, 0o700), r.Backup(t.Context(), filepath.Join(to, databaseName)), r.Close())
		},
		"": func(_ *testing.T, from, to string) error { return os.Rename(from, to) }, // the folder was moved, not copied
	} {
		t.Run(want, func(t *testing.T) {
			from, to := filled(t), folder(t)
			if err := copy(t, from, to); err != nil {
				t.Fatal(err)
			}
			for _, err := range []error{os.Chmod(to, 0o700), os.Chmod(filepath.Join(to, databaseName), 0o600)} {
				if err != nil {
					t.Fatal(err)
				}
			}
			_ = os.Chmod(filepath.Join(to, lockName), 0o600) // fails if the file does not exist
			s := New(to, Options{})
			for range 2 {
				c := open(t, s)
				if !strings.Contains(c.Outdated, want) || want == "" && c.Outdated != "" {
					t.Errorf("Open reports %q", c.Outdated)
				}
				if len(c.Records) != 1 || c.Batch != 1 {
					t.Errorf("Open returned %+v", c)
				}
				if text, err := s.Text(t.Context(), task(1).Key, "prompt.1"); text != "the prompt" {
					t.Errorf("the text is %q, %v", text, err)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
			open(t, s)
			write(t, s, &bgagent.StoreBatch{Number: 2})
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if c := open(t, s); c.Outdated != "" {
				t.Errorf("after a batch, Open reports %q", c.Outdated)
			}
		})
	}
}

// The function "one" copies only the database file, without the WAL and the lock file.
func one(from, to string) error {
	content, err := os.ReadFile(filepath.Join(from, databaseName))
	return errors.Join(err, os.MkdirAll(to, 0o700), os.WriteFile(filepath.Join(to, databaseName), content, 0o600))
}

func TestADatabaseThatIsGoneIsSaid(t *testing.T) {
	dir := filled(t)
	if err := os.Remove(filepath.Join(dir, databaseName)); err != nil {
		t.Fatal(err)
	}
	if c := open(t, New(dir, Options{})); c.Batch != 0 || c.Outdated != "the folder contained another database, with 1 batches" {
		t.Errorf("Open returned %+v", c)
	}
}

// A program that deletes temporary files might remove the lock file of a living owner.
func TestWhoLostTheStoreIsRefusedAndToldWhoHasIt(t *testing.T) {
	dir := filled(t)
	first, second := New(dir, Options{}), New(dir, Options{})
	open(t, first)
	if err := os.Remove(filepath.Join(dir, lockName)); err != nil {
		t.Fatal(err)
	}
	if _, err := second.Open(t.Context(), bgagent.StoreOwner{Instance: "second", Program: "the other"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = second.Close() })
	write(t, second, &bgagent.StoreBatch{Number: 2, Records: []bgagent.StoreRecord{task(2)}})
	var owned *bgagent.StoreOwnedError
	err := first.Write(t.Context(), &bgagent.StoreBatch{Number: 2, Records: []bgagent.StoreRecord{task(3)}})
	if !errors.As(err, &owned) || owned.Owner.Instance != "second" || errors.Is(err, bgagent.ErrUncertain) {
		t.Errorf("Write of the first owner returned %v", err)
	}
	write(t, second, &bgagent.StoreBatch{Number: 3, Records: []bgagent.StoreRecord{task(4)}})
}

// On systems where locks belong to a process, a process that closes any descriptor of a file releases all its
// locks on the file.
func TestAProgramThatReadsTheFilesBreaksNoLock(t *testing.T) {
	dir := filled(t)
	s := New(dir, Options{})
	open(t, s)
	r, err := OpenReader(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for n := range uint64(20) {
		for _, name := range []string{databaseName, databaseName + "-wal", databaseName + "-shm", lockName} {
			if _, err := os.ReadFile(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		write(t, s, &bgagent.StoreBatch{Number: n + 2, Records: []bgagent.StoreRecord{task(int(n))}})
		if _, err := r.Live(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := refused(t, New(dir, Options{})); !strings.Contains(got, "belongs to a test (process 1 on here)") {
		t.Errorf("Open of another store returned: %s", got)
	}
}

func TestAReaderLooksWhileAnotherWrites(t *testing.T) {
	dir := folder(t)
	if _, err := OpenReader(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a store, OpenReader returned %v", err)
	}
	s := New(dir, Options{})
	open(t, s)
	old := task(9)
	old.Due, old.Status, old.Launched, old.Ended = false, bgagent.Completed, time.Now(), time.Now()
	b := &bgagent.StoreBatch{Number: 1, Records: []bgagent.StoreRecord{task(1), old, {Key: "manager", Due: true}}}
	b.Texts = []bgagent.StoreText{{Record: old.Key, Name: "result.1", Text: "the result"}}
	write(t, s, b)
	r, err := OpenReader(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if who, lives, err := r.Owner(); err != nil || !lives || who.Program != "a test" {
		t.Errorf("the owner is %+v, lives: %v, %v", who, lives, err)
	}
	write(t, s, &bgagent.StoreBatch{Number: 2, Records: []bgagent.StoreRecord{task(2)}})
	live, err := r.Live(t.Context())
	if err != nil || len(live) != 2 || live[1].Key != task(2).Key {
		t.Errorf("the live records are %v, %v", live, err)
	}
	page, err := r.History(t.Context(), bgagent.StoreQuery{Limit: 10})
	if err != nil || len(page) != 1 || page[0].Key != old.Key {
		t.Errorf("the history is %v, %v", page, err)
	}
	if text, err := r.Text(t.Context(), old.Key, "result.1"); text != "the result" || err != nil {
		t.Errorf("the text is %q, %v", text, err)
	}
	if damage, err := r.Check(t.Context()); len(damage) > 0 || err != nil {
		t.Errorf("Check returned %v, %v", damage, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.History(ctx, bgagent.StoreQuery{Limit: 1}); !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context, History returned %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, lives, err := r.Owner(); err != nil || lives {
		t.Errorf("after Close, the owner lives: %v, %v", lives, err)
	}
	if live, err := r.Live(t.Context()); err != nil || len(live) != 2 {
		t.Errorf("after Close, %d records are live, %v", len(live), err)
	}
}

func TestCheckNamesWhatIsDamaged(t *testing.T) {
	dir := filled(t)
	spoil(t, dir, "UPDATE records SET agent = 'another' WHERE key = ?", task(1).Key)
	spoil(t, dir, "UPDATE texts SET text = 'a prompt' WHERE name = ?", "prompt.1")
	r, err := OpenReader(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	damage, err := r.Check(t.Context())
	want := fmt.Sprintf("[{%[1]s its checksum is wrong} {%[1]s the checksum of its text \"prompt.1\" is wrong}]", task(1).Key)
	if got := fmt.Sprint(damage); err != nil || got != want {
		t.Errorf("Check returned %s, %v; want %s", got, err, want)
	}
}
