package dashboard

import (
	"hash/maphash"
	"strings"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/mdtext"
)

// row is what the page's lists know of a task. It is small and comparable; the
// texts of a task are fetched when somebody looks at it.
type row struct {
	N       uint64  `json:"n"` // grows in the order of launches
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
	Queued  int64   `json:"queued"` // this and the next two: milliseconds since 1970, 0 for never
	Started int64   `json:"started,omitempty"`
	Ended   int64   `json:"ended,omitempty"`
	Waiting int     `json:"waiting,omitempty"`
	Turns   int     `json:"turns,omitempty"`
	Tools   int     `json:"tools,omitempty"`
	Tool    string  `json:"tool,omitempty"`
	Text    string  `json:"text,omitempty"`
	Detail  string  `json:"detail,omitempty"`
	Tokens  int64   `json:"tokens,omitempty"`
	Cost    float64 `json:"cost,omitempty"`
	Notice  string  `json:"notice,omitempty"`
	Over    bool    `json:"over,omitempty"` // its session did not stop in time

	// What follows is not sent. It makes a row differ when something else of the
	// task does: a page that shows the task asks for it when the row comes.
	active int64 // last activity, as the times above
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

// maxRowText bounds every text of a row, in bytes: one line of a screen.
const maxRowText = 240

func newRow(t *bgagent.Task, pool string) row {
	p := &t.Progress
	return row{
		ID: t.ID, Session: t.Session, Parent: t.Parent,
		Title: line(t.Description), Agent: line(t.Agent), Model: line(t.Model), Pool: line(pool),
		Status: t.Status.String(), Phase: t.Phase.String(), Cause: t.Cause.String(), Reason: line(t.Reason),
		Attempt: t.Attempt, Queued: millis(t.Queued), Started: millis(t.Started), Ended: millis(t.Ended),
		Waiting: t.Waiting, Turns: p.Turns, Tools: p.ToolCalls, Tool: line(p.LastTool), Text: line(p.LastMessage),
		Detail: line(p.Detail), Tokens: p.Usage.InputTokens + p.Usage.OutputTokens, Cost: p.Usage.Cost,
		Notice: t.Notice.String(),
		active: millis(p.LastActivity), todos: digest(p.Todos),
	}
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// line returns a copy of the beginning of s: a part of it would keep all of it
// alive, which may be the whole prompt.
func line(s string) string {
	if len(s) <= maxRowText {
		return s
	}
	return strings.Clone(mdtext.Head(s, maxRowText))
}
