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

// maxConfigFile is the maximum size of a file in bytes. Nobody writes a megabyte of
// settings by hand, so a larger file cannot be the intended file.
const maxConfigFile = 1 << 20

// FileConfig is the content of one or more configuration files. The zero value is
// empty. A FileConfig is immutable.
//
// A file is JSON with comments and trailing commas. Only its section background_task
// is read, at the top level or under "[opencode]"; the values under "[opencode]"
// override those at the top level. In the section, an absent key means the default,
// and null removes the value of an earlier file. The table shows what 0 means for each
// key. Values of keys that end in Ms are in milliseconds:
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
//	noticeResultBytes     0           nothing
//	createTimeoutMs       30000       refused
//	callTimeoutMs         10000       refused
//	statusTimeoutMs       5000        refused
//	readConcurrency       32          refused
//	retentionMs           1800000     no limit of time
//	retainTasks           10000       no limit
//	retainTextBytes       67108864    no limit
//
// The host's own names sessionGoneTimeoutMs and taskCleanupDelayMs are accepted for
// sessionGoneMs and retentionMs. An unknown key is not an error, because it may belong
// to the host or to a fork of the host; [FileConfig.Ignored] reports it. A misspelt key
// of the table is an error, because its limit would otherwise silently not apply.
type FileConfig struct {
	values  map[valueID]value
	ignored []IgnoredKey
}

// valueID identifies a value. The field entry is the model, provider or agent of a
// limit. It is empty for other keys, and for a null that removes a whole map of limits.
type valueID struct{ key, entry string }

// value is a number in the unit of the file, or a null.
type value struct {
	n      int64
	null   bool
	origin Origin
}

// Origin is the place of a value in a file. The zero Origin stands for a default.
type Origin struct {
	File         string
	Line, Column int // counted from 1; Column counts characters
}

// String returns "file:line:column", or "default" for the zero Origin.
func (o Origin) String() string {
	switch {
	case o == Origin{}:
		return "default"
	case o.Line == 0:
		return o.File
	}
	return fmt.Sprintf("%s:%d:%d", o.File, o.Line, o.Column)
}

// IgnoredKey is a key in a file that has no effect, although its author may expect an
// effect.
type IgnoredKey struct {
	Key    string // path of the key, such as background_task.maxToolCalls; empty for a file without the section background_task
	Reason string // why the key has no effect, or what to use instead; without a full stop
	Origin Origin
}

// String returns the place, the key and the reason in one line.
func (k IgnoredKey) String() string {
	if k.Key == "" {
		return fmt.Sprintf("%v: %s", k.Origin, k.Reason)
	}
	return fmt.Sprintf("%v: %s is ignored: %s", k.Origin, k.Key, k.Reason)
}

// Setting is one value that applies, from a file or as a default.
type Setting struct {
	Key    string // name of the key in background_task
	Entry  string // model, provider or agent of a limit; empty for other keys
	Value  string // value as a file writes it
	Origin Origin // place of the value; zero for a default
}

// Name returns the key, and after it the entry in brackets if there is an entry.
func (s Setting) Name() string {
	if s.Entry == "" {
		return s.Key
	}
	return s.Key + jsonc.Index(s.Entry)
}

// LoadConfig reads the files and merges them key by key, and limits entry by entry.
// Values of later files override values of earlier files, and null removes the values of
// earlier files. A file that does not exist is an error. Values that contradict each
// other are an error too: LoadConfig knows their places in the files, and [New] does
// not. If there are errors, LoadConfig loads nothing and returns the errors of all files
// together. Each is a [*ConfigFileError], or an [*InputError] for an empty path.
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

// contradiction returns the error that New would return for the merged files. Its text
// names keys and their places instead of fields.
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

// flatten splits a joined error into its errors, so that joining them with other errors
// gives a flat list.
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
	case !info.Mode().IsRegular(): // reading a pipe or a device could block forever
		return nil, &ConfigFileError{File: path, Problem: "is not a regular file"}
	case info.Size() > maxConfigFile:
		return nil, &ConfigFileError{File: path, Problem: tooLarge(info.Size())}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fileError(path, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxConfigFile+1)) // the file may have grown since Stat
	if err != nil {
		return nil, fileError(path, err)
	}
	return data, nil
}

func tooLarge(n int64) string {
	return fmt.Sprintf("has %d bytes; a configuration file may have at most %d", n, maxConfigFile)
}

// fileError wraps an error of the file system. It removes the path from the text of that
// error, because a ConfigFileError names the path already.
func fileError(path string, err error) error {
	problem := err
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		problem = pe.Err
	}
	return &ConfigFileError{File: path, Problem: "cannot be read: " + problem.Error(), Err: err}
}

