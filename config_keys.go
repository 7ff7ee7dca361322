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

// The constant "section" is the name of the part of the host's configuration file that this package
// reads. The part is at the top level, or under the key "[opencode]" in the host's file for all
// harnesses.
const (
	section      = "background_task"
	plainSection = "backgroundtask" // name of the section as plainKey returns it
	harness      = "[opencode]"
)

// keyKind is the type of the value that belongs to a key of the file.
type keyKind uint8

const (
	keyMs       keyKind = iota // a duration in Config, written in milliseconds
	keyCount                   // an int field of Config that Config.counts lists
	keyBytes                   // Config.RetainText or Config.NoticeResult
	keyLimit                   // Limits.Default or Limits.Total
	keyLimits                  // a map in Limits
	keyWake                    // Config.Wake
	keySwitch                  // Config.RepeatedCalls as a bool; false means Unlimited
	keyFlag                    // a bool field of Config that is false by default, or Config.OptionalTools
	keyBudget                  // Config.TaskBudget, Config.TreeBudget and Config.BudgetPeriod; see config_budget.go
	keyFallback                // Config.Fallback; see config_fallback.go
)

// fileKey describes one key of the file. A key inside an object has a name with a dot, such as
// circuitBreaker.enabled. In Config, 0 means the default and -1 switches the limit off. In the
// file, an absent key means the default and 0 switches the limit off, as in the host's own file.
type fileKey struct {
	key   string
	alias string // the host's name for the key if it differs, otherwise empty
	kind  keyKind
	field string    // name of the field in Config
	zero  string    // words that follow "0 for"; empty if 0 is refused
	least int64     // smallest number except 0, if it is greater than 1
	about string    // description in the documentation
	limit timeLimit // for a duration, its row in timeLimits
}

// fileKeys is the table of keys. Its order is the order of the documentation and of the
// files that FormatConfig writes. A key has the host's name unless the value 0 would
// be misleading under that name: "taskCleanupDelayMs: 0" reads like "drop immediately" but would have
// to mean "never drop".
var fileKeys = []fileKey{
	{key: "modelConcurrency", kind: keyLimits, field: "Limits.Model", zero: "no limit", about: "Sessions in a turn at the same time, for each model: `provider/model`, or a model id without a slash for any provider"},
	{key: "providerConcurrency", kind: keyLimits, field: "Limits.Provider", zero: "no limit", about: "The same for all models of a provider together, except models with a limit of their own"},
	{key: "defaultConcurrency", kind: keyLimit, field: "Limits.Default", zero: "no limit", about: "The same for each other model and for each agent without a model; each is counted separately"},
	{key: "maxDepth", kind: keyCount, field: "MaxDepth", about: "How deep tasks can delegate. With 1, tasks cannot delegate"},
	{key: "maxTasksPerRoot", kind: keyCount, field: "MaxTasksPerRoot", zero: "no limit", about: "Live tasks under one root session"},
	{key: "maxToolCalls", kind: keyCount, field: "MaxToolCalls", zero: "no limit", about: "Tool calls that an attempt may make. An attempt that makes more is cancelled"},
	{key: "circuitBreaker.maxToolCalls", kind: keyCount, field: "MaxToolCalls", zero: "no limit", about: "The same as `maxToolCalls`. If both keys are set, this key decides"},
	{key: "circuitBreaker.consecutiveThreshold", kind: keyCount, field: "RepeatedCalls", zero: "never", least: leastRepeats, about: "Number of tool calls in a row, with the same input and result, for which an attempt is cancelled"},
	{key: "circuitBreaker.enabled", kind: keySwitch, field: "RepeatedCalls", about: "Whether an attempt is cancelled for repeated tool calls. As in the host, `false` does not switch off `maxToolCalls`"},
	{key: "totalConcurrency", kind: keyLimit, field: "Limits.Total", zero: "no limit", about: "Sessions in a turn at the same time, over all models and agents. Applies in addition to `modelConcurrency`, `providerConcurrency`, `defaultConcurrency` and `agentConcurrency`"},
	{key: "agentConcurrency", kind: keyLimits, field: "Limits.Agent", zero: "no limit", about: "Sessions in a turn at the same time, for each agent, with any model. For an agent without a model, this limit replaces `defaultConcurrency`"},

	limitStaleTimeout.inFile(),
	limitTimeToLive.inFile(),
	limitQueueTimeToLive.inFile(),
	limitSessionGone.inFile(),
	limitHostUnreachable.inFile(),
	limitStopTimeout.inFile(),
	{key: budgetKey, kind: keyBudget, field: "TaskBudget", zero: "no limit", about: "What a task may use over all its attempts (`task`), and what all tasks of a root session may use together (`tree`): `inputTokens`, `outputTokens`, `totalTokens`, `cost` in US dollars, `toolCalls`. `tree.periodMs` makes the tree's budget count by period. See [Guardrails](guardrails.md)"},

	{key: "ask", kind: keyFlag, field: "Ask", about: "Whether the questions of agents wait for an answer instead of being refused. See [Guardrails](guardrails.md#questions)"},
	{key: "modelsMayPermit", kind: keyFlag, field: "ModelsMayPermit", about: "Whether a session may give permissions to the tasks that descend from it"},
	{key: "backgroundMessage", kind: keyFlag, field: "OptionalTools", about: "Whether models have the tool `background_message`, which sends messages to running tasks and answers their questions"},

	{key: fallbackKey, kind: keyFallback, field: "Fallback", about: "For each model, the models with which its tasks continue if its provider refuses their requests, in order: `{ \"a/opus\": [\"b/large\", \"a/sonnet\"] }`. See [Guardrails](guardrails.md#fallback)"},
	limitFallbackAfter.inFile(),

	limitPollInterval.inFile(),
	limitMinIdleTime.inFile(),
	limitMinStabilityTime.inFile(),
	{key: "stablePolls", kind: keyCount, field: "StablePolls", about: "Number of polls in a row without a change, or without output, that end the turn"},
	limitTodoHold.inFile(),

	{key: "wake", kind: keyWake, field: "Wake", about: "When a root session gets its notices: `\"batch\"`, `\"each\"` or `\"never\"`"},
	limitNoticeWindow.inFile(),
	limitNoticeMaxWait.inFile(),
	{key: "noticeResultBytes", kind: keyBytes, field: "NoticeResult", zero: "nothing", about: "How many bytes of each result a notice contains. This also applies to notices that are delivered with tool results, as in `bgagent mcp` and `bgagent serve`"},

	limitCreateTimeout.inFile(),
	limitCallTimeout.inFile(),
	limitStatusTimeout.inFile(),
	{key: "readConcurrency", kind: keyCount, field: "ReadConcurrency", about: "Sessions of a client that are read at the same time"},

	limitRetention.inFile(),
	{key: "retainTasks", kind: keyCount, field: "RetainTasks", zero: "no limit", about: "How many ended tasks are kept"},
	{key: "retainTextBytes", kind: keyBytes, field: "RetainText", zero: "no limit", about: "How many bytes of results are kept"},
}

