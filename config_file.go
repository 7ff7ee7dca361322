package bgagent

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/bgagent/bgagent/internal/jsonc"
	"github.com/bgagent/bgagent/internal/slots"
)

// maxConfigFile is the maximum size of a file in bytes. A larger file is probably the wrong file,
// because nobody writes a megabyte of settings by hand.
const maxConfigFile = 1 << 20

// FileConfig is the content of one or more configuration files. The zero value is
// empty. A FileConfig is immutable.
//
// A file is JSON with comments and trailing commas. Only its section background_task is
// read, at the top level or under "[opencode]"; the values under "[opencode]" override
// those at the top level. In the section, an absent key means the default, and null removes the
// value that an earlier file set. The table shows what 0 means for each key. Values of keys
// that end in Ms are in milliseconds:
//
//	key                                  default     0 means
//	modelConcurrency                     {}          no limit
//	providerConcurrency                  {}          no limit
//	defaultConcurrency                   5           no limit
//	maxDepth                             1           refused
//	maxTasksPerRoot                      100         no limit
//	maxToolCalls                         4000        no limit
//	circuitBreaker.maxToolCalls          4000        no limit
//	circuitBreaker.consecutiveThreshold  20          never
//	circuitBreaker.enabled               true        refused; true or false
//	totalConcurrency                     0           no limit
//	agentConcurrency                     {}          no limit
//	staleTimeoutMs                       180000      never
//	taskTtlMs                            1800000     never
//	queueTtlMs                           0           never
//	sessionGoneMs                        60000       refused
//	hostUnreachableMs                    300000      never
//	stopTimeoutMs                        10000       refused
//	budget                               {}          no limit
//	ask                                  false       refused; true or false
//	modelsMayPermit                      false       refused; true or false
//	backgroundMessage                    false       refused; true or false
//	fallback                             {}          refused
//	fallbackAfterMs                      600000      no wait
//	pollIntervalMs                       2000        refused
//	minIdleTimeMs                        5000        no wait
//	minStabilityTimeMs                   10000       no wait
//	stablePolls                          3           refused
//	todoHoldMs                           30000       no wait
//	wake                                 "batch"     refused; "batch", "each" or "never"
//	noticeWindowMs                       100         no wait
//	noticeMaxWaitMs                      300000      never
//	noticeResultBytes                    0           nothing
//	createTimeoutMs                      30000       refused
//	callTimeoutMs                        10000       refused
//	statusTimeoutMs                      5000        refused
//	readConcurrency                      32          refused
//	retentionMs                          1800000     no time limit
//	retainTasks                          10000       no limit
//	retainTextBytes                      67108864    no limit
//
// The keys with a dot are in an object, as in "circuitBreaker": {"enabled": false}. If
// circuitBreaker.maxToolCalls is set, it overrides maxToolCalls. Setting
// circuitBreaker.enabled to false has the same meaning as setting
// circuitBreaker.consecutiveThreshold to 0.
//
// The host's own names sessionGoneTimeoutMs and taskCleanupDelayMs are accepted as aliases for
// sessionGoneMs and retentionMs. An unknown key is not an error, because it might belong to the
// host or to a fork of the host. [FileConfig.Ignored] reports it. A misspelling of one of the
// table's keys is an error, because otherwise its limit would silently not apply.
type FileConfig struct {
	values  map[valueID]value
	ignored []IgnoredKey
}

// valueID identifies a value. The field "entry" is the model, provider or agent of a limit, the
// limit of a budget, or the model of a fallback. The field is empty for other keys, and for a null
// that removes a whole map of limits.
type valueID struct{ key, entry string }

