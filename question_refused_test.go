package bgagent_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/bgagenttest"
	"github.com/stretchr/testify/require"
)

// The type "refusals" is a starter that records the outcomes of questions.
type refusals struct {
	bgagenttest.Starter
	mu  *sync.Mutex
	got *[]string
}

func (r refusals) AnswerQuestion(_ context.Context, _ string, q bgagent.Question, refusal error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	*r.got = append(*r.got, q.ID+": "+refusal.Error())
	return nil
}

func TestAQuestionThatIsNotValidIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := refusals{bgagenttest.NewStarter(func(t *bgagenttest.Turn) {
			t.Sleep(time.Minute)
			t.Say("done")
		}), &sync.Mutex{}, &[]string{}}
		r.Stream = true
		defer r.Close()
		m := manage(t, r, bgagent.Config{Ask: true})
		task := launch(t, m, "build")
		time.Sleep(time.Second)
		session := get(t, m, task.ID).Session
		for _, c := range []struct {
			change func(*bgagent.Question)
			says   string
		}{
			{func(q *bgagent.Question) { q.Options = nil }, "Options: has 0 options"},
			{func(q *bgagent.Question) { q.Options = []string{"a", "\xff"} }, "valid UTF-8"},
			{func(q *bgagent.Question) { q.Title = " " }, "Title: is missing"},
			{func(q *bgagent.Question) { q.Subject = strings.Repeat("x", 64<<10+1) }, "Subject: is 65537 bytes long"},
			{func(q *bgagent.Question) { q.Kind = 0 }, "Kind: is 0"},
			{func(q *bgagent.Question) { q.ID = "\xff" }, ""},
			{func(q *bgagent.Question) { q.ID = "" }, ""},
		} {
			q := mayI
			c.change(&q)
			for range 2 {
				m.Observe(bgagent.HostEvent{Kind: bgagent.HostQuestion, Session: session, Questions: []bgagent.Question{q}})
				time.Sleep(time.Second)
			}
			require.Empty(t, get(t, m, task.ID).Questions)
			r.mu.Lock()
			got := *r.got
			*r.got = nil
			r.mu.Unlock()
			if c.says == "" {
				require.Empty(t, got, "the runtime could not identify the question")
				continue
			}
			require.Len(t, got, 1)
			require.Contains(t, got[0], "per_1: "+bgagent.ErrNotAsked.Error()+": the question is not valid: ")
			require.Contains(t, got[0], c.says)
		}
		require.Equal(t, bgagent.Completed, ended(t, m, task.ID)[0].Status)
	})
}
