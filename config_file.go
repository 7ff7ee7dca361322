package bgagent

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/bgagent/bgagent/internal/jsonc"
	"github.com/bgagent/bgagent/internal/mdtext"
	"github.com/bgagent/bgagent/internal/slots"
)

// maxConfigFile is the size from which on a file is refused: nobody writes a
// megabyte of settings by hand, so it is the wrong file.
const maxConfigFile = 1 << 20

// FileConfig is what one or more configuration files say. The zero value says
// nothing. It is never changed once it has been made.
//
// A file is JSON with comments and trailing commas. Everything but its section
// background_task, at the top or under "[opencode]", belongs to others and is not
// looked at. If both exist, the keys under "[opencode]" win. In the section an
// absent key means the default, null takes back what an earlier file says, and 0
// switches off, where that makes sense. Keys that end in Ms are milliseconds:
//
//	key                   default     0 means
//	modelConcurrency      {}          no limit
//	providerConcurrency   {}          no limit
//	defaultConcurrency    5           no limit
//	maxDepth              1           refused
//	maxTasksPerRoot       100         no limit
//	totalConcurrency      0           no limit
//	agentConcurrency      {}          no limit
//	staleTimeoutMs        180000      never
//	taskTtlMs             1800000     never
//	queueTtlMs            0           never
//	sessionGoneMs         60000       refused
//	hostUnreachableMs     300000      never
//	stopTimeoutMs         10000       refused
//	pollIntervalMs        2000        refused
//	minIdleTimeMs         5000        no wait
//	minStabilityTimeMs    10000       no wait
//	stablePolls           3           refused
//	todoHoldMs            30000       no wait
//	wake                  "batch"     refused; "batch", "each" or "never"
//	noticeWindowMs        100         no wait
//	noticeMaxWaitMs       300000      never
//	createTimeoutMs       30000       refused
//	callTimeoutMs         10000       refused
//	statusTimeoutMs       5000        refused
//	readConcurrency       32          refused
//	retentionMs           1800000     no limit of time
//	retainTasks           10000       no limit
//	retainTextBytes       67108864    no limit
//
// sessionGoneTimeoutMs and taskCleanupDelayMs, the host's own names, stand for
// sessionGoneMs and retentionMs. A key that is not known here, but may be the
// host's or that of a fork, is reported by [FileConfig.Ignored]. One that is a key of
// the table but for a slip of the keyboard is an error, since it would be a limit
// that silently does not hold.
type FileConfig struct {
	values  map[valueID]value
	ignored []IgnoredKey
}

// valueID names a value: entry is the model or provider of a limit. A null for a
// whole map of limits has no entry.
type valueID struct{ key, entry string }

// value is a number in the form of the file, or a null.
type value struct {
	n      int64
	null   bool
	origin Origin
}

// Origin is the place in a file that a value comes from. The zero Origin stands
// for the default.
type Origin struct {
	File         string
	Line, Column int // from 1; the column counts characters
}

// String returns file:line:column, or default.
func (o Origin) String() string {
	switch {
	case o == Origin{}:
		return "default"
	case o.Line == 0:
		return o.File
	}
	return fmt.Sprintf("%s:%d:%d", o.File, o.Line, o.Column)
}

// IgnoredKey is a key that has no effect and causes no error, although whoever
// wrote it may believe that it does something.
type IgnoredKey struct {
	Key    string // as in background_task.maxToolCalls; empty for a file that has no section for us
	Reason string // what to use instead, without a full stop
	Origin Origin
}

// String returns place, key and reason in one line.
func (k IgnoredKey) String() string {
	if k.Key == "" {
		return fmt.Sprintf("%v: %s", k.Origin, k.Reason)
	}
	return fmt.Sprintf("%v: %s is ignored: %s", k.Origin, k.Key, k.Reason)
}

// Setting is one value that applies.
type Setting struct {
	Key    string // of background_task
	Entry  string // the model or provider that is limited; else empty
	Value  string // as a file writes it
	Origin Origin // zero for the default
}

