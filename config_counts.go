package bgagent

import "fmt"

// leastRepeats is the smallest limit for identical tool calls in a row. A single call is not a
// repetition.
const leastRepeats = 2

type countField struct {
	name      string
	value     *int
	def       int
	unlimited bool // whether the value Unlimited is allowed
	least     int  // smallest positive value
}

func (c *Config) counts() []countField {
	return []countField{
		{"MaxDepth", &c.MaxDepth, DefaultMaxDepth, false, 1},
		{"MaxTasksPerRoot", &c.MaxTasksPerRoot, DefaultMaxTasksPerRoot, true, 1},
		{"MaxToolCalls", &c.MaxToolCalls, DefaultMaxToolCalls, true, 1},
		{"RepeatedCalls", &c.RepeatedCalls, DefaultRepeatedCalls, true, leastRepeats},
		{"StablePolls", &c.StablePolls, DefaultStablePolls, false, 1},
		{"ReadConcurrency", &c.ReadConcurrency, DefaultReadConcurrency, false, 1},
		{"RetainTasks", &c.RetainTasks, DefaultRetainTasks, true, 1},
	}
}

// checkCounts returns an error for the first count that is not allowed.
func (c *Config) checkCounts() error {
	for _, n := range c.counts() {
		x := *n.value
		if x == 0 || x >= n.least || x == Unlimited && n.unlimited {
			continue
		}
		want := "must be positive"
		if n.least > 1 {
			want = fmt.Sprintf("must be at least %d", n.least)
		}
		if n.unlimited {
			return &InputError{"Config." + n.name, fmt.Sprintf("is %d; it %s, 0 for the default of %d, or Unlimited", x, want, n.def)}
		}
		return &InputError{"Config." + n.name, fmt.Sprintf("is %d; it %s, or 0 for the default of %d", x, want, n.def)}
	}
	return nil
}