// value is a number in the unit of the file, a list of names, or a null.
type value struct {
	n      int64
	names  []string // for a key of kind keyFallback
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

// Setting is one value that applies, from a file or as a default.
type Setting struct {
	Key    string // name of the key in background_task
	Entry  string // model, provider or agent of a limit; limit of a budget, such as task.cost; or model with a fallback; otherwise empty
	Value  string // value, as a file would contain it
	Origin Origin // place of the value; zero for a default
}

// Name returns the key, followed by the entry if there is one. If the entry is a budget's limit, it
// follows a dot; any other entry is in brackets.
func (s Setting) Name() string {
	switch {
	case s.Entry == "":
		return s.Key
	case s.Key == budgetKey:
		return s.Key + "." + s.Entry
	}
	return s.Key + jsonc.Index(s.Entry)
}

// LoadConfig reads the files and merges them: limits and fallbacks entry by entry, and all other
// values key by key. Values from later files override values from earlier files, and null removes
// the values from earlier files. A file that does not exist is an error. Values that contradict
// each other are also an error. [New] also finds this error, but only LoadConfig knows where the
// values are in the files. If there are errors, LoadConfig does not load anything and returns the
// errors of all files, joined. Each of them is a [*ConfigFileError], or an [*InputError] for an
// empty path.
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

// contradiction returns the error that New would return for the merged files. The error names keys
// and their places instead of fields.
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
	data, err := io.ReadAll(io.LimitReader(f, maxConfigFile+1)) // the file might have grown since the call to Stat
	if err != nil {
		return nil, fileError(path, err)
	}
	return data, nil
}

func tooLarge(n int64) string {
	return fmt.Sprintf("has %d bytes; a configuration file may have at most %d", n, maxConfigFile)
}

// fileError wraps a file system error. It removes the path from the text of that error,
// because a ConfigFileError already contains the path.
func fileError(path string, err error) error {
	problem := err
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		problem = pe.Err
	}
	return &ConfigFileError{File: path, Problem: "cannot be read: " + problem.Error(), Err: err}
}

// Merge returns f merged with a later file. Like LoadConfig, it merges limits and fallbacks
// entry by entry, and all other values key by key. A value from the later file overrides the
// value from f, and null removes the value from f. Merge does not change the two files.
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

// Settings returns all values that apply, including defaults, with their origins, in the
// order of the table. There is one Setting for each key, with two exceptions. The maps of
// limits, the budgets and the fallbacks have one Setting for each entry. Of maxToolCalls and
// circuitBreaker.maxToolCalls, only the one that applies has a Setting.
func (f FileConfig) Settings() []Setting {
	var out []Setting
	for i := range fileKeys {
		k := &fileKeys[i]
		if _, overridden := f.nestedMaxCalls(); overridden && k.key == maxCallsKey {
			continue
		}
		ids := f.set(k)
		for _, id := range ids {
			v := f.values[id]
			text := k.text(v.n)
			switch k.kind {
			case keyBudget:
				text = budgetText(id.entry, v.n)
			case keyFallback:
				text = fallbackText(v.names)
			}
			out = append(out, Setting{k.key, id.entry, text, v.origin})
		}
		if len(ids) == 0 && !k.hasEntries() && k.key != nestedMaxCallsKey {
			out = append(out, Setting{Key: k.key, Value: k.standard()})
		}
	}
	return out
}

// The method "set" returns the ids of the values that the files contain for a key, sorted by entry.
func (f FileConfig) set(k *fileKey) []valueID {
	if !k.hasEntries() {
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
	if k.kind == keyBudget {
		order := budgetEntries()
		slices.SortFunc(ids, func(a, b valueID) int { return slices.Index(order, a.entry) - slices.Index(order, b.entry) })
	}
	return ids
}

// givesRepeats reports whether the files set circuitBreaker.consecutiveThreshold.
func (f FileConfig) givesRepeats() bool {
	v, ok := f.values[valueID{key: "circuitBreaker.consecutiveThreshold"}]
	return ok && !v.null
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
		if k.kind == keyBudget {
			for _, id := range ids {
				applyBudget(c, id.entry, f.values[id].n)
			}
			continue
		}
		if k.kind == keyFallback {
			f.applyFallbacks(c, ids)
			continue
		}
		if k.kind == keySwitch && f.values[ids[0]].n != 0 && f.givesRepeats() { // "enabled": true keeps the number from the files
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
