package bgagent

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/bgagent/bgagent/internal/jsonc"
	"github.com/bgagent/bgagent/internal/spell"
)

// section is our part of the host's configuration file. It is at the top level or
// under the name that the host's file for all harnesses uses for opencode.
const (
	section      = "background_task"
	plainSection = "backgroundtask" // in the form of plainKey
	harness      = "[opencode]"
)

// keyKind says what a key of the file holds.
type keyKind uint8

const (
	keyMs     keyKind = iota // a duration of Config, in milliseconds
	keyCount                 // a count of Config
	keyBytes                 // Config.RetainText or Config.NoticeResult
	keyLimit                 // a number of Limits
	keyLimits                // a map of Limits
	keyWake                  // Config.Wake
)

// fileKey is one key of the file. In Config, 0 means the default and -1 switches
// off. In the file, an absent key means the default and 0 switches off, as in the
// host's own file.
type fileKey struct {
	key   string
	alias string // the host's name for the key, if it has another one
	kind  keyKind
	field string // the name in Config
	zero  string // what 0 means, after "0 for"; empty if 0 is refused
	about string
	limit timeLimit // set for a duration
}

// fileKeys is the table of keys, in the order of the documentation and of files that
// are written. The host's names are kept unless 0 would mislead: taskCleanupDelayMs:
// 0 looks like "at once" but would have to mean "never".
var fileKeys = []fileKey{
	{key: "modelConcurrency", kind: keyLimits, field: "Limits.Model", zero: "no limit", about: "Sessions in a turn at the same time, by model: `provider/model`, or a model id without a slash for any provider"},
	{key: "providerConcurrency", kind: keyLimits, field: "Limits.Provider", zero: "no limit", about: "The same for all models of a provider together, except those with a limit of their own"},
	{key: "defaultConcurrency", kind: keyLimit, field: "Limits.Default", zero: "no limit", about: "The same for each other model and for each agent without a model, counted separately"},
	{key: "maxDepth", kind: keyCount, field: "MaxDepth", about: "How deep tasks may delegate. With 1, a task may not delegate"},
	{key: "maxTasksPerRoot", kind: keyCount, field: "MaxTasksPerRoot", zero: "no limit", about: "Live tasks under one root session"},
	{key: "totalConcurrency", kind: keyLimit, field: "Limits.Total", zero: "no limit", about: "Sessions in a turn at the same time, all together, in addition to the limits by model, by provider and by default"},
	{key: "agentConcurrency", kind: keyLimits, field: "Limits.Agent", zero: "no limit", about: "The same by agent, with any model. Without a model, it replaces `defaultConcurrency`"},

	limitStaleTimeout.inFile(),
	limitTimeToLive.inFile(),
	limitQueueTimeToLive.inFile(),
	limitSessionGone.inFile(),
	limitHostUnreachable.inFile(),
	limitStopTimeout.inFile(),

	limitPollInterval.inFile(),
	limitMinIdleTime.inFile(),
	limitMinStabilityTime.inFile(),
	{key: "stablePolls", kind: keyCount, field: "StablePolls", about: "Number of polls in a row without a change, or without output, that end the turn"},
	limitTodoHold.inFile(),

	{key: "wake", kind: keyWake, field: "Wake", about: "When a root session gets its notices: `\"batch\"`, `\"each\"` or `\"never\"`"},
	limitNoticeWindow.inFile(),
	limitNoticeMaxWait.inFile(),
	{key: "noticeResultBytes", kind: keyBytes, field: "NoticeResult", zero: "nothing", about: "How many bytes of each result a notice carries. Where notices come with tool results, as from `bgagent mcp` and `bgagent serve`, these carry them"},

	limitCreateTimeout.inFile(),
	limitCallTimeout.inFile(),
	limitStatusTimeout.inFile(),
	{key: "readConcurrency", kind: keyCount, field: "ReadConcurrency", about: "Sessions of a client that are read at the same time"},

	limitRetention.inFile(),
	{key: "retainTasks", kind: keyCount, field: "RetainTasks", zero: "no limit", about: "How many ended tasks are kept"},
	{key: "retainTextBytes", kind: keyBytes, field: "RetainText", zero: "no limit", about: "How many bytes of results are kept"},
}

// foreignKeys are the keys of the host's section that have no counterpart here, with
// what applies instead.
var foreignKeys = []struct{ key, reason string }{
	{"messageStalenessTimeoutMs", limitStaleTimeout.key() + " is the only limit on silence here, before and after the first message"},
	{"syncPollTimeoutMs", "a foreground task lives as long as its caller waits"},
	{"maxDescendants", "the limit here is maxTasksPerRoot, which counts only live tasks"},
	{"maxToolCalls", "tool calls are not limited here"},
	{"circuitBreaker", "tool calls are not limited here"},
	{"quotaRouting", "the program chooses models with Config.Model"},
}