// Name returns the key and, in brackets, the entry.
func (s Setting) Name() string {
	if s.Entry == "" {
		return s.Key
	}
	return s.Key + jsonc.Index(s.Entry)
}

// LoadConfig reads the files and merges them key by key, limits entry by entry,
// later files over earlier ones; null takes back what earlier files say. A file
// that does not exist is an error, and so are values that contradict each other,
// which [New] would refuse without knowing where they stand. All errors of all files are returned
// together, each a [*ConfigFileError] (an [*InputError] for a path that is empty),
// and then nothing is loaded.
func LoadConfig(paths ...string) (FileConfig, error) {
	var all FileConfig
	var errs []error
	for _, path := range paths {
		if path == "" {
			errs = append(errs, &InputError{"path", "is empty; it must name a configuration file"})
			continue
		}
		data, err := readConfigFile(path)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		f, err := ParseConfig(path, data)
		errs = append(errs, flatten(err)...)
		all = all.Merge(f)
	}
	if len(errs) == 0 {
		errs = flatten(all.contradiction())
	}
	if len(errs) > 0 {
		return FileConfig{}, errors.Join(errs...)
	}
	return all, nil
}

var fieldName = regexp.MustCompile(`Config(\.[A-Za-z]+)+`)

// contradiction returns what New would refuse of what the files say together, with
// the keys and their places in the place of the fields.
func (f FileConfig) contradiction() error {
	var c Config
	f.Apply(&c)
	var wrong *InputError
	if !errors.As(c.validate(), &wrong) {
		return nil
	}
	at := map[string]Origin{}
	for _, s := range f.Settings() {
		at[s.Key] = s.Origin
	}
	var origin Origin
	named := func(field string) string {
		for i := range fileKeys {
			if k := &fileKeys[i]; "Config."+k.field == field {
				if origin == (Origin{}) {
					origin = at[k.key]
				}
				return keyPath(k.key)
			}
		}
		return field
	}
	key := named(wrong.Field)
	problem := fieldName.ReplaceAllStringFunc(wrong.Problem, func(field string) string {
		name := named(field)
		for key, o := range at {
			if keyPath(key) == name {
				return fmt.Sprintf("%s (%v)", name, o)
			}
		}
		return name
	})
	return &ConfigFileError{File: origin.File, Line: origin.Line, Column: origin.Column, Key: key, Problem: problem}
}

// flatten takes a joined error apart, so that joining it with others gives one
// flat list.
func flatten(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	if err != nil {
		return []error{err}
	}
	return nil
}

func readConfigFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fileError(path, err)
	}
	switch {
	case info.IsDir():
		return nil, &ConfigFileError{File: path, Problem: "is a directory; name the file in it", Err: syscall.EISDIR}
	case !info.Mode().IsRegular(): // reading a pipe or a device could block for ever
		return nil, &ConfigFileError{File: path, Problem: "is not a regular file"}
	case info.Size() > maxConfigFile:
		return nil, &ConfigFileError{File: path, Problem: tooLarge(info.Size())}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fileError(path, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxConfigFile+1)) // it may have grown since
	if err != nil {
		return nil, fileError(path, err)
	}
	return data, nil
}

func tooLarge(n int64) string {
	return fmt.Sprintf("is %d bytes large; a configuration file may have %d", n, maxConfigFile)
}

// fileError wraps an error of the file system, without naming the path twice.
func fileError(path string, err error) error {
	problem := err
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		problem = pe.Err
	}
	return &ConfigFileError{File: path, Problem: "cannot be read: " + problem.Error(), Err: err}
}

// Merge returns what f says with a later file laid over it, as LoadConfig does: key
// by key, limits entry by entry, and null takes back what f says. Neither of the
// two is changed.
func (f FileConfig) Merge(later FileConfig) FileConfig {
	values := maps.Clone(f.values)
	if values == nil {
		values = map[valueID]value{}
	}
	for id, v := range later.values {
		if v.null && id.entry == "" { // takes back all entries of a map of limits
			maps.DeleteFunc(values, func(old valueID, _ value) bool { return old.key == id.key })
		}
	}
	for id, v := range later.values {
		if v.null {
			delete(values, id)
		} else {
			values[id] = v
		}
	}
	return FileConfig{values, slices.Concat(f.ignored, later.ignored)}
}

