package opencode_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/opencode"
)

var asks = bgagent.Config{Ask: true}

// question returns the only open question of a task.
func question(t require.TestingT, m *bgagent.BackgroundManager, id string) bgagent.Question {
	task, err := m.Get(id)
	require.NoError(t, err)
	require.Len(t, task.Questions, 1, "%s: %s", task.Status, task.Reason)
	return task.Questions[0]
}

// The function "option" answers a task's question with the given option.
func option(t require.TestingT, m *bgagent.BackgroundManager, id string, q bgagent.Question, option string) {
	got, err := m.Answer(context.Background(), bgagent.Caller{}, id, bgagent.AnswerInput{Key: q.Key, Option: option})
	require.NoError(t, err)
	require.Equal(t, option, got.Answer)
}

func TestAPermissionIsAskedAndAnswered(t *testing.T) {
	for answer, want := range map[string]string{
		"allow once": "replied once",
		"reject":     "replied reject The host has denied this. Go on without it, or say in your answer what you would have needed.",
	} {
		bubble(t, opencode.Config{}, asks, func(t *testing.T, r *rig) {
			task := r.under(r.launch("ask"))
			q := question(t, r.m, task.ID)
			assert.Equal(t, bgagent.QuestionPermission, q.Kind)
			assert.Equal(t, "may I: bash rm -rf /", q.Title)
			assert.Equal(t, "rm -rf /", q.Subject)
			assert.Equal(t, []string{"allow once", "reject"}, q.Options, "always is not offered")
			assert.Equal(t, bgagent.PhaseAsking, task.Phase)
			seconds(6000) // a task that asks does not become stale
			option(t, r.m, task.ID, q, answer)
			got := r.wait(task)
			assert.Equal(t, want, got.Result, got.Reason)
			assert.Equal(t, 1, r.count("POST", "/permission/"))
		})
	}
}

// A server can report a question before it stores the input of the call that asks the question.
func TestAPermissionIsNotAskedBeforeTheInputIsKnown(t *testing.T) {
	bubble(t, opencode.Config{}, asks, func(t *testing.T, r *rig) {
		task := r.launch("askearly")
		seconds(3)
		q := question(t, r.m, task.ID)
		assert.Equal(t, "rm -rf /\ninput:\n  path: /etc/passwd", q.Subject)
		option(t, r.m, task.ID, q, "allow once")
		assert.Contains(t, r.wait(task).Result, "replied once")
	})
}

func TestAQuestionWithOptionsIsAChoice(t *testing.T) {
	bubble(t, opencode.Config{}, asks, func(t *testing.T, r *rig) {
		task := r.under(r.launch("choose"))
		q := question(t, r.m, task.ID)
		assert.Equal(t, bgagent.QuestionChoice, q.Kind)
		assert.Equal(t, "which one?", q.Title)
		assert.Equal(t, "which one?\nA: the first", q.Subject)
		assert.Equal(t, []string{"A", "B"}, q.Options)
		option(t, r.m, task.ID, q, "B")
		got := r.wait(task)
		assert.Equal(t, "chose [[B]]", got.Result, got.Reason)
	})
}

// Each label is shown in a form that can be typed and differs from the others. The server gets the label
// exactly as it sent it.
func TestTheServerGetsItsOwnLabelAsTheAnswer(t *testing.T) {
	for shown, want := range map[string]string{"A b": "A b", `A\u200b b`: "A\u200b b", "A b #2": "A  b"} {
		bubble(t, opencode.Config{}, asks, func(t *testing.T, r *rig) {
			task := r.under(r.launch("chooselike"))
			q := question(t, r.m, task.ID)
			require.Equal(t, []string{"A b", `A\u200b b`, "A b #2"}, q.Options)
			option(t, r.m, task.ID, q, shown)
			require.Equal(t, "chose [["+want+"]]", r.wait(task).Result)
		})
		bubble(t, opencode.Config{}, asks, func(t *testing.T, r *rig) { // the answer comes from another process, which has not read the question
			task := r.under(r.launch("chooselike"))
			q := question(t, r.m, task.ID)
			other := newClient(t, opencode.Config{HTTPClient: r.f.client()})
			q.Answer = "A c"
			require.ErrorContains(t, other.AnswerQuestion(t.Context(), task.Session, q, nil), "is not one of its options")
			q.Answer = shown
			require.NoError(t, other.AnswerQuestion(t.Context(), task.Session, q, nil))
			require.Equal(t, "chose [["+want+"]]", r.wait(task).Result)
			require.ErrorIs(t, other.AnswerQuestion(t.Context(), task.Session, bgagent.Question{ID: "que_none", Kind: bgagent.QuestionChoice, Answer: shown}, nil), bgagent.ErrNoQuestion)
		})
	}
}