func foreignReason(key string) (string, bool) {
	for _, f := range foreignKeys {
		if f.key == key {
			return f.reason, true
		}
	}
	return "", false
}

// keyNamed returns the key with that name or alias, or nil.
func keyNamed(name string) *fileKey {
	for i := range fileKeys {
		if k := &fileKeys[i]; k.key == name || k.alias != "" && k.alias == name {
			return k
		}
	}
	return nil
}

// keyPath names a key in errors, such as background_task.modelConcurrency["gpt-5.2"].
func keyPath(key string, entry ...string) string {
	path := jsonc.Key(section, key)
	for _, e := range entry {
		path += jsonc.Index(e)
	}
	return path
}

func isASCIIAlnum(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
}

// unit returns the value in Config for 1 in the file.
func (k *fileKey) unit() int64 {
	if k.kind == keyMs {
		return int64(time.Millisecond)
	}
	return 1
}

// most returns the largest number that the field can hold.
func (k *fileKey) most() int64 {
	switch k.kind {
	case keyMs:
		return math.MaxInt64 / int64(time.Millisecond)
	case keyBytes:
		if k.field == "NoticeResult" {
			return math.MaxInt
		}
		return math.MaxInt64
	default:
		return math.MaxInt
	}
}

// example returns an example of a map of limits.
func (k *fileKey) example() string {
	switch k.field {
	case "Limits.Model":
		return `{ "claude-opus-4-5": 2 }`
	case "Limits.Agent":
		return `{ "explore": 2 }`
	}
	return `{ "anthropic": 3 }`
}

// want says which values are right.
func (k *fileKey) want() string {
	if k.kind == keyWake {
		return `"batch", "each" or "never"`
	}
	s := "a whole number"
	switch k.kind {
	case keyMs:
		s += " of milliseconds"
	case keyBytes:
		s += " of bytes"
	}
	if k.zero == "" {
		return s + ", at least 1"
	}
	return s + ", or 0 for " + k.zero
}

// access returns the field of c as a number, and a function that sets it. It must
// not be called for the maps of limits.
func (k *fileKey) access(c *Config) (int64, func(int64)) {
	switch k.kind {
	case keyMs:
		d := k.limit.of(c)
		return int64(*d), func(n int64) { *d = time.Duration(n) }
	case keyCount:
		for _, d := range c.counts() {
			if d.name == k.field {
				return int64(*d.value), func(n int64) { *d.value = int(n) }
			}
		}
	case keyBytes:
		if k.field == "NoticeResult" {
			return int64(c.NoticeResult), func(n int64) { c.NoticeResult = int(n) }
		}
		return c.RetainText, func(n int64) { c.RetainText = n }
	case keyLimit:
		if k.field == "Limits.Total" {
			return int64(c.Limits.Total), func(n int64) { c.Limits.Total = int(n) }
		}
		return int64(c.Limits.Default), func(n int64) { c.Limits.Default = int(n) }
	case keyWake:
		return int64(c.Wake), func(n int64) { c.Wake = Wake(n) }
	}
	panic("bgagent: bug: no field for the key " + k.key)
}

// limits returns the map of limits that the key sets.
func (k *fileKey) limits(c *Config) *map[string]int {
	switch k.field {
	case "Limits.Model":
		return &c.Limits.Model
	case "Limits.Provider":
		return &c.Limits.Provider
	case "Limits.Agent":
		return &c.Limits.Agent
	}
	panic("bgagent: bug: no map for the key " + k.key)
}

// toConfig converts a number of the file to one of Config.
func (k *fileKey) toConfig(n int64) int64 {
	if n == 0 && k.kind != keyWake {
		return -1 // Unlimited and Disabled alike
	}
	return n * k.unit()
}

// fromConfig converts a number of Config, which must not be 0, to one of the file.
// The error says what is wrong with it.
func (k *fileKey) fromConfig(n int64) (int64, error) {
	switch {
	case k.kind == keyWake && n > int64(WakeNever):
		return 0, fmt.Errorf("is %d; it must be WakeBatch, WakeEach or WakeNever", n)
	case n == -1 && k.zero != "":
		return 0, nil
	case n < 0 && k.zero != "":
		return 0, fmt.Errorf("is %s; it must be positive, 0 for the default, or -1 for %s", k.inConfig(n), k.zero)
	case n < 0:
		return 0, fmt.Errorf("is %s; it must be positive, or 0 for the default", k.inConfig(n))
	case n%k.unit() != 0:
		return 0, fmt.Errorf("is %s; a file holds only whole milliseconds", k.inConfig(n))
	}
	return n / k.unit(), nil
}

