package dashboard

import (
	"hash/maphash"
	"strings"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/mdtext"
)

// row holds the task data that is shown in the page's lists. It is small and comparable. A
// task's long texts are fetched only when a user opens the task.
type row struct {
	N       uint64  `json:"n"`                 // increases in launch order; tasks of other processes are numbered when the page learns of them
	Process string  `json:"process,omitempty"` // the other process that has the task; empty for the manager's own tasks
	Problem string  `json:"problem,omitempty"` // why the state of the other process's task is not current
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
	Queued  int64   `json:"queued"` // Queued, Started and Ended are times in ms since 1970; 0 if the time is unknown
	Started int64   `json:"started,omitempty"`
	Ended   int64   `json:"ended,omitempty"`
	Waiting int     `json:"waiting,omitempty"`
	Turns   int     `json:"turns,omitempty"`
	Tools   int     `json:"tools,omitempty"`
	Tool    string  `json:"tool,omitempty"`
	Text    string  `json:"text,omitempty"`
	Detail  string  `json:"detail,omitempty"`
	Away    int64   `json:"away,omitempty"`   // start of the agent runtime's outage; 0 if there is no outage
	Until   int64   `json:"until,omitempty"`  // time at which the outage makes the task fail; 0 if it never does
	Parked  int64   `json:"parked,omitempty"` // earliest time at which a parked task continues or its question expires; 0 if unknown
	Tokens  int64   `json:"tokens,omitempty"`
	Budget  string  `json:"budget,omitempty"` // how much of the task's budget is used
	Cost    float64 `json:"cost,omitempty"`
	Notice  string  `json:"notice,omitempty"`
	Over    bool    `json:"over,omitempty"`  // the session did not stop in time
	Asks    int     `json:"asks,omitempty"`  // number of open questions
	Heard   int64   `json:"heard,omitempty"` // time of the last activity, in ms since 1970

	// The field "todos" is a digest of the todo list. It is not sent. When the todos change, the digest makes
	// the row differ, so a page that shows the task's details fetches the details again.
	todos uint64
	// The field "asked" is a digest of the open questions. Like the field "todos", it is not sent.
	asked uint64
}

// todoSeed is the seed of all digests of todo lists and of questions. Digests with the same seed can be
// compared.
var todoSeed = maphash.MakeSeed()

func digest(todos []bgagent.Todo) uint64 {
	var h maphash.Hash
	h.SetSeed(todoSeed)
	for _, t := range todos {
		maphash.WriteComparable(&h, t)
	}
	return h.Sum64()
}

// maxRowText is the maximum length of each text in a row, in bytes. A screen shows only one
// line of the text.
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
		Over:   t.OverLimit,
		Heard:  millis(p.LastActivity), todos: digest(p.Todos),
	}
	if t.Budget != (bgagent.BudgetUse{}) {
		r.Budget = line(t.Budget.String())
	}
	if r.Asks = len(t.Questions); r.Asks > 0 {
		var h maphash.Hash
		h.SetSeed(todoSeed)
		for _, q := range t.Questions {
			maphash.WriteComparable(&h, q.Key)
		}
		r.asked = h.Sum64()
	}
	if o := t.Outage; o != nil {
		r.Away, r.Until, r.Detail = millis(o.Since), millis(o.Until), line(o.Reason)
	}
	if t.Phase == bgagent.PhaseParked {
		r.Detail, r.Parked = line(t.Reason), millis(t.Until)
	}
	return r
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// line returns the start of s. If s is too long, the result is a copy, because a substring
// would keep the memory of s alive, and s can be a whole prompt.
func line(s string) string {
	if len(s) <= maxRowText {
		return s
	}
	return strings.Clone(mdtext.Head(s, maxRowText))
}