func TestAQuestionWithoutOptionsIsDeclinedAtOnce(t *testing.T) {
	bubble(t, opencode.Config{}, asks, func(t *testing.T, r *rig) {
		task := r.launch("question")
		seconds(1)
		assert.Equal(t, bgagent.Completed, r.wait(task).Status)
		assert.Empty(t, r.told(task.Session, bgagent.HostQuestion))
		assert.Equal(t, 1, r.count("POST", "/reject"))
	})
}

func TestAnExpiredPermissionIsRejectedAsExpired(t *testing.T) {
	bubble(t, opencode.Config{}, asks, func(t *testing.T, r *rig) {
		task := r.under(r.launch("ask"))
		seconds(24 * 3600)
		got := r.wait(task)
		assert.Contains(t, got.Result, "replied reject This was not allowed: nobody has answered the question in time.")
		assert.NotContains(t, got.Result, "denied")
	})
}

func TestThePolicyOfTheHostDecidesBeforeTheTaskAsks(t *testing.T) {
	reply := opencode.PermissionReply{}
	policy := func(context.Context, opencode.PermissionRequest) opencode.PermissionReply { return reply }
	bubble(t, opencode.Config{Permission: policy}, asks, func(t *testing.T, r *rig) {
		assert.Contains(t, r.wait(r.launch("ask")).Result, "replied reject This was not allowed.")
		reply.Ask = true
		task := r.under(r.launch("ask"))
		option(t, r.m, task.ID, question(t, r.m, task.ID), "allow once")
		assert.Equal(t, "replied once", r.wait(task).Result)
		reply.Allow = true
		assert.Equal(t, "replied once", r.wait(r.launch("ask")).Result)
	})
}

func TestTwoAnswersAtOnceAreOne(t *testing.T) {
	bubble(t, opencode.Config{}, asks, func(t *testing.T, r *rig) {
		task := r.under(r.launch("ask"))
		q := question(t, r.m, task.ID)
		var wg sync.WaitGroup
		errs := make([]error, 10)
		for i := range errs {
			wg.Go(func() {
				_, errs[i] = r.m.Answer(t.Context(), bgagent.Caller{}, task.ID, bgagent.AnswerInput{Key: q.Key, Option: q.Options[i%2]})
			})
		}
		wg.Wait()
		accepted := 0
		for _, err := range errs {
			if err == nil {
				accepted++
				continue
			}
			assert.ErrorIs(t, err, bgagent.ErrQuestionOver)
		}
		assert.Equal(t, 1, accepted)
		r.wait(task)
		assert.Equal(t, 1, r.count("POST", "/permission/"))
	})
}

func TestAQuestionThatAUserAnswersInTheWindowIsWithdrawn(t *testing.T) {
	bubble(t, opencode.Config{}, asks, func(t *testing.T, r *rig) {
		task := r.under(r.launch("ask"))
		q := question(t, r.m, task.ID)
		r.f.do(func() {
			for id, a := range r.f.asks {
				delete(r.f.asks, id)
				a.answer <- map[string]any{"reply": "once"}
			}
		})
		assert.Equal(t, "replied once", r.wait(task).Result)
		over, err := r.m.Answer(t.Context(), bgagent.Caller{}, task.ID, bgagent.AnswerInput{Key: q.Key, Option: "reject"})
		assert.ErrorIs(t, err, bgagent.ErrQuestionOver)
		assert.Equal(t, bgagent.QuestionWithdrawn, over.State)
		assert.Zero(t, r.count("POST", "/permission/"))
	})
}

