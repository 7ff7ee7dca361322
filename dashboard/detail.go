package dashboard

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/cleantext"
)

// maxMessages is the maximum number of a session's messages that are read in one request.
const maxMessages = 100

// message is a session's message as it is sent to the page.
type message struct {
	ID        string `json:"id"`
	Role      string `json:"role"`
	Text      string `json:"text,omitempty"`
	Reasoning string `json:"reasoning,omitempty"`
	Tools     []tool `json:"tools,omitempty"`
	Error     string `json:"error,omitempty"`
	Time      int64  `json:"time,omitempty"`
	Finished  bool   `json:"finished"`
}

type tool struct {
	Name  string `json:"name"`
	State string `json:"state"`
}

// messagePage holds some of a session's messages, oldest first.
type messagePage struct {
	Messages []message `json:"messages"`
	Next     string    `json:"next"`
	More     bool      `json:"more"`
	Note     string    `json:"note,omitempty"` // the reason why there are no messages
}

// taskDetail holds the details of one task. Todos replaces the todos in Progress, so that the todos' states
// are sent as names.
type taskDetail struct {
	bgagent.Task
	Pool  string `json:"pool"`
	Todos []todo `json:"todos"`
}

type todo struct {
	Text  string `json:"text"`
	State string `json:"state"`
}

// serveTask answers with all details of one task except the host's metadata, which can be confidential.
func (h *Handler) serveTask(w http.ResponseWriter, r *http.Request) {
	id := r.URL.Query().Get("id")
	t, err := h.task(id)
	if h.elsewhere(err) {
		t, err = h.cfg.Others.Read(r.Context(), id)
	}
	if err != nil {
		writeError(w, statusOf(err), err)
		return
	}
	d := taskDetail{Task: t, Pool: poolOf(h.m.Concurrency(), &t), Todos: make([]todo, 0, len(t.Progress.Todos))}
	for _, entry := range t.Progress.Todos {
		d.Todos = append(d.Todos, todo{entry.Text, entry.State.String()})
	}
	d.Metadata, d.Progress.Todos = nil, nil
	for i := range d.Questions { // a person decides about the question, so it is shown without characters that reorder the text around them
		q := &d.Questions[i]
		q.Title, q.Subject = cleantext.Line(q.Title), cleantext.String(q.Subject)
	}
	writeJSON(w, http.StatusOK, d)
}

// task returns a task that is in memory or in the store.
func (h *Handler) task(id string) (bgagent.Task, error) {
	t, err := h.m.Get(id)
	if err != nil {
		t, err = h.m.Read(bgagent.Caller{}, id)
	}
	return t, err
}

// logPart is a part of a task's log.
type logPart struct {
	Text string `json:"text"`
	Next int64  `json:"next"`
}

// serveLog answers with the part of a task's log that follows an offset.
func (h *Handler) serveLog(w http.ResponseWriter, r *http.Request) {
	if h.cfg.Log == nil {
		writeError(w, http.StatusNotFound, errors.New("this server has no logs of tasks"))
		return
	}
	q := r.URL.Query()
	from, err := strconv.ParseInt(q.Get("from"), 10, 64)
	if err != nil || from < 0 {
		writeError(w, http.StatusBadRequest, fmt.Errorf("from must be an offset in bytes, not %q", q.Get("from")))
		return
	}
	t, err := h.task(q.Get("id"))
	if err != nil {
		err = h.onlyThere(r.Context(), q.Get("id"), err)
		writeError(w, statusOf(err), err)
		return
	}
	text, next, err := h.cfg.Log(r.Context(), t.ID, from)
	if err != nil {
		writeError(w, statusOf(err), fmt.Errorf("reading the log: %w", err))
		return
	}
	writeJSON(w, http.StatusOK, logPart{text, next})
}

// serveMessages answers with the messages of one task that are new or have changed since a
// cursor.
func (h *Handler) serveMessages(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	read := func() (bgagent.Page, error) {
		return h.m.Messages(r.Context(), bgagent.Caller{}, q.Get("id"), bgagent.Cursor(q.Get("after")), maxMessages)
	}
	page, err := read()
	if errors.Is(err, bgagent.ErrExpired) || errors.Is(err, bgagent.ErrUnknownTask) {
		if _, e := h.m.Read(bgagent.Caller{}, q.Get("id")); e == nil { // the task was in the store but is now in memory
			page, err = read()
		}
	}
	other := false
	if h.elsewhere(err) {
		if err = h.onlyThere(r.Context(), q.Get("id"), err); errors.Is(err, errors.ErrUnsupported) {
			other = true
		}
	}
	answer := messagePage{Messages: make([]message, 0, len(page.Messages)), Next: string(page.Next), More: page.More}
	switch {
	case other:
		answer.Note = "Only the task's own process shows its messages."
	case errors.Is(err, errors.ErrUnsupported):
		answer.Note = "The agent's client cannot show messages."
	case errors.Is(err, bgagent.ErrNoSession):
		answer.Note = "There is no session yet."
	case err != nil:
		writeError(w, statusOf(err), fmt.Errorf("reading the messages: %w", err))
		return
	}
	for _, msg := range page.Messages {
		one := message{
			ID: msg.ID, Role: msg.Role.String(), Text: msg.Text, Reasoning: msg.Reasoning,
			Error: msg.Error, Time: millis(msg.Time), Finished: msg.Finished,
		}
		for _, call := range msg.Tools {
			one.Tools = append(one.Tools, tool{call.Name, call.State.String()})
		}
		answer.Messages = append(answer.Messages, one)
	}
	writeJSON(w, http.StatusOK, answer)
}

// statusOf maps an error from the manager to an HTTP status.
func statusOf(err error) int {
	switch {
	case errors.Is(err, bgagent.ErrUnknownTask), errors.Is(err, bgagent.ErrNoQuestion):
		return http.StatusNotFound
	case errors.Is(err, bgagent.ErrExpired):
		return http.StatusGone
	case errors.Is(err, bgagent.ErrClosed):
		return http.StatusServiceUnavailable
	case errors.Is(err, bgagent.ErrAlreadyEnded), errors.Is(err, bgagent.ErrStillLive), errors.Is(err, bgagent.ErrNotStopped),
		errors.Is(err, bgagent.ErrNoSession), errors.Is(err, bgagent.ErrTooManyTasks), errors.Is(err, bgagent.ErrQuestionOver):
		return http.StatusConflict
	case errors.Is(err, context.DeadlineExceeded):
		return http.StatusGatewayTimeout
	default:
		return http.StatusBadGateway
	}
}
