package bridge

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/bgagent/bgagent"
)

// recordKey is the key in a task's metadata for the restrictions that applied to the task's launch. Every
// task that a bridge launches has this key, so that the restrictions still apply after the server restarts.
const recordKey = "bgagent.bridge"

// maxRecord is the maximum size of the restrictions in a task's metadata, in bytes.
const maxRecord = 64 << 10

// record returns the text that [launchedUnder] reads. It leaves out tree budgets, because only the bridge at
// the root sets such a budget.
func record(all []Narrow) (string, error) {
	kept := []Narrow{}
	for _, n := range all {
		n.TreeBudget = bgagent.Budget{}
		kept = joined(kept, n)
	}
	b, err := json.Marshal(kept)
	if err == nil && len(b) > maxRecord {
		err = fmt.Errorf("the restrictions of this bridge and of those above it do not fit into %d bytes", maxRecord)
	}
	return string(b), err
}

// launchedUnder returns the restrictions that applied to the task's launch. Only a task that the caller
// launched without a bridge has no restrictions.
func launchedUnder(t Task, caller string) (all []Narrow, err error) {
	text, recorded := t.Metadata[recordKey]
	if !recorded {
		if slices.Equal(t.Above, []string{caller}) {
			return nil, nil
		}
		return nil, errors.New("it is inside a turn of task " + t.ID + ", and the restrictions under which this task was launched were not recorded; launch the task again")
	}
	dec := json.NewDecoder(strings.NewReader(text))
	dec.DisallowUnknownFields() // an unknown field could be a restriction
	if err := dec.Decode(&all); err != nil {
		return nil, fmt.Errorf("it is inside a turn of task %s, and the restrictions under which this task was launched cannot be read, perhaps because another version of bgagent has launched it: %w", t.ID, err)
	}
	return all, nil
}

// The function "joined" appends the restrictions that are not yet in the list.
func joined(list []Narrow, more ...Narrow) []Narrow {
	for _, n := range more {
		if !reflect.DeepEqual(n, Narrow{}) && !contains(list, n) {
			list = append(list, n)
		}
	}
	return list
}

func contains(list []Narrow, n Narrow) bool {
	return slices.ContainsFunc(list, func(other Narrow) bool { return reflect.DeepEqual(n, other) })
}

// The function "narrower" returns the smaller value of each limit. A limit of 0 means no limit.
func narrower(a, b bgagent.Budget) bgagent.Budget {
	return bgagent.Budget{
		InputTokens:  smaller(a.InputTokens, b.InputTokens),
		OutputTokens: smaller(a.OutputTokens, b.OutputTokens),
		TotalTokens:  smaller(a.TotalTokens, b.TotalTokens),
		Cost:         smaller(a.Cost, b.Cost),
		ToolCalls:    smaller(a.ToolCalls, b.ToolCalls),
	}
}

func smaller[N int | int64 | float64](a, b N) N {
	if a <= 0 || b > 0 && b < a {
		return b
	}
	return a
}