// foreignKeys lists the keys of the host's section that have no counterpart here. The
// reason describes what applies instead of the key.
var foreignKeys = []struct{ key, reason string }{
	{"messageStalenessTimeoutMs", limitStaleTimeout.key() + " is the only limit on silence here, before and after the first message"},
	{"syncPollTimeoutMs", "a foreground task lives as long as its caller waits"},
	{"maxDescendants", "the limit here is maxTasksPerRoot, which counts only live tasks"},
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

// The constant "breaker" is the name of the object that contains some of the keys, and inBreaker is
// the prefix of their names.
const breaker, inBreaker = "circuitBreaker", "circuitBreaker."

// Two keys set Config.MaxToolCalls.
const maxCallsKey, nestedMaxCallsKey = "maxToolCalls", inBreaker + "maxToolCalls"

// keyPath returns the path of a key for error texts, such as
// background_task.modelConcurrency["gpt-5.2"].
func keyPath(key string, entry ...string) string {
	path := section
	if name, nested := strings.CutPrefix(key, inBreaker); nested {
		path, key = jsonc.Key(path, breaker), name
	}
	path = jsonc.Key(path, key)
	for _, e := range entry {
		path += jsonc.Index(e)
	}
	return path
}

func isASCIIAlnum(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
}

// hasEntries reports whether the value of the key is an object with a separate value for each
// entry.
func (k *fileKey) hasEntries() bool {
	return k.kind == keyLimits || k.kind == keyBudget || k.kind == keyFallback
}

// unit returns the value in Config that corresponds to 1 in the file.
func (k *fileKey) unit() int64 {
	if k.kind == keyMs {
		return int64(time.Millisecond)
	}
	return 1
}

// The method "most" returns the largest number, in the unit of the file, that the key's field in
// Config can hold.
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

// The method "want" describes the valid values of the key for error texts.
func (k *fileKey) want() string {
	switch k.kind {
	case keyWake:
		return `"batch", "each" or "never"`
	case keySwitch, keyFlag:
		return "true or false"
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
	if k.least > 1 {
		s += fmt.Sprintf(", at least %d", k.least)
	}
	return s + ", or 0 for " + k.zero
}

// access returns the value of the key's field in c as a number, and a function that sets
// the field. It must not be called for a key that has entries.
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
		if k.field == "RetainText" {
			return c.RetainText, func(n int64) { c.RetainText = n }
		}
	case keyLimit:
		switch k.field {
		case "Limits.Total":
			return int64(c.Limits.Total), func(n int64) { c.Limits.Total = int(n) }
		case "Limits.Default":
			return int64(c.Limits.Default), func(n int64) { c.Limits.Default = int(n) }
		}
	case keyFlag:
		return k.flag(c)
	case keyWake:
		return int64(c.Wake), func(n int64) { c.Wake = Wake(n) }
	case keySwitch:
		return int64(min(c.RepeatedCalls, 0)), func(n int64) {
			if n < 0 || c.RepeatedCalls < 0 {
				c.RepeatedCalls = int(min(n, 0))
			}
		}
	}
	panic("bgagent: bug: no field for the key " + k.key)
}