func TestAQuestionOfAnAbortedTurnIsNotAskedAgain(t *testing.T) {
	bubble(t, opencode.Config{}, asks, func(t *testing.T, r *rig) {
		task := r.under(r.launch("ask"))
		q := question(t, r.m, task.ID)
		_, err := r.m.Cancel(t.Context(), bgagent.Caller{}, task.ID, bgagent.CancelOptions{})
		require.NoError(t, err)
		_, err = r.m.Resume(t.Context(), bgagent.Caller{}, task.ID, bgagent.ResumeInput{Prompt: "wait"})
		require.NoError(t, err)
		seconds(5)
		r.f.do(func() { require.Len(t, r.f.asks, 1, "the server still lists the question") })
		r.f.breakStreams() // after the gap, the client reads the list
		seconds(60)
		got, err := r.m.Get(task.ID)
		require.NoError(t, err)
		assert.Empty(t, got.Questions)
		over, err := r.m.Answer(t.Context(), bgagent.Caller{}, task.ID, bgagent.AnswerInput{Key: q.Key, Option: "reject"})
		assert.ErrorIs(t, err, bgagent.ErrQuestionOver)
		assert.Equal(t, bgagent.QuestionWithdrawn, over.State)
		assert.Zero(t, r.count("POST", "/permission/"))
	})
}

func TestAQuestionThatDiedWithItsServerIsWithdrawn(t *testing.T) {
	bubble(t, opencode.Config{}, asks, func(t *testing.T, r *rig) {
		task := r.under(r.launch("ask"))
		q := question(t, r.m, task.ID)
		r.f.crash()
		seconds(2)
		r.f.restart()
		seconds(60)
		over, err := r.m.Answer(t.Context(), bgagent.Caller{}, task.ID, bgagent.AnswerInput{Key: q.Key, Option: "reject"})
		require.ErrorIs(t, err, bgagent.ErrQuestionOver)
		assert.Equal(t, bgagent.QuestionWithdrawn, over.State)
	})
}

func TestAQuestionAskedWhileTheStreamWasDownIsAsked(t *testing.T) {
	bubble(t, opencode.Config{}, asks, func(t *testing.T, r *rig) {
		r.f.do(func() { r.f.mute = true })
		task := r.launch("ask")
		time.Sleep(200 * time.Millisecond)
		r.f.do(func() { r.f.mute = false })
		r.f.breakStreams()
		seconds(10)
		option(t, r.m, task.ID, question(t, r.m, task.ID), "allow once")
		assert.Equal(t, "replied once", r.wait(task).Result)
	})
}

func TestAQuestionThatTheServerStillHoldsKeepsItsKeyInTheNextProcess(t *testing.T) {
	for _, prompt := range []string{"ask", "choose", "ask2"} {
		restarts(t, func(a *afterlife) {
			a.mcfg.Ask = true
			p := a.begin()
			id := a.launch(prompt)
			q := question(a, p.m, id)
			if prompt == "ask2" {
				option(a, p.m, id, q, "allow once")
				time.Sleep(time.Second)
				q = question(a, p.m, id)
			}
			p.crash()
			time.Sleep(time.Minute)
			p = a.begin()
			time.Sleep(10 * time.Second)
			again := question(a, p.m, id)
			require.Equal(a, q.Key, again.Key)
			require.Equal(a, q.Expires.Unix(), again.Expires.Unix())
			option(a, p.m, id, q, q.Options[0])
			got := a.ended(id)
			want := map[string]string{"ask": "replied once", "choose": "chose [[A]]", "ask2": "replied once , replied once"}[prompt]
			require.Equal(a, want, got.Result, got.Reason)
		})
	}
}

