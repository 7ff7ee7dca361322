package dashboard

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strings"

	"github.com/bgagent/bgagent"
)

const (
	// actionHeader is required in every request that changes something. A page from another site
	// could send the header only after a preflight request, and the handler never grants
	// preflight requests.
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
func (h *Handler) retry(r *http.Request, a action) (bgagent.Task, error) {
	t, err := h.task(a.ID)
	if err != nil {
		return t, h.onlyThere(r.Context(), a.ID, err)
	}
	return h.m.Resume(context.Background(), bgagent.Caller{}, a.ID, bgagent.ResumeInput{Prompt: t.Prompt})
}

// act serves a request that changes something. It first checks that the request came from the
// page itself and that the host allows the action.
func (h *Handler) act(w http.ResponseWriter, r *http.Request, allowed bool, do func(*http.Request, action) (bgagent.Task, error)) {
	var a action
	if !h.readAction(w, r, allowed, &a) {
		return
	}
	t, err := do(r, a)
	if err != nil {
		writeActionError(w, err)
		return
	}
	writeJSON(w, http.StatusOK, map[string]string{"id": t.ID})
}

// readAction checks a request that changes something, and decodes its body. If anything is wrong, it
// answers the request and returns false.
func (h *Handler) readAction(w http.ResponseWriter, r *http.Request, allowed bool, body any) bool {
	code, err := h.checkAction(r, allowed)
	if err != nil {
		if code == http.StatusMethodNotAllowed {
			w.Header().Set("Allow", http.MethodPost)
		}
		writeError(w, code, err)
		return false
	}
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxAction))
	dec.DisallowUnknownFields()
	if err := dec.Decode(body); err != nil {
		writeError(w, http.StatusBadRequest, fmt.Errorf("reading the request: %w", err))
		return false
	}
	return true
}

func writeActionError(w http.ResponseWriter, err error) {
	var input *bgagent.InputError
	code := statusOf(err)
	if errors.As(err, &input) {
		code = http.StatusBadRequest
	}
	writeError(w, code, err)
}

// answer is the body of a request that answers a question.
type answer struct {
	ID     string `json:"id"`
	Key    string `json:"key"`
	Option string `json:"option"`
}

// answer answers a task's question on behalf of the host. The key contains a digest of the
// question. Therefore, the question that is answered is the one whose kind is checked here.
func (h *Handler) answer(w http.ResponseWriter, r *http.Request) {
	var a answer
	if !h.readAction(w, r, h.cfg.AllowAnswer || h.cfg.AllowPermit, &a) {
		return
	}
	reply := func(in bgagent.AnswerInput) error {
		_, err := h.m.Answer(r.Context(), bgagent.Caller{}, a.ID, in)
		return err
	}
	t, err := h.m.Get(a.ID)
	if h.elsewhere(err) {
		t, err = h.cfg.Others.Read(r.Context(), a.ID)
		reply = func(in bgagent.AnswerInput) error {
			_, err := h.cfg.Others.Answer(r.Context(), a.ID, in)
			return err
		}
	}
	if err == nil {
		i := slices.IndexFunc(t.Questions, func(q bgagent.Question) bool { return q.Key == a.Key })
		if i >= 0 && !h.mayAnswer(t.Questions[i]) {
			writeError(w, http.StatusForbidden, errors.New("the host does not allow this for questions of the kind "+t.Questions[i].Kind.String()))
			return
		}
		if i >= 0 {
			err = reply(bgagent.AnswerInput{Key: a.Key, Option: a.Option})
		} else {
			err = fmt.Errorf("task %s: %w", t.ID, bgagent.ErrNoQuestion)
		}
	}
	if err != nil {
		writeActionError(w, err)
		return
	}
	writeJSON(w, http.StatusOK, map[string]string{"id": a.ID})
}

// mayAnswer reports whether the question may be answered on the page.
func (h *Handler) mayAnswer(q bgagent.Question) bool {
	if q.Kind == bgagent.QuestionChoice {
		return h.cfg.AllowAnswer
	}
	return h.cfg.AllowPermit
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
	t, err := h.m.Cancel(r.Context(), bgagent.Caller{}, a.ID, bgagent.CancelOptions{Reason: reason})
	if h.elsewhere(err) {
		t, err = h.cfg.Others.Cancel(r.Context(), a.ID, reason)
	}
	return t, err
}

// resume resumes a task. The host is the caller, so the notice is delivered to the task's parent or
// to the nearest ancestor that can still be notified. The task does not use the request's context,
// because it continues after the request has ended.
func (h *Handler) resume(r *http.Request, a action) (bgagent.Task, error) {
	t, err := h.m.Resume(context.Background(), bgagent.Caller{}, a.ID, bgagent.ResumeInput{Prompt: a.Prompt})
	if err != nil {
		err = h.onlyThere(r.Context(), a.ID, err)
	}
	return t, err
}
