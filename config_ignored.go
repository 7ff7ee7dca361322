package bgagent

import (
	"fmt"
	"slices"
	"time"

	"github.com/bgagent/bgagent/internal/mdtext"
)

// IgnoredKey is a key that has no effect, although the author of the file might expect one.
type IgnoredKey struct {
	Key    string // path of the key, such as background_task.quotaRouting; empty for a file without the section background_task
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

// Ignored returns the keys that have no effect, in the order of the files and of the
// keys in them. These are the host's keys that have no counterpart here, unknown keys, and keys
// outside background_task that seem to belong in it. Ignored also reports a file without the
// section background_task. The last entries can be a maxToolCalls that
// circuitBreaker.maxToolCalls overrides, and a staleTimeoutMs that is longer than taskTtlMs.
// Such a staleTimeoutMs has no effect, because taskTtlMs ends a task first.
func (f FileConfig) Ignored() []IgnoredKey {
	all := slices.Clone(f.ignored)
	if k, ok := f.overridden(); ok {
		all = append(all, k)
	}
	if k, ok := f.neverStale(); ok {
		all = append(all, k)
	}
	return all
}

// The method "overridden" returns maxToolCalls if circuitBreaker.maxToolCalls overrides it.
func (f FileConfig) overridden() (IgnoredKey, bool) {
	nested, decides := f.nestedMaxCalls()
	top, set := f.values[valueID{key: maxCallsKey}]
	return IgnoredKey{keyPath(maxCallsKey), fmt.Sprintf("%s (%v) decides", keyPath(nestedMaxCallsKey), nested.origin), top.origin}, decides && set && !top.null
}

// nestedMaxCalls returns the value of circuitBreaker.maxToolCalls, and whether it is set.
func (f FileConfig) nestedMaxCalls() (value, bool) {
	v, ok := f.values[valueID{key: nestedMaxCallsKey}]
	return v, ok && !v.null
}

// neverStale reports whether the stale timeout is longer than the time to live. If so, the stale
// timeout has no effect, and neverStale returns its key.
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
