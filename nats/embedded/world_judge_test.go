//go:build linux

package embedded_test

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
)

// history is what the processes of a world have reported. The judge knows nothing about slots and
// leases: it reads the times at which bodies began and ended, and knows what the test did to the processes.
type history struct {
	mu    sync.Mutex
	lines []reported
}

// reported is a line of a process.
type reported struct {
	by    *life
	words []string
}

func (h *history) add(l *life, text string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if words := strings.Fields(text); len(words) > 0 {
		h.lines = append(h.lines, reported{l, words})
	}
}

func (h *history) all() []reported {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.lines)
}

// said reports whether the process has written a line that begins with the word.
func (h *history) said(l *life, word string) bool {
	return slices.ContainsFunc(h.all(), func(x reported) bool { return x.by == l && x.words[0] == word })
}

// last returns the second word of the process's last line that begins with the word.
func (h *history) last(l *life, word string) (second string) {
	for _, x := range h.all() {
		if x.by == l && x.words[0] == word {
			second = x.words[1]
		}
	}
	return second
}

// tail returns the last lines.
func (h *history) tail(n int) string {
	all := h.all()
	var b strings.Builder
	for _, x := range all[max(0, len(all)-n):] {
		fmt.Fprintf(&b, "\n%s: %s", x.by.name, strings.Join(x.words, " "))
	}
	return b.String()
}

// body is one call of a task's function. The zero end means that it is running.
type body struct {
	by         *life
	pool       string
	begin, end time.Time
	stopped    bool // its context ended before its work was done
}

// bodies returns all bodies in the order in which they began. If the process of a body is killed or frozen
// before the body ends, that time is the end of the body.
func (h *history) bodies() (all []body) {
	open := map[string]int{}
	for _, x := range h.all() {
		if x.words[0] != "begin" && x.words[0] != "end" && x.words[0] != "stop" {
			continue
		}
		key := fmt.Sprintf("%p %s", x.by, x.words[2])
		ns, _ := strconv.ParseInt(x.words[3], 10, 64) // cannot fail, because the worker has printed a number
		at := time.Unix(0, ns)
		if x.words[0] == "begin" {
			open[key] = len(all)
			all = append(all, body{by: x.by, pool: x.words[1], begin: at})
			continue
		}
		b := &all[open[key]]
		b.end, b.stopped = at, x.words[0] == "stop"
	}
	for i := range all {
		b := &all[i]
		if b.end.IsZero() {
			b.end = b.by.killed
		}
		for _, f := range b.by.frozen {
			if !b.begin.After(f[0]) && (b.end.IsZero() || b.end.After(f[0])) {
				b.end = f[0]
			}
		}
	}
	slices.SortFunc(all, func(x, y body) int { return x.begin.Compare(y.begin) })
	return all
}

// began returns the bodies that began in the process after the time, or in any process if l is nil.
func (h *history) began(l *life, after time.Time) (some []body) {
	for _, b := range h.bodies() {
		if b.begin.After(after) && (l == nil || b.by == l) {
			some = append(some, b)
		}
	}
	return some
}

// pause returns the longest time after "at" during which no body of the pool c began in the process.
func (h *history) pause(l *life, at time.Time) (longest time.Duration) {
	last := at
	for _, b := range h.began(l, at) {
		if b.pool == "c" {
			longest, last = max(longest, b.begin.Sub(last)), b.begin
		}
	}
	return max(longest, time.Since(last))
}

// running returns the number of bodies of each pool that run in living processes.
func (h *history) running() map[string]int {
	n := map[string]int{}
	for _, b := range h.bodies() {
		if b.end.IsZero() {
			n[b.pool]++
		}
	}
	return n
}

// runs returns the number of bodies that run in the process.
func (h *history) runs(l *life) (n int) {
	for _, b := range h.bodies() {
		if b.by == l && b.end.IsZero() {
			n++
		}
	}
	return n
}

// stopped returns the bodies that were stopped in processes for which the function "hurt" returns false.
func (h *history) stopped(hurt func(*life) bool) (some []body) {
	for _, b := range h.bodies() {
		if b.stopped && !hurt(b.by) {
			some = append(some, b)
		}
	}
	return some
}

// mostAtOnce returns the largest number of the pool's bodies that ran at the same time.
func mostAtOnce(all []body, pool string) (most int) {
	type change struct {
		at int64
		by int
	}
	var changes []change
	for _, b := range all {
		if b.pool == pool {
			changes = append(changes, change{b.begin.UnixNano(), 1})
			if !b.end.IsZero() {
				changes = append(changes, change{b.end.UnixNano(), -1})
			}
		}
	}
	slices.SortFunc(changes, func(x, y change) int { return cmp.Or(cmp.Compare(x.at, y.at), cmp.Compare(x.by, y.by)) })
	n := 0
	for _, c := range changes {
		n += c.by
		most = max(most, n)
	}
	return most
}

// judge fails the test if a limit was exceeded, if a slot was never used, or if a body was stopped in a
// process that the test did not disturb. The argument "hurt" contains the processes that the test
// disturbed.
func (w *world) judge(hurt ...*life) {
	w.t.Helper()
	all := w.log.bodies()
	for pool, limit := range w.plan.Limits.Model {
		require.Equal(w.t, limit, mostAtOnce(all, pool), "the largest number of bodies of the pool %s at the same time; its limit is %d", pool, limit)
	}
	isHurt := func(l *life) bool { return slices.Contains(hurt, l) }
	require.Empty(w.t, w.log.stopped(isHurt), "no work is stopped in other processes")
	for _, x := range w.log.all() {
		if x.words[0] == "ended" && !isHurt(x.by) {
			require.Equal(w.t, fmt.Sprint(int(bgagent.CauseTurnEnded)), x.words[2])
		}
	}
	w.t.Logf("%d bodies", len(all))
}

// longest returns a text with the median and the longest of the times.
func longest(all []time.Duration) string {
	sorted := slices.Sorted(slices.Values(all))
	return fmt.Sprintf("median %.1f s, longest %.1f s of %d", sorted[len(sorted)/2].Seconds(), sorted[len(sorted)-1].Seconds(), len(sorted))
}

func TestTheJudgeOfTheWorldFindsWhatIsWrong(t *testing.T) {
	at := func(ms int) time.Time { return time.UnixMilli(int64(ms)) }
	dead, cold, well := &life{killed: at(50)}, &life{frozen: [][2]time.Time{{at(30), at(90)}}}, &life{}
	h := history{}
	says := func(l *life, what, pool string, n, ms int) {
		h.add(l, fmt.Sprint(what, " ", pool, " ", n, " ", at(ms).UnixNano()))
	}
	says(dead, "begin", "a", 1, 10)
	says(cold, "begin", "a", 1, 20)
	says(well, "begin", "a", 1, 51)
	says(well, "begin", "a", 2, 52)
	says(cold, "stop", "a", 1, 91)
	require.Equal(t, 2, mostAtOnce(h.bodies(), "a"), "dead and frozen bodies do not count")
	require.Equal(t, map[string]int{"a": 2}, h.running())
	require.Len(t, h.stopped(func(*life) bool { return false }), 1)
	require.Empty(t, h.stopped(func(l *life) bool { return l == cold }))
	says(cold, "begin", "a", 2, 92)
	require.Equal(t, 3, mostAtOnce(h.bodies(), "a"), "a body that began after the thaw counts")
	require.Len(t, h.began(cold, at(90)), 1)
	says(well, "end", "a", 1, 93)
	says(dead, "begin", "a", 2, 45)
	require.Equal(t, 2, mostAtOnce(h.bodies()[:3], "a"))
}