func TestQuestionsThatDiedWhileNoProcessRanAreWithdrawn(t *testing.T) {
	for _, death := range []string{"the server has restarted", "a user has aborted the turn", "a user has answered"} {
		restarts(t, func(a *afterlife) {
			a.mcfg.Ask = true
			p := a.begin()
			id := a.launch("ask2")
			q := question(a, p.m, id)
			task, err := p.m.Get(id)
			require.NoError(a, err)
			p.crash()
			switch death {
			case "the server has restarted":
				a.f.crash()
				a.f.restart()
			case "a user has aborted the turn":
				user := newClient(a, opencode.Config{HTTPClient: a.f.client()})
				require.NoError(a, user.Abort(a.Context(), task.Session))
				require.Len(a, a.f.asks, 1)
				// The session is in another turn while the server still lists the question, so the question
				// could seem to be from this turn.
				require.NoError(a, user.StartTurn(a.Context(), task.Session, prompt("", "wait")))
			default:
				a.f.do(func() { a.f.asks[q.ID].answer <- map[string]any{"reply": "once"}; delete(a.f.asks, q.ID) })
			}
			time.Sleep(time.Second)
			p = a.begin()
			time.Sleep(time.Minute)
			over, err := p.m.Answer(a.Context(), bgagent.Caller{}, id, bgagent.AnswerInput{Key: q.Key, Option: "reject"})
			require.ErrorIs(a, err, bgagent.ErrQuestionOver, death)
			require.Equal(a, bgagent.QuestionWithdrawn, over.State)
			if strings.HasSuffix(death, "answered") {
				option(a, p.m, id, question(a, p.m, id), "allow once")
				require.Equal(a, "replied once , replied once", a.ended(id).Result)
			}
		})
	}
}

// An answer that was accepted reaches the server even if the process dies before it sends the request.
func TestAnAcceptedAnswerReachesTheServerFromTheNextProcess(t *testing.T) {
	restarts(t, func(a *afterlife) {
		a.mcfg.Ask = true
		p := a.begin()
		id := a.launch("ask")
		q := question(a, p.m, id)
		suffix := fmt.Sprintf("/permission/%s/reply", q.ID)
		p.diesBefore.Store(&suffix)
		option(a, p.m, id, q, "allow once")
		time.Sleep(time.Second)
		require.ErrorIs(a, p.life.Err(), context.Canceled)
		p = a.begin()
		require.Equal(a, "replied once", a.ended(id).Result)
		_, err := p.m.Answer(a.Context(), bgagent.Caller{}, id, bgagent.AnswerInput{Key: q.Key, Option: "reject"})
		require.ErrorIs(a, err, bgagent.ErrQuestionOver)
	})
}

