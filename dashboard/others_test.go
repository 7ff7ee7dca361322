package dashboard_test

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/dashboard"
)

// The type "others" simulates two other processes. The process m2 answers, and the process m3 does what the
// test sets.
type others struct {
	mu       sync.Mutex
	all      []dashboard.Process
	err      error
	calls    int
	hangs    time.Duration
	did      []string
	question bgagent.Question
}

func (o *others) Processes(ctx context.Context, _ int) ([]dashboard.Process, error) {
	o.mu.Lock()
	o.calls++
	hangs := o.hangs
	o.mu.Unlock()
	select {
	case <-time.After(hangs):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.all, o.err
}

func (o *others) Read(_ context.Context, id string) (bgagent.Task, error) {
	for _, p := range o.all {
		for _, t := range p.Tasks {
			if t.ID == id {
				t.Result, t.Metadata = "far away", map[string]string{"secret": "of the host"}
				if o.question.Key != "" {
					t.Questions = []bgagent.Question{o.question}
				}
				return t, nil
			}
		}
	}
	return bgagent.Task{}, bgagent.ErrUnknownTask
}

func (o *others) Cancel(ctx context.Context, id, reason string) (bgagent.Task, error) {
	t, err := o.Read(ctx, id)
	if err == nil {
		o.did = append(o.did, "cancel "+id+" "+reason)
	}
	return t, err
}

func (o *others) Answer(_ context.Context, id string, in bgagent.AnswerInput) (bgagent.Question, error) {
	o.did = append(o.did, "answer "+id+" "+in.Option)
	return o.question, nil
}

func (o *others) set(change func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	change()
}

func far(id string) bgagent.Task {
	return bgagent.Task{ID: id, Parent: "main", Root: "main", Agent: "wait", Description: hostile, Status: bgagent.Running, Attempt: 1, Queued: time.Now(), Started: time.Now()}
}

// text returns a field of a task's row, or "".
func (v *viewer) text(id, field string) string {
	v.mu.Lock()
	defer v.mu.Unlock()
	s, _ := v.tasks[id][field].(string)
	return s
}

func TestThePageShowsTheTasksOfOtherProcesses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, bgagent.Config{})
		own := launch(t, m, "main", "wait", "x")
		o := &others{all: []dashboard.Process{{Name: "m2", Tasks: []bgagent.Task{far("bg_far2"), own}}, {Name: hostile, Tasks: []bgagent.Task{far("bg_far3")}}}}
		h := dashboard.New(m, dashboard.Config{Others: o, Process: "m1"})
		v := watch(t, h, 0)
		pass(time.Second)
		require.Equal(t, "running", v.status(own.ID))
		require.Empty(t, v.text(own.ID, "process"), "the manager has the task, whatever others say")
		require.Equal(t, "m2", v.text("bg_far2", "process"))
		require.Equal(t, hostile, v.text("bg_far3", "process"))
		require.Len(t, v.tasks, 3)

		batches := v.batches
		pass(time.Minute)
		require.Equal(t, batches, v.batches, "nothing is sent when nothing happens")

		o.set(func() { // m2 dies, and its tasks are read from the servers; the other process is frozen
			o.all = []dashboard.Process{{Name: "m2", Problem: "not running", Tasks: []bgagent.Task{far("bg_far2")}}, {Name: hostile, Problem: "does not answer"}}
		})
		pass(3 * time.Second)
		require.Equal(t, "not running", v.text("bg_far2", "problem"))
		require.Equal(t, "does not answer", v.text("bg_far3", "problem"), "what it told earlier stays")
		require.Equal(t, "running", v.status("bg_far3"))
		o.set(func() { o.err = errors.New("no servers") })
		pass(3 * time.Second)
		require.Equal(t, "no servers", v.text("bg_far2", "problem"))
		require.Equal(t, "no servers", v.text("bg_far3", "problem"))
		o.set(func() { // m2 is back, and has one more task; the other process has lost its task
			o.err = nil
			o.all = []dashboard.Process{{Name: "m2", Tasks: []bgagent.Task{far("bg_far2"), far("bg_far4")}}, {Name: hostile}}
		})
		pass(3 * time.Second)
		require.Empty(t, v.text("bg_far2", "problem"))
		require.Equal(t, "m2", v.text("bg_far4", "process"))
		require.Empty(t, v.status("bg_far3"))

		v.leave()
		calls := o.calls
		pass(time.Minute)
		require.Equal(t, calls, o.calls, "no page is open")
	})
}

func TestAProcessThatHangsDoesNotDelayThePage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, bgagent.Config{})
		o := &others{hangs: time.Hour, all: []dashboard.Process{{Name: "m2", Tasks: []bgagent.Task{far("bg_far2")}}}}
		v := watch(t, dashboard.New(m, dashboard.Config{Others: o}), 0)
		pass(time.Millisecond)
		id := launch(t, m, "main", "wait", "x").ID
		pass(dashboard.DefaultInterval + time.Millisecond)
		require.Equal(t, "running", v.status(id))
		v.leave()
	})
}

func TestThePageControlsTheTasksOfOtherProcesses(t *testing.T) {
	m := newManager(t, bgagent.Config{})
	o := &others{all: []dashboard.Process{{Name: "m2", Tasks: []bgagent.Task{far("bg_far2")}}}, question: bgagent.Question{Key: "q", Kind: bgagent.QuestionPermission, Title: "May I?", Options: []string{"allow"}}}
	h := dashboard.New(m, dashboard.Config{Others: o, AllowCancel: true, AllowResume: true, AllowAnswer: true})
	w := get(h, "/task?id=bg_far2")
	require.Equal(t, http.StatusOK, w.Code, w.Body)
	require.Contains(t, w.Body.String(), "far away")
	require.NotContains(t, w.Body.String(), "of the host", "metadata can be confidential")
	require.Equal(t, http.StatusNotFound, get(h, "/task?id=bg_none").Code)
	require.Contains(t, get(h, "/messages?id=bg_far2").Body.String(), "Only the task's own process shows its messages.")
	require.Equal(t, http.StatusNotFound, get(h, "/messages?id=bg_none").Code)

	require.Equal(t, http.StatusOK, post(h, "/cancel", `{"id": "bg_far2"}`).Code)
	require.Equal(t, http.StatusNotFound, post(h, "/cancel", `{"id": "bg_none"}`).Code)
	w = post(h, "/resume", `{"id": "bg_far2", "prompt": "again"}`)
	require.Equal(t, http.StatusBadGateway, w.Code)
	require.Contains(t, w.Body.String(), "belongs to another process")
	answer := `{"id": "bg_far2", "key": "q", "option": "allow"}`
	require.Equal(t, http.StatusForbidden, post(h, "/answer", answer).Code, "permissions cannot be granted on this page")
	require.Equal(t, http.StatusNotFound, post(h, "/answer", `{"id": "bg_far2", "key": "x", "option": "allow"}`).Code)
	o.question.Kind = bgagent.QuestionChoice
	require.Equal(t, http.StatusOK, post(h, "/answer", answer).Code)
	require.Equal(t, []string{"cancel bg_far2 cancelled on the dashboard", "answer bg_far2 allow"}, o.did)

	h = dashboard.New(m, dashboard.Config{Others: o})
	require.Equal(t, http.StatusForbidden, post(h, "/cancel", `{"id": "bg_far2"}`).Code)
	require.Equal(t, http.StatusForbidden, post(h, "/answer", answer).Code)
}