// Ignored returns the keys that have no effect, file by file in the order in
// which they stand there: keys of the host that have no counterpart here, keys
// that are not known here, and keys outside of background_task that look as if they
// were meant to stand in it; a file without a section for us, too. The last may be a
// staleTimeoutMs that is longer than the time to live, which ends a task first.
func (f FileConfig) Ignored() []IgnoredKey {
	all := slices.Clone(f.ignored)
	if k, ok := f.neverStale(); ok {
		all = append(all, k)
	}
	return all
}

// neverStale reports a stale timeout that has no effect.
func (f FileConfig) neverStale() (IgnoredKey, bool) {
	staleKey, ttlKey := limitStaleTimeout.key(), limitTimeToLive.key()
	stale, ok := f.values[valueID{key: staleKey}]
	ttl, set := f.values[valueID{key: ttlKey}]
	where := ttl.origin.String()
	if !set || ttl.null {
		ttl.n, where = DefaultTimeToLive.Milliseconds(), "the default"
	}
	if !ok || stale.null || stale.n == 0 || ttl.n == 0 || stale.n <= ttl.n {
		return IgnoredKey{}, false
	}
	ms := func(n int64) string { return fmt.Sprintf("%d (%s)", n, mdtext.Span(time.Duration(n)*time.Millisecond)) }
	return IgnoredKey{keyPath(staleKey), fmt.Sprintf("it is %s, longer than %s, which is %s (%s) and so ends a task first; raise %s, too",
		ms(stale.n), keyPath(ttlKey), ms(ttl.n), where, ttlKey), stale.origin}, true
}

// Settings returns everything that applies, defaults included, with where it
// comes from: each key once, in the order of the table, the maps of limits entry
// by entry.
func (f FileConfig) Settings() []Setting {
	var out []Setting
	for i := range fileKeys {
		k := &fileKeys[i]
		ids := f.set(k)
		for _, id := range ids {
			v := f.values[id]
			out = append(out, Setting{k.key, id.entry, k.text(v.n), v.origin})
		}
		if len(ids) == 0 && k.kind != keyLimits {
			out = append(out, Setting{Key: k.key, Value: k.standard()})
		}
	}
	return out
}

// set returns the values of a key, entries in order.
func (f FileConfig) set(k *fileKey) []valueID {
	if k.kind != keyLimits {
		id := valueID{key: k.key}
		if v, ok := f.values[id]; !ok || v.null {
			return nil
		}
		return []valueID{id}
	}
	var ids []valueID
	for id, v := range f.values {
		if id.key == k.key && !v.null {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b valueID) int { return strings.Compare(a.entry, b.entry) })
	return ids
}

// Apply sets the fields of c that the files set and leaves the others alone.
// Limits are set entry by entry, in maps that c shares with nobody. Values that
// contradict each other are found by [New], but for a StaleTimeout that is longer
// than the TimeToLive, which has no effect and is set to the latter. It says nothing
// of keys that have no effect, among them a section whose name is misspelt: show
// Ignored to the user.
func (f FileConfig) Apply(c *Config) {
	for i := range fileKeys {
		k := &fileKeys[i]
		ids := f.set(k)
		if len(ids) == 0 {
			continue
		}
		if k.kind != keyLimits {
			_, set := k.access(c)
			set(k.toConfig(f.values[ids[0]].n))
			continue
		}
		limits := make(map[string]int, len(ids))
		for name, n := range *k.limits(c) {
			if v, ok := f.values[valueID{k.key, slots.Normal(name)}]; !ok || v.null {
				limits[name] = n
			}
		}
		for _, id := range ids {
			limits[id.entry] = int(k.toConfig(f.values[id].n))
		}
		*k.limits(c) = limits
	}
	_, stale := f.values[valueID{key: limitStaleTimeout.key()}]
	_, ttl := f.values[valueID{key: limitTimeToLive.key()}]
	if (stale || ttl) && c.TimeToLive > 0 {
		c.StaleTimeout = min(c.StaleTimeout, c.TimeToLive)
	}
}

