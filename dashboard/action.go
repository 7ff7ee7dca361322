package dashboard

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strings"

	"github.com/bgagent/bgagent"
)

const (
	// actionHeader is required in every request that changes something. A page of another
	// site could send the header only after a preflight request, and the handler never
	// grants preflight requests.
	actionHeader = "X-Bgagent-Dashboard"
	maxAction    = 1 << 20 // maximum size of the body of a request that changes something, in bytes
)

// action is the body of a request that changes something.
type action struct {
	ID     string `json:"id"`
	Reason string `json:"reason"` // only for cancel
	Prompt string `json:"prompt"` // only for resume
}

// retry resumes a task with the prompt of its latest attempt.
func (h *Handler) retry(_ *http.Request, a action) (bgagent.Task, error) {
	t, err := h.task(a.ID)
	if err != nil {
		return t, err
	}
	return h.m.Resume(context.Background(), bgagent.Caller{}, a.ID, bgagent.ResumeInput{Prompt: t.Prompt})
}

// act serves a request that changes something. It first checks that the page itself has
// sent the request and that the host allows the action.
func (h *Handler) act(w http.ResponseWriter, r *http.Request, allowed bool, do func(*http.Request, action) (bgagent.Task, error)) {
	code, err := h.checkAction(r, allowed)
	if err != nil {
		if code == http.StatusMethodNotAllowed {
			w.Header().Set("Allow", http.MethodPost)
		}
		writeError(w, code, err)
		return
	}
	var a action
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxAction))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&a); err != nil {
		writeError(w, http.StatusBadRequest, fmt.Errorf("reading the request: %w", err))
		return
	}
	t, err := do(r, a)
	if err != nil {
		var input *bgagent.InputError
		code := statusOf(err)
		if errors.As(err, &input) {
			code = http.StatusBadRequest
		}
		writeError(w, code, err)
		return
	}
	writeJSON(w, http.StatusOK, map[string]string{"id": t.ID})
}

func (h *Handler) checkAction(r *http.Request, allowed bool) (int, error) {
	if r.Method != http.MethodPost {
		return http.StatusMethodNotAllowed, fmt.Errorf("%s is not allowed here", r.Method)
	}
	if !allowed {
		return http.StatusForbidden, errors.New("the host does not allow this")
	}
	if err := h.origin.Check(r); err != nil {
		return http.StatusForbidden, errors.New("the request comes from another site")
	}
	if r.Header.Get(actionHeader) == "" {
		return http.StatusForbidden, fmt.Errorf("the header %s is missing", actionHeader)
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return http.StatusUnsupportedMediaType, errors.New("the request must be JSON")
	}
	return 0, nil
}

func (h *Handler) cancel(r *http.Request, a action) (bgagent.Task, error) {
	reason := strings.TrimSpace(a.Reason)
	if reason == "" {
		reason = "cancelled on the dashboard"
	}
	return h.m.Cancel(r.Context(), bgagent.Caller{}, a.ID, bgagent.CancelOptions{Reason: reason})
}

// resume resumes a task. The host is the caller, so the notice is delivered to the task's parent or
// to the nearest ancestor that can still be notified. The task does not use the context of the
// request, because it continues after the request.
func (h *Handler) resume(_ *http.Request, a action) (bgagent.Task, error) {
	return h.m.Resume(context.Background(), bgagent.Caller{}, a.ID, bgagent.ResumeInput{Prompt: a.Prompt})
}
