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

// section names the part of the host's configuration file that this package reads. The
// part is at the top level, or under the name harness in the host's file for all
// harnesses.
const (
	section      = "background_task"
	plainSection = "backgroundtask" // the section as plainKey returns it
	harness      = "[opencode]"
)

// keyKind says which type of value a key of the file has.
type keyKind uint8

const (
	keyMs     keyKind = iota // a duration in Config, written in milliseconds
	keyCount                 // an int field of Config that Config.counts lists
	keyBytes                 // Config.RetainText or Config.NoticeResult
	keyLimit                 // Limits.Default or Limits.Total
	keyLimits                // a map in Limits
	keyWake                  // Config.Wake
)

// fileKey describes one key of the file. In Config, 0 means the default and -1 switches
// the limit off. In the file, an absent key means the default and 0 switches the limit
// off, as in the host's own file.
type fileKey struct {
	key   string
	alias string // the host's name for the key if it differs, otherwise empty
	kind  keyKind
	field string    // name of the field in Config
	zero  string    // words that follow "0 for"; empty if 0 is refused
	about string    // description in the documentation
	limit timeLimit // row of a duration in timeLimits
}

// fileKeys is the table of keys. Its order is the order of the documentation and of the
// files that FormatConfig writes. A key has the host's name unless 0 would mislead:
// "taskCleanupDelayMs: 0" reads like "drop at once" but would have to mean "never drop".
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

// foreignKeys lists the keys of the host's section that have no counterpart here. The
// reason says what applies instead of the key.
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

// keyNamed returns the key with the given name or alias, or nil.
func keyNamed(name string) *fileKey {
	for i := range fileKeys {
		if k := &fileKeys[i]; k.key == name || k.alias != "" && k.alias == name {
			return k
		}
	}
	return nil
}

// keyPath returns the path of a key for error texts, such as
// background_task.modelConcurrency["gpt-5.2"].
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

// unit returns the value in Config that corresponds to 1 in the file.
func (k *fileKey) unit() int64 {
	if k.kind == keyMs {
		return int64(time.Millisecond)
	}
	return 1
}

// most returns the largest number in the file that the field of Config can hold.
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

// example returns an example of a map of limits for error texts.
func (k *fileKey) example() string {
	switch k.field {
	case "Limits.Model":
		return `{ "claude-opus-4-5": 2 }`
	case "Limits.Agent":
		return `{ "explore": 2 }`
	}
	return `{ "anthropic": 3 }`
}

// want describes the valid values of the key for error texts.
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

// access returns the value of the key's field in c as a number, and a function that sets
// the field. It must not be called for keys of kind keyLimits.
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

// limits returns a pointer to the map of limits in c that the key sets.
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

// toConfig converts a number in the file to the number in Config.
func (k *fileKey) toConfig(n int64) int64 {
	if n == 0 && k.kind != keyWake {
		return -1 // both Unlimited and Disabled are -1
	}
	return n * k.unit()
}

// fromConfig converts a number in Config to the number in the file. Except for keyWake,
// the number in Config must not be 0. The error says what is wrong with the number.
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

// text returns a value as JSON text for a file.
func (k *fileKey) text(n int64) string {
	if k.kind == keyWake {
		return strconv.Quote(Wake(n).String())
	}
	return strconv.FormatInt(n, 10)
}

// standard returns the default value of the key as JSON text for a file.
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

// spellings returns pairs of a name and the key that the name stands for. An unknown key
// is compared with these names. They include the fields of Config, so that the unknown
// key timeToLive finds taskTtlMs.
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

// nearestKey returns the known key whose spelling is nearest to name, or "" if no spelling
// is near.
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

// mistyped returns the known key that name almost matches, or "". A name almost matches
// if one character is extra, missing or wrong, if two neighbouring characters are swapped,
// or if its words are separated differently. Such a name is an error, because otherwise
// the limit would be lost. A name that differs more may belong to a newer host and is
// only reported as ignored.
func mistyped(name string) string {
	name = plainKey(name)
	for _, s := range spellings() {
		if keyNamed(s[1]) != nil && (spell.Distance(name, s[0], 2) < 2 || exchanged(name, s[0])) {
			return s[1]
		}
	}
	return ""
}

// exchanged reports whether a and b differ only in two neighbouring characters that are
// swapped.
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

// relatedKey returns the known key whose spelling is nearest to name. If no spelling is
// near, it returns the key that shares the most words with name, or "" if no key shares a
// word. If several keys share the same number of words, the first of them is returned.
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

// keyWords returns the words of each key, in the order of fileKeys.
var keyWords = sync.OnceValue(func() (all [][]string) {
	for i := range fileKeys {
		all = append(all, wordsOf(fileKeys[i].key))
	}
	return all
})

// wordsOf returns the words of a key in lower case. It leaves out words that say nothing
// about the subject of the key, such as "max" and "ms".
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

// plainKey returns a key in lower case and without separators. For example, the result is
// the same for stale_timeout_ms and StaleTimeoutMs.
func plainKey(s string) string { return strings.ToLower(plainReplacer.Replace(s)) }
