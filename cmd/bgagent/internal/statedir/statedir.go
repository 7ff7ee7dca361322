// Package statedir finds the stores where this program keeps the tasks of the commands "serve",
// "mcp" and "run". The stores are in the state folder. There is one store for each configuration
// that is served, for each running process of mcp, and for each results folder of run. A store is a
// folder. It contains a database of package sqlite, and a file that describes the store; see
// [About].
package statedir

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/bgagent/bgagent/internal/cleantext"
)

// None is the value of the flag --state that means that no tasks are kept.
const None = "none"

// Base returns the default state folder: the folder "bgagent" in $XDG_STATE_HOME, or in
// ~/.local/state if the variable does not contain an absolute path. It returns an error if the home
// folder is needed but unknown.
func Base() (string, error) {
	base := os.Getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(base) { // the specification requires programs to ignore a relative path
		home, err := os.UserHomeDir()
		if err != nil {
			return "", err
		}
		base = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(base, "bgagent"), nil
}

// The kinds of stores. Each kind has the name of the command that keeps its tasks in stores of this
// kind.
const (
	Serve = "serve"
	MCP   = "mcp"
	Run   = "run"
)

// aboutName is the name of the file that describes a store.
const aboutName = "about.json"

// About describes a store.
type About struct {
	Kind  string    `json:"kind"`
	Path  string    `json:"path"` // configuration file, working directory or results folder; contains no symbolic links
	Host  string    `json:"host"` // name of the machine on which the store was created
	Began time.Time `json:"began"`

	// Cluster is the name of the cluster whose servers keep the tasks, or empty if the tasks are kept in the
	// folder. If a cluster keeps the tasks, the folder contains only logs and the address to which commands
	// connect.
	Cluster string `json:"cluster,omitempty"`
}

// String describes the store for users. The text is one line without control characters.
func (a About) String() string {
	path := cleantext.Line(a.Path)
	switch a.Kind {
	case Serve:
		return "bgagent serve with " + path
	case MCP:
		return "bgagent mcp in " + path
	case Run:
		return "bgagent run into " + path
	}
	return "an unknown command"
}

// Store describes a store and where it is. The folder does not exist until Make is called.
type Store struct {
	About
	Dir string // folder of the store
}

// Name returns the name of the store's folder.
func (s Store) Name() string { return filepath.Base(s.Dir) }

// Folder is the folder that contains the stores. Its methods can be called concurrently.
type Folder struct{ dir string }

// Open returns the folder "tasks" in the state folder with the given path. If the path is empty, it
// uses the default state folder. It does not create a folder.
func Open(dir string) (Folder, error) {
	if dir == "" {
		base, err := Base()
		if err != nil {
			return Folder{}, fmt.Errorf("the state folder is not known: %w; set HOME or XDG_STATE_HOME, or name a folder with --state DIR", err)
		}
		dir = base
	}
	return Folder{filepath.Join(dir, "tasks")}, nil
}

// Dir returns the path of the folder.
func (f Folder) Dir() string { return f.dir }

// Served returns the store of the command "serve" for the configuration files. If there are
// no files, the working directory identifies the store. Every file must exist. The store is
// not created.
func (f Folder) Served(files []string) (Store, error) {
	if len(files) == 0 {
		files = []string{"."}
	}
	var paths []string
	for _, file := range files {
		path, err := realPath(file)
		if err != nil {
			return Store{}, err
		}
		paths = append(paths, path)
	}
	last := paths[len(paths)-1]
	return f.store(Serve, last, keyOf(paths...)), nil
}

// Shared returns the folder of a "serve" command that has the given configuration files and keeps its
// tasks on the servers of a cluster. The argument "process" is the name that the user has given
// to the process, or "". Without a name, machines that share the state folder have different folders.
func (f Folder) Shared(files []string, cluster, process string) (Store, error) {
	s, err := f.Served(files)
	if err == nil {
		s.Dir += "-" + sharedKey(cluster, process, s.Host)
		s.Cluster = cluster
	}
	return s, err
}

// sharedKey returns the part of the folder's name that Shared adds.
func sharedKey(cluster, process, host string) string {
	if process != "" {
		return keyOf(cluster, process)
	}
	return keyOf(cluster, "", host)
}

// ProcessName returns a name for the process that uses the store. It stays the same while the
// machine's name, the configuration files and the state folder stay the same, and is different for
// every other store. It consists of at most 30 letters, digits and hyphens.
func (s Store) ProcessName() string {
	return readable(s.Host)[:min(len(readable(s.Host)), 13)] + "-" + keyOf(s.Host, s.Dir)
}

// Project returns the stores that processes of the command "mcp" created in the project on this machine. A
// project is a working directory. The most recently written store comes first. The processes can be dead or
// alive. Project also describes a new store, without creating it. The argument "id" must be unique.
func (f Folder) Project(dir, id string) (old []Store, fresh Store, err error) {
	path, err := realPath(dir)
	if err != nil {
		return nil, Store{}, err
	}
	key := keyOf(path)
	fresh = f.store(MCP, path, key+"-"+id)
	all, err := f.Stores()
	if err != nil {
		return nil, Store{}, err
	}
	for _, s := range all {
		if s.Kind == MCP && s.Path == path && s.Host == fresh.Host {
			old = append(old, s)
		}
	}
	return old, fresh, nil
}

// Results describes, without creating it, a new store for a "run" command whose results folder is dir. The
// argument "id" must be unique.
func (f Folder) Results(dir, id string) (Store, error) {
	path, err := realPath(dir)
	if err != nil {
		return Store{}, err
	}
	return f.store(Run, path, id), nil
}

// realPath returns the absolute path, with all symbolic links resolved. The file must exist.
func realPath(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err == nil {
		path, err = filepath.EvalSymlinks(path)
	}
	return path, err
}

// keyOf returns a hash of the paths, for use in folder names.
func keyOf(paths ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(paths, "\x00")))
	return hex.EncodeToString(sum[:8])
}