func (k *fileKey) inConfig(n int64) string {
	if k.kind == keyMs {
		return time.Duration(n).String()
	}
	return strconv.FormatInt(n, 10)
}

// text returns the value as the file writes it.
func (k *fileKey) text(n int64) string {
	if k.kind == keyWake {
		return strconv.Quote(Wake(n).String())
	}
	return strconv.FormatInt(n, 10)
}

// standard returns the default as a file would write it.
func (k *fileKey) standard() string {
	if k.kind == keyLimits {
		return "{}"
	}
	c, err := Config{Limits: Limits{Default: DefaultConcurrency}}.withDefaults()
	if err != nil {
		panic("bgagent: bug: the defaults are refused: " + err.Error())
	}
	n, _ := k.access(&c)
	if n, err = k.fromConfig(n); err != nil {
		panic("bgagent: bug: the default of " + k.key + " cannot be written: " + err.Error())
	}
	return k.text(n)
}

// spellings are the names that an unknown key is compared with, each with its key.
// They include the fields of Config, so that timeToLive finds taskTtlMs.
var spellings = sync.OnceValue(func() (all [][2]string) {
	for i := range fileKeys {
		k := &fileKeys[i]
		all = append(all, [2]string{k.key, k.key})
		if k.alias != "" {
			all = append(all, [2]string{k.alias, k.alias})
		}
	}
	for _, f := range foreignKeys {
		all = append(all, [2]string{f.key, f.key})
	}
	for i := range fileKeys {
		k := &fileKeys[i]
		all = append(all, [2]string{k.field, k.key}, [2]string{k.field + "Ms", k.key})
	}
	for i := range all {
		all[i][0] = plainKey(all[i][0])
	}
	return all
})

// nearestKey returns the known key with the nearest spelling, or "".
func nearestKey(name string) string {
	name = plainKey(name)
	best, least := "", 1+min(3, len(name)/3)
	for _, s := range spellings() {
		if d := spell.Distance(name, s[0], least); d < least {
			best, least = s[1], d
		}
	}
	return best
}

// mistyped returns the known key that name almost matches, or "". Such a name has one
// character too many, missing or wrong, two swapped characters, or another separation
// of words. It is an error because a limit would be lost with it. A key that differs
// more may belong to a newer host and is only reported.
func mistyped(name string) string {
	name = plainKey(name)
	for _, s := range spellings() {
		if keyNamed(s[1]) != nil && (spell.Distance(name, s[0], 2) < 2 || exchanged(name, s[0])) {
			return s[1]
		}
	}
	return ""
}

// exchanged reports whether a and b differ only in two swapped neighbours.
func exchanged(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) - 1 {
		if a[i] != b[i] {
			return a[i] == b[i+1] && a[i+1] == b[i] && a[i+2:] == b[i+2:]
		}
	}
	return false
}

// relatedKey returns the key with the nearest spelling. If there is none, it returns
// the first key that shares the most words with name, or "".
func relatedKey(name string) string {
	if near := nearestKey(name); near != "" {
		return near
	}
	words := wordsOf(name)
	best, most := "", 0
	for i, key := range keyWords() {
		shared := 0
		for _, w := range key {
			if slices.Contains(words, w) {
				shared++
			}
		}
		if shared > most {
			best, most = fileKeys[i].key, shared
		}
	}
	return best
}

// keyWords holds the words of each key of the table.
var keyWords = sync.OnceValue(func() (all [][]string) {
	for i := range fileKeys {
		all = append(all, wordsOf(fileKeys[i].key))
	}
	return all
})

// wordsOf returns the words of a key except those that do not describe its subject.
func wordsOf(name string) (words []string) {
	word := ""
	for i := 0; i <= len(name) && i < 120; i++ {
		upper := i < len(name) && 'A' <= name[i] && name[i] <= 'Z'
		if i == len(name) || upper || !isASCIIAlnum(rune(name[i])) {
			switch word {
			case "", "ms", "max", "min", "per", "time", "timeout", "limit":
			default:
				words = append(words, word)
			}
			word = ""
		}
		if i < len(name) && isASCIIAlnum(rune(name[i])) {
			word += strings.ToLower(name[i : i+1])
		}
	}
	return words
}

var plainReplacer = strings.NewReplacer("_", "", "-", "", ".", "", " ", "")

// plainKey returns the same for stale_timeout_ms and StaleTimeoutMs.
func plainKey(s string) string { return strings.ToLower(plainReplacer.Replace(s)) }