// Merge returns f merged with a later file. Like LoadConfig, it merges key by key and
// limits entry by entry. A value of the later file overrides the value of f, and null
// removes the value of f. Merge changes neither f nor later.
func (f FileConfig) Merge(later FileConfig) FileConfig {
	values := maps.Clone(f.values)
	if values == nil {
		values = map[valueID]value{}
	}
	for id, v := range later.values {
		if v.null && id.entry == "" { // this null removes all entries of a map of limits
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

// Ignored returns the keys that have no effect, in the order of the files and of the
// keys in them. These are keys of the host without a counterpart here, unknown keys,
// and keys outside background_task that seem to belong in it. Ignored also reports a
// file without the section background_task. The last entry may be a staleTimeoutMs that
// is longer than taskTtlMs. Such a staleTimeoutMs has no effect, because taskTtlMs ends
// a task first.
func (f FileConfig) Ignored() []IgnoredKey {
	all := slices.Clone(f.ignored)
	if k, ok := f.neverStale(); ok {
		all = append(all, k)
	}
	return all
}

// neverStale returns a stale timeout that is longer than the time to live and therefore
// has no effect.
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
	return IgnoredKey{keyPath(staleKey), fmt.Sprintf("it is %s, longer than %s, which is %s (%s) and so ends a task first; raise %s as well",
		ms(stale.n), keyPath(ttlKey), ms(ttl.n), where, ttlKey), stale.origin}, true
}

// Settings returns all values that apply, including defaults, with their origins, in the
// order of the table. There is one Setting for each key, except for the maps of limits:
// these have one Setting for each entry.
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

// set returns the ids of the values that are set for a key, sorted by entry.
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

// Apply sets the fields of c for which the files have values, and does not change the
// other fields. It sets limits entry by entry, in new maps. If the files set StaleTimeout
// or TimeToLive, and StaleTimeout is then longer than TimeToLive, Apply lowers it to
// TimeToLive. [New] finds all other values that contradict each other. Apply does not
// report keys without effect, such as a misspelt section; show the result of
// [FileConfig.Ignored] to the user.
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

// The possible names of the host's configuration file, the newest name first. The names
// in unifiedNames belong to the host's file for all harnesses, which is in the directory
// unifiedDir.
var (
	hostNames    = []string{"oh-my-openagent.jsonc", "oh-my-openagent.json", "oh-my-opencode.jsonc", "oh-my-opencode.json"}
	unifiedNames = []string{"omo.jsonc", "omo.json"}
)

const unifiedDir = ".omo"

// FindConfigFiles returns the paths of the existing configuration files in the usual
// places, in the order for [LoadConfig]: the user's file, then the project's file. An
// empty projectDir means that there is no project. If there are no files,
// FindConfigFiles returns no paths and no error.
//
// The user's file is ~/.omo/omo.jsonc, with the settings under "[opencode]". If that
// file does not exist, the user's file is oh-my-openagent.jsonc in
// $XDG_CONFIG_HOME/opencode, or oh-my-opencode.jsonc, its older name, in the same
// directory. If XDG_CONFIG_HOME is not set, the directory is ~/.config/opencode. The
// project's file is .omo/omo.jsonc in projectDir, or else a file with one of the other
// two names in projectDir/.opencode. The name of each file may end in .json instead.
//
// If several of these files exist, only the newest kind is returned, with one exception:
// if omo.jsonc has no section background_task, it is returned after the older file. The
// values of the older file then apply, and [FileConfig.Ignored] reports that omo.jsonc
// has no effect.
func FindConfigFiles(projectDir string) ([]string, error) {
	user, project := configPlaces{}, configPlaces{}
	home, err := os.UserHomeDir()
	if err == nil { // a service may have no home directory
		user.unified = filepath.Join(home, unifiedDir)
		user.own = filepath.Join(home, ".config", "opencode")
	}
	if dir := os.Getenv("XDG_CONFIG_HOME"); filepath.IsAbs(dir) { // the XDG specification says to ignore relative paths
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
			if !slices.Contains(found, path) { // the project directory may be the user's home directory
				found = append(found, path)
			}
		}
	}
	return found, nil
}

// configPlaces holds the directories for the files of a user or of a project. An empty
// path means that there is no such directory.
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

// firstFile returns the path of the first file of names that exists in the directory, or
// "" if none exists.
func firstFile(dir string, names []string) (string, error) {
	if dir == "" {
		return "", nil
	}
	for _, name := range names {
		path := filepath.Join(dir, name)
		_, err := os.Lstat(path) // Stat would take a broken link for an absent file; it must be reported
		if err == nil {
			return path, nil
		}
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
			return "", fileError(path, err)
		}
	}
	return "", nil
}

// hasSection reports whether the file has a section background_task. It returns true for
// a file that cannot be read or parsed, so that LoadConfig reports the error.
func hasSection(path string) bool {
	data, err := readConfigFile(path)
	if err != nil {
		return true
	}
	p := parseFile(path, data)
	return p.found || len(p.errs) > 0
}