// A lying server asks a thousand questions. It also asks questions without options, with a huge
// subject, with the id of another question, in sessions of other clients, and after the turn. The
// task ends, and an answer reaches only the question that was shown.
func TestQuestionsOfAServerThatLies(t *testing.T) {
	bubble(t, opencode.Config{}, asks, func(t *testing.T, r *rig) {
		task := r.under(r.launch("wait"))
		users := "" // the user's session
		replies := map[string]chan map[string]any{}
		ask := func(id, session, more string) {
			r.f.do(func() {
				body := map[string]any{"id": id, "sessionID": session}
				require.NoError(t, json.Unmarshal([]byte(more), &body))
				if replies[id] == nil {
					replies[id] = make(chan map[string]any, 1)
					r.f.asks[id] = &fakeAsk{dir: "/work", body: body, answer: replies[id]}
				}
				kind := "permission.asked"
				if strings.HasPrefix(id, "que") {
					kind = "question.asked"
				}
				r.f.emit("/work", kind, body)
			})
		}
		got := func(id string) string {
			select {
			case body := <-replies[id]:
				return fmt.Sprint("answered ", body)
			default:
				return ""
			}
		}
		open := func() []bgagent.Question {
			now, err := r.m.Get(task.ID)
			require.NoError(t, err)
			return now.Questions
		}
		bash := func(command string) string {
			return fmt.Sprintf(`{"permission":"bash","patterns":[%q],"metadata":{"command":%[1]q}}`, command)
		}

		ask("per_1", task.Session, bash("ls"))
		seconds(1)
		first := open()[0]
		require.Equal(t, "ls", first.Subject)
		ask("per_1", task.Session, bash("rm -rf /"))
		seconds(1)
		require.Len(t, open(), 1)
		require.Equal(t, "rm -rf /", open()[0].Subject)
		over, err := r.m.Answer(t.Context(), bgagent.Caller{}, task.ID, bgagent.AnswerInput{Key: first.Key, Option: "allow once"})
		require.ErrorIs(t, err, bgagent.ErrQuestionOver)
		require.Equal(t, bgagent.QuestionWithdrawn, over.State)
		err = r.c.AnswerQuestion(t.Context(), task.Session, bgagent.Question{ID: "per_1", Kind: bgagent.QuestionPermission, Subject: "ls", Options: first.Options, Answer: "allow once"}, nil)
		require.ErrorIs(t, err, bgagent.ErrNoQuestion)
		require.ErrorIs(t, r.c.AnswerQuestion(t.Context(), task.Session, bgagent.Question{ID: "per_unknown", Kind: bgagent.QuestionPermission, Answer: "reject"}, nil), bgagent.ErrNoQuestion)
		require.Empty(t, got("per_1"))

		ask("per_2", task.Session, bash(strings.Repeat("x", 1<<20)))
		ask("que_1", task.Session, `{"questions":[{"question":"which?","options":[]}]}`)
		ask("que_2", task.Session, `{"questions":[{"question":"which?","options":[{"label":"A"},{"label":"A"}]}]}`)
		ask("que_3", task.Session, `{"questions":[{"question":"which?","options":[{"label":"A"}]},{"question":"and?","options":[{"label":"B"}]}]}`)
		ask("que_4", task.Session, `{"questions":{"question":7}}`)
		ask("per_3"+strings.Repeat("x", 300), task.Session, bash("ls"))
		ask("per_4", "ses_unknown", bash("ls"))
		ask("per_6", task.Session, `{"permission":"bash","patterns":["ls",7],"metadata":{"command":"ls"}}`)
		ask("per_7", task.Session, `{"permission":"tool","patterns":["*"],"metadata":{},"tool":{"messageID":"msg_unknown","callID":"call"}}`)
		ask("per_8", task.Session, `{"permission":"doom_loop","patterns":["bash"],"metadata":{"tool":"bash","input":{"command":"a > b"}}}`)
		r.f.do(func() {
			_, s, _ := r.f.create("/work", nil)
			users = s.(*fakeSession).ID
		})
		ask("per_5", users, bash("ls"))
		seconds(1)
		require.Len(t, open(), 2)
		require.Equal(t, "bash\ninput: {\"command\":\"a > b\"}", open()[1].Subject)
		require.Contains(t, got("per_2"), "reject")
		require.Contains(t, got("per_6"), "the details of the request are not known")
		require.Contains(t, got("per_7"), "the details of the request are not known")
		for _, id := range []string{"que_1", "que_2", "que_3", "que_4", "per_3" + strings.Repeat("x", 300)} {
			require.Contains(t, got(id), "answered", id)
		}
		require.Empty(t, got("per_4")+got("per_5"))

		for i := range 1000 {
			ask(fmt.Sprintf("per_many%04d", i), task.Session, bash(fmt.Sprint("rm ", i)))
		}
		seconds(10)
		require.Len(t, open(), 20)
		refused := 0
		for i := range 1000 {
			if strings.Contains(got(fmt.Sprintf("per_many%04d", i)), "reject") {
				refused++
			}
		}
		require.Equal(t, 982, refused)
		last := open()[19]
		option(t, r.m, task.ID, last, "allow once")
		seconds(1)
		require.Contains(t, got(last.ID), "once")

		_, err = r.m.Cancel(t.Context(), bgagent.Caller{}, task.ID, bgagent.CancelOptions{})
		require.NoError(t, err)
		seconds(5)
		ask("per_late", task.Session, bash("ls"))
		seconds(5)
		require.Empty(t, open())
		require.Contains(t, got("per_late"), "the turn that could have asked about it has ended")
	})
}
