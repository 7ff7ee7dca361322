package hammer

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/inside"
)

var states = slices.Concat([]string{"pending", "pending again", "held back"}, phases(), []string{"completed", "error", "cancelled", "expired"})

func phases() (names []string) {
	for p := bgagent.PhaseNone + 1; !strings.HasPrefix(p.String(), "("); p++ {
		names = append(names, p.String())
	}
	return names
}

// targets are the operations that name a task. Only they can refer to a task that was
// evicted.
var targets = []string{"Cancel", "Forget", "Get", "Quiet", "Read", "Resume", "RunResume", "Send", "Wait"}

var operations = append([]string{
	"CancelAll", "Close", "Drain", "Launch", "List", "NextNotice", "Observe", "Outstanding and Digest", "Run", "SessionDeleted",
	"SetLimits", "Subscribe", "TakeNotice", "busy root", "vanished session",
}, targets...)

func stateOf(t bgagent.Task, err error) string {
	switch {
	case errors.Is(err, bgagent.ErrExpired):
		return "expired"
	case err != nil:
		return "unknown"
	case t.Phase == bgagent.PhaseStarting && strings.Contains(t.Progress.Detail, refusedText):
		return "held back"
	case t.Status == bgagent.Running:
		return t.Phase.String()
	case t.Status.Terminal() && !t.Quiet:
		return "stopping"
	case t.Status == bgagent.Pending && t.Attempt > 1:
		return "pending again"
	default:
		return t.Status.String()
	}
}

// matrix counts how often each operation was called. The calls are counted separately for each
// state that a task had at the time of the call.
type matrix map[string]map[string]int

func (x matrix) add(op, state string, n int) {
	if x[op] == nil {
		x[op] = map[string]int{}
	}
	x[op][state] += n
}

// The method "join" adds the counts in other to x.
func (x matrix) join(other matrix) {
	for op, states := range other {
		for state, n := range states {
			x.add(op, state, n)
		}
	}
}

func (x matrix) total(op string) (n int) {
	for v := range maps.Values(x[op]) {
		n += v
	}
	return n
}

// The method "missing" returns the possible cells whose count is 0.
func (x matrix) missing(o Options) (cells []string) {
	ops := operations
	if o.Crashes {
		ops = []string{"Crash"}
	}
	for _, op := range ops {
		for _, state := range states {
			if (state == "expired" || o.Crashes && state == "storing") && !slices.Contains(targets, op) {
				continue // the operation acts only on existing tasks
			}
			if state == "storing" && inside.Store == nil && !o.Crashes {
				continue
			}
			if x[op][state] == 0 {
				cells = append(cells, op+" × "+state)
			}
		}
	}
	return cells
}

func (x matrix) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%24s", "")
	for _, s := range states {
		fmt.Fprintf(&b, " %9.9s", s)
	}
	for _, op := range operations {
		fmt.Fprintf(&b, "\n%24s", op)
		for _, s := range states {
			fmt.Fprintf(&b, " %9d", x[op][s])
		}
	}
	return b.String()
}
