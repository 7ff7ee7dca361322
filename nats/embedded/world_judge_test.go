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

// The type "reported" is a line that a process has written.
type reported struct {
	by    *life
	at    time.Time // when the test read it
	words []string
}

func (h *history) add(l *life, text string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if words := strings.Fields(text); len(words) > 0 {
		h.lines = append(h.lines, reported{l, time.Now(), words})
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

// tail returns the last n lines. The time of each line is relative to the present.
func (h *history) tail(n int) string {
	all := h.all()
	return listed(all[max(0, len(all)-n):], time.Now())
}

// around returns the lines before and after the line with the index i. Their times are relative to the time
// of that line.
func (h *history) around(i int) string {
	all := h.all()
	return listed(all[max(0, i-30):min(len(all), i+10)], all[i].at)
}

// The function "listed" returns the lines with their times relative to the given time.
func listed(lines []reported, zero time.Time) string {
	var b strings.Builder
	for _, x := range lines {
		fmt.Fprintf(&b, "\n%+.3f s %s: %s", x.at.Sub(zero).Seconds(), x.by.name, strings.Join(x.words, " "))
	}
	return b.String()
}

// body is one call of a task's function. While the body is running, the field "end" is zero.
type body struct {
	by         *life
	pool       string
	begin, end time.Time
	stopped    bool // its context ended before its work was done

	due         time.Time // when the work will be done if the body is not stopped; zero if the line "begin" does not give this time
	first, last int       // indices of the first and the last line about the body
}

// bodies returns all bodies in the order in which they began. If the process of a body is killed or frozen
// before the body ends, the time of the kill or freeze is the end of the body.
func (h *history) bodies() (all []body) {
	open := map[string]int{}
	for i, x := range h.all() {
		if x.words[0] != "begin" && x.words[0] != "end" && x.words[0] != "stop" {
			continue
		}
		key := fmt.Sprintf("%p %s", x.by, x.words[2])
		ns, _ := strconv.ParseInt(x.words[3], 10, 64) // cannot fail, because the worker has printed a number
		at := time.Unix(0, ns)
		if x.words[0] == "begin" {
			open[key] = len(all)
			b := body{by: x.by, pool: x.words[1], begin: at, first: i, last: i}
			if len(x.words) > 4 {
				ns, _ = strconv.ParseInt(x.words[4], 10, 64) // cannot fail for the same reason
				b.due = time.Unix(0, ns)
			}
			all = append(all, b)
			continue
		}
		b := &all[open[key]]
		b.end, b.stopped, b.last = at, x.words[0] == "stop", i
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

// The method "began" returns the bodies that began in the process, or in any process if l is nil, after the
// given time.
func (h *history) began(l *life, after time.Time) (some []body) {
	for _, b := range h.bodies() {
		if b.begin.After(after) && (l == nil || b.by == l) {
			some = append(some, b)
		}
	}
	return some
}

// pause returns the longest time after "at" during which the process did not begin a body of pool c.
func (h *history) pause(l *life, at time.Time) (longest time.Duration) {
	last := at
	for _, b := range h.began(l, at) {
		if b.pool == "c" {
			longest, last = max(longest, b.begin.Sub(last)), b.begin
		}
	}
	return max(longest, time.Since(last))
}

// The method "running" returns how many bodies of each pool are running in living processes.
func (h *history) running() map[string]int {
	n := map[string]int{}
	for _, b := range h.bodies() {
		if b.end.IsZero() {
			n[b.pool]++
		}
	}
	return n
}

// The method "runs" returns the number of bodies that are running in the process.
func (h *history) runs(l *life) (n int) {
	for _, b := range h.bodies() {
		if b.by == l && b.end.IsZero() {
			n++
		}
	}
	return n
}

// The method "stopped" returns the bodies that were stopped in processes for which the function "hurt"
// returns false.
func (h *history) stopped(hurt func(*life) bool) (some []body) {
	for _, b := range h.bodies() {
		if b.stopped && !hurt(b.by) {
			some = append(some, b)
		}
	}
	return some
}

// peak returns the largest number of the pool's bodies that ran at the same time, and when that was.
func peak(all []body, pool string) (most int, then time.Time) {
	type change struct {
		at time.Time
		by int
	}
	var changes []change
	for _, b := range all {
		if b.pool == pool {
			changes = append(changes, change{b.begin, 1})
			if !b.end.IsZero() {
				changes = append(changes, change{b.end, -1})
			}
		}
	}
	slices.SortFunc(changes, func(x, y change) int { return cmp.Or(x.at.Compare(y.at), cmp.Compare(x.by, y.by)) })
	n := 0
	for _, c := range changes {
		if n += c.by; n > most {
			most, then = n, c.at
		}
	}
	return most, then
}

// judge fails the test if a limit was exceeded, if a slot was never used, or if a body was stopped in a
// process that the test did not disturb. The processes in hurt are those that the test disturbed.
func (w *world) judge(hurt ...*life) {
	w.t.Helper()
	if problem := w.log.problem(w.plan.Limits.Model, hurt...); problem != "" {
		w.t.Fatal(problem)
	}
	w.t.Logf("%d bodies", len(w.log.bodies()))
}

// problem describes what the method "judge" must report, or returns "" if nothing is wrong.
func (h *history) problem(limits map[string]int, hurt ...*life) string {
	all := h.bodies()
	for pool, limit := range limits {
		most, then := peak(all, pool)
		if most == limit {
			continue
		}
		var b strings.Builder
		fmt.Fprintf(&b, "at most %d bodies of the pool %s ran at the same time; its limit is %d", most, pool, limit)
		if most > 0 {
			fmt.Fprint(&b, "; times are relative to ", then.UnixNano())
		}
		last := 0
		for _, x := range all {
			if x.pool == pool && !x.begin.After(then) && (x.end.IsZero() || x.end.After(then)) {
				end := "not yet"
				if !x.end.IsZero() {
					end = fmt.Sprintf("%+.3f s", x.end.Sub(then).Seconds())
				}
				fmt.Fprintf(&b, "\nin %s: begin %+.3f s, end %s", x.by.name, x.begin.Sub(then).Seconds(), end)
				last = max(last, x.last)
			}
		}
		if len(all) > 0 {
			b.WriteString("\nthe lines around the last of them:" + h.around(last))
		}
		return b.String()
	}
	isHurt := func(l *life) bool { return slices.Contains(hurt, l) }
	for _, b := range h.stopped(isHurt) {
		return fmt.Sprintf("a body of the pool %s was stopped in the process %s, which nobody disturbed:%s", b.pool, b.by.name, h.around(b.last))
	}
	for i, x := range h.all() {
		if x.words[0] == "ended" && !isHurt(x.by) && x.words[2] != causeWord(bgagent.CauseTurnEnded) {
			return fmt.Sprintf("a task of the pool %s ended in the process %s, which nobody disturbed, with the cause %s:%s", x.words[1], x.by.name, x.words[2], h.around(i))
		}
	}
	return ""
}

// causeWord returns the name of the cause as one word.
func causeWord(c bgagent.Cause) string { return strings.ReplaceAll(c.String(), " ", "-") }

// The function "longest" returns a text that contains the median and the longest of the times.
func longest(all []time.Duration) string {
	sorted := slices.Sorted(slices.Values(all))
	return fmt.Sprintf("median %.1f s, longest %.1f s of %d", sorted[len(sorted)/2].Seconds(), sorted[len(sorted)-1].Seconds(), len(sorted))
}

func TestTheJudgeOfTheWorldFindsWhatIsWrong(t *testing.T) {
	at := func(ms int) time.Time { return time.UnixMilli(int64(ms)) }
	dead, cold, well := &life{name: "dead", killed: at(50)}, &life{name: "cold", frozen: [][2]time.Time{{at(30), at(90)}}}, &life{name: "well"}
	h := history{}
	says := func(l *life, what, pool string, n, ms int) {
		h.add(l, fmt.Sprint(what, " ", pool, " ", n, " ", at(ms).UnixNano()))
	}
	most := func(all []body) int { n, _ := peak(all, "a"); return n }
	says(dead, "begin", "a", 1, 10)
	says(cold, "begin", "a", 1, 20)
	says(well, "begin", "a", 1, 51)
	says(well, "begin", "a", 2, 52)
	says(cold, "stop", "a", 1, 91)
	require.Equal(t, 2, most(h.bodies()), "dead and frozen bodies do not count")
	require.Equal(t, map[string]int{"a": 2}, h.running())
	require.Len(t, h.stopped(func(*life) bool { return false }), 1)
	require.Empty(t, h.stopped(func(l *life) bool { return l == cold }))
	two := map[string]int{"a": 2}
	require.Empty(t, h.problem(two, cold))
	require.Regexp(t, `(?s)^a body of the pool a was stopped in the process cold, .*\n\S+ s well: begin a 2 52000000\n\+0.000 s cold: stop a 1 91000000$`, h.problem(two))
	says(cold, "begin", "a", 2, 92)
	require.Equal(t, 3, most(h.bodies()), "a body that began after the thaw counts")
	require.Regexp(t, `(?s)^at most 3 bodies of the pool a ran .* limit is 2; .*\nin well: begin -0.041 s, end not yet\n.*\nin cold: begin \+0.000 s, end not yet\n.*cold: begin a 2 92000000$`, h.problem(two, cold))
	require.Len(t, h.began(cold, at(90)), 1)
	says(well, "end", "a", 1, 93)
	says(dead, "begin", "a", 2, 45)
	require.Equal(t, 2, most(h.bodies()[:3]))
	h.add(well, "ended a turn-ended")
	require.Empty(t, h.problem(map[string]int{"a": 3}, cold))
	h.add(well, "ended a slot-lost no allocator has answered")
	require.Regexp(t, `(?s)^a task of the pool a ended in the process well, .* the cause slot-lost:\n.*\n\+0.000 s well: ended a slot-lost no allocator has answered$`, h.problem(map[string]int{"a": 3}, cold))
	require.Regexp(t, `^at most 0 bodies of the pool b ran .* limit is 1\n`, h.problem(map[string]int{"b": 1}, cold), "a slot that was never used")
}