// The names of the host's file, the newest first. The one for all harnesses lies in
// a directory of its own.
var (
	hostNames    = []string{"oh-my-openagent.jsonc", "oh-my-openagent.json", "oh-my-opencode.jsonc", "oh-my-opencode.json"}
	unifiedNames = []string{"omo.jsonc", "omo.json"}
)

const unifiedDir = ".omo"

// FindConfigFiles returns the configuration files that exist in the usual places
// in the order in which [LoadConfig] wants them: the user's, then the project's. An
// empty projectDir means that there is no project. That nothing is found is no
// error.
//
// The user's is ~/.omo/omo.jsonc, whose settings stand under "[opencode]"; or else
// oh-my-openagent.jsonc in $XDG_CONFIG_HOME/opencode (~/.config/opencode where that
// is not set); or else, under the older name, oh-my-opencode.jsonc there. The
// project's is .omo/omo.jsonc or one of the others in .opencode. Each may end in
// .json instead. The newest that exists is returned and the older ones beside it
// are left alone, with one exception: a file for all harnesses that has no section
// for us is returned after the older one, so that the older one applies and
// [FileConfig.Ignored] says of the newer one that nothing in it does.
func FindConfigFiles(projectDir string) ([]string, error) {
	user, project := configPlaces{}, configPlaces{}
	home, err := os.UserHomeDir()
	if err == nil { // a service may well have no home, and so no file in it
		user.unified = filepath.Join(home, unifiedDir)
		user.own = filepath.Join(home, ".config", "opencode")
	}
	if dir := os.Getenv("XDG_CONFIG_HOME"); filepath.IsAbs(dir) { // a relative one is to be ignored, says the XDG specification
		user.own = filepath.Join(dir, "opencode")
	}
	if projectDir != "" {
		project = configPlaces{own: filepath.Join(projectDir, ".opencode"), unified: filepath.Join(projectDir, unifiedDir)}
	}
	var found []string
	for _, p := range []configPlaces{user, project} {
		paths, err := p.find()
		if err != nil {
			return nil, err
		}
		for _, path := range paths {
			if !slices.Contains(found, path) { // the project may be the user's home
				found = append(found, path)
			}
		}
	}
	return found, nil
}

// configPlaces are the directories in which the file of a user or a project may lie.
// An empty one does not exist.
type configPlaces struct{ own, unified string }

func (p configPlaces) find() ([]string, error) {
	own, err := firstFile(p.own, hostNames)
	if err != nil {
		return nil, err
	}
	unified, err := firstFile(p.unified, unifiedNames)
	switch {
	case err != nil:
		return nil, err
	case unified == "" && own == "":
		return nil, nil
	case unified == "":
		return []string{own}, nil
	case own == "" || hasSection(unified):
		return []string{unified}, nil
	}
	return []string{own, unified}, nil
}

// firstFile returns the first of the names that exists in the directory, or "".
func firstFile(dir string, names []string) (string, error) {
	if dir == "" {
		return "", nil
	}
	for _, name := range names {
		path := filepath.Join(dir, name)
		_, err := os.Lstat(path) // not Stat: a link that leads nowhere is a mistake to report, not an absent file
		if err == nil {
			return path, nil
		}
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
			return "", fileError(path, err)
		}
	}
	return "", nil
}

// hasSection reports whether the file has a section for us. One that cannot be read
// counts as if it had, so that loading it says what is wrong.
func hasSection(path string) bool {
	data, err := readConfigFile(path)
	if err != nil {
		return true
	}
	p := parseFile(path, data)
	return p.found || len(p.errs) > 0
}
