package results

import (
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/cleantext"
)

// IndexName is the name of the index file in the folder.
const IndexName = "index.json"

// Entry is one task in the index.
type Entry struct {
	Number      int            `json:"number"` // number of the task in the list, from 1
	ID          string         `json:"id,omitempty"`
	Description string         `json:"description"`
	Agent       string         `json:"agent"`
	Model       string         `json:"model,omitempty"`
	Status      bgagent.Status `json:"status"`
	Cause       bgagent.Cause  `json:"cause,omitempty"`
	Reason      string         `json:"reason,omitempty"`
	Queued      time.Time      `json:"queued,omitzero"`
	Started     time.Time      `json:"started,omitzero"`
	Ended       time.Time      `json:"ended,omitzero"`
	Seconds     float64        `json:"seconds"` // from start to end
	ToolCalls   int            `json:"tool_calls"`
	Input       int64          `json:"input_tokens,omitempty"`
	Output      int64          `json:"output_tokens,omitempty"`
	Cost        float64        `json:"cost,omitempty"`    // US dollars
	File        string         `json:"file,omitempty"`    // file with the result; empty if the result could not be written
	Problem     string         `json:"problem,omitempty"` // why the result could not be written
	Log         string         `json:"log,omitempty"`     // file with the output of its program
	Partial     bool           `json:"partial,omitempty"` // the result is not a finished answer
	Cut         bool           `json:"cut,omitempty"`     // the file holds only the beginning of the answer
	Bytes       int64          `json:"bytes,omitempty"`   // if Cut is set: length of the whole answer, if known
}

// EntryOf returns a task's entry.
func EntryOf(number int, t bgagent.Task) Entry {
	e := Entry{
		Number: number, ID: t.ID, Description: t.Description, Agent: t.Agent, Model: t.Model,
		Status: t.Status, Cause: t.Cause, Reason: cleantext.String(t.Reason),
		Queued: t.Queued, Started: t.Started, Ended: t.Ended,
		ToolCalls: t.Progress.ToolCalls,
		Input:     t.Progress.Usage.InputTokens, Output: t.Progress.Usage.OutputTokens, Cost: t.Progress.Usage.Cost,
		Partial: t.Partial,
	}
	if t.Status.Terminal() {
		e.Seconds = Seconds(t.Duration(t.Ended))
	}
	return e
}

// Seconds returns d in seconds, rounded so that it prints with at most three decimal places. It
// divides a whole number of milliseconds, because d.Round(…).Seconds() adds two numbers and would
// print 1.6019999999999999 for 1.602.
func Seconds(d time.Duration) float64 {
	return float64(d.Round(time.Millisecond).Milliseconds()) / 1000
}

// Index is the content of a folder's index.
type Index struct {
	Began       time.Time `json:"began"`
	Ended       time.Time `json:"ended,omitzero"`   // end of the run; zero if the run has not ended or was killed
	Resumed     time.Time `json:"resumed,omitzero"` // when the run was last resumed
	Interrupted bool      `json:"interrupted,omitempty"`
	Stopped     string    `json:"stopped,omitempty"` // why --fail-fast or --max-time stopped the run
	State       string    `json:"state,omitempty"`   // name of the folder that contains the store of the run's tasks
	Tasks       []Entry   `json:"tasks"`
}