// The method "store" describes the store with the given kind, path and key. The key is part of the folder's
// name, and makes the name unique.
func (f Folder) store(kind, path, key string) Store {
	host, _ := os.Hostname()
	name := filepath.Base(path)
	if kind == Serve && !isDir(path) {
		name = filepath.Base(filepath.Dir(path))
	}
	about := About{Kind: kind, Path: path, Host: host, Began: time.Now()}
	return Store{About: about, Dir: filepath.Join(f.dir, kind+"-"+readable(name)+"-"+key)}
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// readable returns at most 32 ASCII letters and digits from a name, in lower case, because every
// file system accepts them in names. If there are none, it returns "tasks".
func readable(name string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(name) {
		if r < unicode.MaxASCII && (unicode.IsLetter(r) || unicode.IsDigit(r)) && b.Len() < 32 {
			b.WriteRune(r)
		}
	}
	return cmp.Or(b.String(), "tasks")
}

// The variable "named" matches the names of store folders.
var named = regexp.MustCompile(`^(serve|mcp|run)-[a-z0-9]+(-[a-z0-9]+)+$`)

// Named returns the store with the name. The error matches [fs.ErrNotExist] if there is no store
// with this name. Named also returns an error if the store's description is damaged.
func (f Folder) Named(name string) (Store, error) {
	if !named.MatchString(name) {
		return Store{}, fmt.Errorf("%q is not the name of a store: %w", name, fs.ErrNotExist)
	}
	return read(filepath.Join(f.dir, name))
}

// Stores returns all stores. The most recently written store comes first. A folder without a valid
// description is not a store. If the folder with the stores does not exist, the result is empty.
func (f Folder) Stores() ([]Store, error) {
	entries, err := os.ReadDir(f.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	type used struct {
		Store
		at time.Time
	}
	var all []used
	for _, e := range entries {
		if s, err := f.Named(e.Name()); err == nil {
			all = append(all, used{s, s.Used()})
		}
	}
	slices.SortStableFunc(all, func(a, b used) int { return b.at.Compare(a.at) })
	stores := make([]Store, len(all))
	for i, s := range all {
		stores[i] = s.Store
	}
	return stores, nil
}

// maxAbout is the maximum number of bytes read from a description.
const maxAbout = 64 << 10

// read returns the store in the folder.
func read(dir string) (s Store, err error) {
	name := filepath.Join(dir, aboutName)
	if info, err := os.Stat(name); err == nil && !info.Mode().IsRegular() { // opening a pipe could block forever
		return s, fmt.Errorf("%s is not a regular file", name)
	}
	f, err := os.Open(name)
	if err != nil {
		return s, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxAbout))
	if err == nil {
		err = json.Unmarshal(b, &s.About)
	}
	s.Dir = dir
	return s, err
}

// Lost reports whether the file or folder for which the store was created no longer exists.
func (s Store) Lost() bool {
	_, err := os.Lstat(s.Path)
	return errors.Is(err, fs.ErrNotExist)
}

// Used returns the time when the store was last written. If the store does not exist, it returns the zero
// time.
func (s Store) Used() (at time.Time) {
	for _, name := range []string{"lock", "tasks.db", aboutName} {
		if info, err := os.Lstat(filepath.Join(s.Dir, name)); err == nil && info.ModTime().After(at) {
			at = info.ModTime()
		}
	}
	return at
}

// Make creates the store's folder and the description in it, unless they exist. The folder is readable only
// by the user.
func (s Store) Make() error {
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return err
	}
	if _, err := os.Lstat(filepath.Join(s.Dir, aboutName)); err == nil {
		return nil
	}
	return s.Describe()
}

// Describe writes the store's description. It replaces an existing description.
func (s Store) Describe() error {
	b, err := json.Marshal(s.About)
	if err != nil {
		return err
	}
	path := filepath.Join(s.Dir, aboutName)
	part := path + ".part"
	if err := os.WriteFile(part, append(b, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(part, path)
}

// Logs returns the folder of the tasks' logs.
func (s Store) Logs() string { return filepath.Join(s.Dir, "logs") }

// Size returns the total size of the store's files in bytes, including the logs. Files that cannot be
// examined are not counted.
func (s Store) Size() (n int64) {
	_ = filepath.WalkDir(s.Dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			n += info.Size()
		}
		return nil
	})
	return n
}
