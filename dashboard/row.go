package dashboard

import (
	"hash/maphash"
	"strings"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/mdtext"
)

// row is what the page's lists know about a task. It is small and comparable. A
// task's texts are fetched when somebody opens it.
type row struct {
	N       uint64  `json:"n"` // increases in launch order
	ID      string  `json:"id"`
	Session string  `json:"session,omitempty"`
	Parent  string  `json:"parent,omitempty"`
	Title   string  `json:"title"`
	Agent   string  `json:"agent"`
	Model   string  `json:"model,omitempty"`
	Pool    string  `json:"pool"`
	Status  string  `json:"status"`
	Phase   string  `json:"phase,omitempty"`
	Cause   string  `json:"cause,omitempty"`
	Reason  string  `json:"reason,omitempty"`
	Attempt int     `json:"attempt"`
	Queued  int64   `json:"queued"` // this and the next two are ms since 1970, 0 for never
	Started int64   `json:"started,omitempty"`
	Ended   int64   `json:"ended,omitempty"`
	Waiting int     `json:"waiting,omitempty"`
	Turns   int     `json:"turns,omitempty"`
	Tools   int     `json:"tools,omitempty"`
	Tool    string  `json:"tool,omitempty"`
	Text    string  `json:"text,omitempty"`
	Detail  string  `json:"detail,omitempty"`
	Away    int64   `json:"away,omitempty"`  // since when its agent runtime is out of reach
	Until   int64   `json:"until,omitempty"` // when it fails because of that; 0 for never
	Tokens  int64   `json:"tokens,omitempty"`
	Cost    float64 `json:"cost,omitempty"`
	Notice  string  `json:"notice,omitempty"`
	Over    bool    `json:"over,omitempty"` // the session did not stop in time

	// The fields below are not sent. They make the row differ when anything else
	// about the task changes: a page that shows the task then fetches it again.
	active int64 // last activity, in the same unit
	todos  uint64
}

// todoSeed makes the digests of todo lists comparable.
var todoSeed = maphash.MakeSeed()

func digest(todos []bgagent.Todo) uint64 {
	var h maphash.Hash
	h.SetSeed(todoSeed)
	for _, t := range todos {
		maphash.WriteComparable(&h, t)
	}
	return h.Sum64()
}

// maxRowText bounds each text of a row, in bytes: one line on a screen.
const maxRowText = 240

func newRow(t *bgagent.Task, pool string) row {
	p := &t.Progress
	r := row{
		ID: t.ID, Session: t.Session, Parent: t.Parent,
		Title: line(t.Description), Agent: line(t.Agent), Model: line(t.Model), Pool: line(pool),
		Status: t.Status.String(), Phase: t.Phase.String(), Cause: t.Cause.String(), Reason: line(t.Reason),
		Attempt: t.Attempt, Queued: millis(t.Queued), Started: millis(t.Started), Ended: millis(t.Ended),
		Waiting: t.Waiting, Turns: p.Turns, Tools: p.ToolCalls, Tool: line(p.LastTool), Text: line(p.LastMessage),
		Detail: line(p.Detail), Tokens: p.Usage.InputTokens + p.Usage.OutputTokens, Cost: p.Usage.Cost,
		Notice: t.Notice.String(),
		active: millis(p.LastActivity), todos: digest(p.Todos),
	}
	if o := t.Outage; o != nil {
		r.Away, r.Until, r.Detail = millis(o.Since), millis(o.Until), line(o.Reason)
	}
	return r
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// line returns a copy of the start of s. A substring would keep all of s alive,
// which may be a whole prompt.
func line(s string) string {
	if len(s) <= maxRowText {
		return s
	}
	return strings.Clone(mdtext.Head(s, maxRowText))
}
