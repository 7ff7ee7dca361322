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
	// actionHeader must stand in every request that changes something. Another
	// site could send it only after asking, which is never granted.
	actionHeader = "X-Bgagent-Dashboard"
	maxAction    = 1 << 20 // bytes of a request that changes something
)

// action is what the page asks for.
type action struct {
	ID     string `json:"id"`
	Reason string `json:"reason"` // to cancel
	Prompt string `json:"prompt"` // to resume
}

// act serves a request that changes something, once it is certain that the page
// itself has sent it and that the host allows it.
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
		return http.StatusForbidden, errors.New("the host has not switched this on")
	}
	if err := h.origin.Check(r); err != nil {
		return http.StatusForbidden, errors.New("sent by another site")
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

// resume continues a task. The host has asked, so its parent, or the nearest one
// above that can still be told, is told of the end. The task lives longer than
// the request and keeps nothing of it.
func (h *Handler) resume(_ *http.Request, a action) (bgagent.Task, error) {
	return h.m.Resume(context.Background(), bgagent.Caller{}, a.ID, bgagent.ResumeInput{Prompt: a.Prompt})
}
