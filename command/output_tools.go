package command

import (
	"slices"
	"strconv"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/jsonlines"
)

// Tool reports a tool call or its new state. The id must be unique among the calls that have not
// ended. After a call has ended, a report that has the same id and contains a name begins a new
// call.
func (o *Output) Tool(id, name string, state bgagent.ToolState) {
	o.Call(bgagent.MessageTool{ID: id, Name: name, State: state})
}

// Call does the same as [Output.Tool], and also reports the digests of the call's input and result.
// A call's input does not need to be repeated in later reports about the call.
func (o *Output) Call(t bgagent.MessageTool) {
	named := t.Name != ""
	t.ID, t.Name = strconv.Itoa(o.turn)+"."+short(t.ID), oneLine(cut(jsonlines.Clean(t.Name), maxName))
	told, late := "", false
	o.locked(func() {
		i := o.indexLocked(t.ID)
		if i < 0 && named { // a report without a name only ends a call, which is not an action by the agent
			o.actsLocked()
		}
		if late = o.end != nil && (i < 0 || o.tools[i].State >= bgagent.ToolDone); !late {
			told, late = o.toolLocked(&t)
		}
	})
	if late {
		o.Activity()
		return
	}
	if t.Name == "" {
		t.Name = "tool"
	}
	if told != "" {
		o.r.Text(told)
	}
	o.r.Tool(t)
}

// toolLocked records a call and fills in the missing fields from earlier reports. It returns the
// text to report before the call. If the call had already ended, the result "ended" is true, and
// the caller must not report the call, because it would be counted twice.
func (o *Output) toolLocked(t *bgagent.MessageTool) (text string, ended bool) {
	i := -1
	if times := o.times[t.ID]; times > 1 {
		i = o.indexLocked(again(t.ID, times))
	} else {
		i = o.indexLocked(t.ID)
	}
	if i >= 0 && t.Name != "" && o.tools[i].State >= bgagent.ToolDone && len(o.tools) < maxTools {
		if o.times == nil {
			o.times = map[string]int{}
		}
		o.times[t.ID] = max(o.times[t.ID], 1) + 1
		t.ID, i = again(t.ID, o.times[t.ID]), -1
	}
	if i >= 0 {
		if t.Name == "" && o.tools[i].State >= bgagent.ToolDone {
			return "", true
		}
		if t.ID = o.tools[i].ID; t.Name == "" {
			t.Name = o.tools[i].Name
		}
		if t.Input == 0 {
			t.Input = o.tools[i].Input
		}
		o.tools[i] = *t
		return "", false
	}
	if len(o.tools) < maxTools {
		o.tools = append(o.tools, *t)
	}
	rest := o.closeLocked()
	o.called = true
	return rest, false
}

// Compaction reports that the program has replaced earlier messages of the session with a summary;
// see [bgagent.Reporter.Compaction].
func (o *Output) Compaction() {
	o.Known()
	o.r.Compaction()
}

func (o *Output) indexLocked(id string) int {
	return slices.IndexFunc(o.tools, func(x bgagent.MessageTool) bool { return x.ID == id })
}

// The function "again" returns the id that this package gives to the nth call that uses the same id.
func again(id string, n int) string { return id + "#" + strconv.Itoa(n) }