// flag is like access, but for a key whose value is true or false.
func (k *fileKey) flag(c *Config) (int64, func(int64)) {
	var on *bool
	switch k.field {
	case "Ask":
		on = &c.Ask
	case "ModelsMayPermit":
		on = &c.ModelsMayPermit
	case "OptionalTools":
		has := func(n string) bool { return n == ToolBackgroundMessage }
		var n int64
		if slices.ContainsFunc(c.OptionalTools, has) {
			n = 1
		}
		return n, func(n int64) {
			c.OptionalTools = slices.DeleteFunc(slices.Clone(c.OptionalTools), has)
			if n != 0 {
				c.OptionalTools = append(c.OptionalTools, ToolBackgroundMessage)
			}
		}
	default:
		panic("bgagent: bug: no field for the key " + k.key)
	}
	var n int64
	if *on {
		n = 1
	}
	return n, func(n int64) { *on = n != 0 }
}

// The method "limits" returns a pointer to the map of limits in c that the key sets.
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
	if n == 0 && k.kind != keyWake && k.kind != keyFlag {
		return -1 // both Unlimited and Disabled are -1
	}
	return n * k.unit()
}

// fromConfig converts a number in Config to the number in the file. It converts 0 to 0, so it must
// be called with 0 only where 0 has the same meaning in Config and in the file. The error describes
// what is wrong with the number.
func (k *fileKey) fromConfig(n int64) (int64, error) {
	switch {
	case k.kind == keyWake && n > int64(WakeNever):
		return 0, fmt.Errorf("is %d; it must be WakeBatch, WakeEach or WakeNever", n)
	case n == -1 && (k.zero != "" || k.kind == keySwitch):
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

// The method "text" returns a value as JSON text for a file.
func (k *fileKey) text(n int64) string {
	switch k.kind {
	case keyWake:
		return strconv.Quote(Wake(n).String())
	case keySwitch, keyFlag:
		return strconv.FormatBool(n != 0)
	}
	return strconv.FormatInt(n, 10)
}

// The method "standard" returns the default value of the key as JSON text for a file.
func (k *fileKey) standard() string {
	switch k.kind {
	case keyLimits, keyBudget, keyFallback:
		return "{}"
	case keySwitch:
		return "true"
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

// spellings returns pairs of a name and the key that the name stands for. An unknown
// key is compared with these names. The names of the fields of Config are included, so
// that taskTtlMs is found for the unknown key timeToLive.
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
	all = append(all, [2]string{breaker, breaker})
	for i := range all {
		all[i][0] = plainKey(all[i][0])
	}
	return all
})

// nearestKey returns the known key whose spelling is nearest to the given name, or ""
// if no spelling is near.
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

// The function "mistyped" returns the known key that the given name almost matches, or "". A name
// almost matches if one character is extra, missing or wrong, if two neighbouring characters are
// swapped, or if its words are separated differently. A name that almost matches is an error,
// because otherwise the limit would silently not apply. A name that differs more might belong to a
// newer host and is only reported as ignored.
func mistyped(name string) string {
	name = plainKey(name)
	for _, s := range spellings() {
		if (s[1] == breaker || keyNamed(s[1]) != nil) && (spell.Distance(name, s[0], 2) < 2 || exchanged(name, s[0])) {
			return s[1]
		}
	}
	return ""
}

// The function "exchanged" reports whether a and b differ only by a swap of two neighbouring
// characters.
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

// relatedKey returns the known key whose spelling is nearest to the given name. If no
// spelling is near, it returns the key that shares the most words with the name, or ""
// if no key shares a word. If several keys share the same number of words, it returns
// the first of these keys.
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

// wordsOf returns the words of a key in lower case. It leaves out words that do not
// describe the subject of the key, such as "max" and "ms".
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
