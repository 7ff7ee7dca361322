package opencode_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/opencode"
)

func TestATurnThatTheStreamTellsOfIsNotRead(t *testing.T) {
	bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
		task := r.launch("use")
		began := time.Now()
		task = r.wait(task)
		assert.Equal(t, "used", task.Result)
		assert.Equal(t, 1, task.Progress.ToolCalls)
		assert.Equal(t, int64(4), task.Progress.Usage.OutputTokens)
		assert.Less(t, time.Since(began), time.Second, "the event reports the end")
		assert.Zero(t, r.count("GET", task.Session+"/message"), "requests for messages")
		var last *bgagent.Message
		for _, e := range r.told(task.Session, bgagent.HostMessage) {
			last = e.Message
		}
		msgs := r.messages(task.Session)
		assert.Equal(t, msgs[len(msgs)-1], *last, "the emitted message equals the stored one")
	})
}

func TestGrowingTextIsToldWhileItGrows(t *testing.T) {
	bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
		task := r.under(r.launch("wait"))
		assert.Equal(t, "I wait for ever", task.Progress.LastMessage)
		texts := 0
		for _, e := range r.told(task.Session, bgagent.HostMessage) {
			if e.Message.Text != "" && e.Message.Role == bgagent.RoleAgent {
				texts++
			}
		}
		assert.Equal(t, 1, texts, "the text is not emitted with every word")
		assert.Len(t, r.told(task.Session, bgagent.HostActivity), 4, "every word is activity")
	})
}

func TestNothingIsKeptOfAForgottenSession(t *testing.T) {
	c := newClient(t, opencode.Config{})
	f := opencode.NewFollower(c, func(bgagent.HostEvent) {}, "ses_0", "ses_1", "ses_2")
	event := func(kind, properties string, a ...any) {
		opencode.Event(f, t.Context(), fmt.Appendf(nil, `{"payload":{"type":%q,"properties":`+properties+`}}`, append([]any{kind}, a...)...))
	}
	event("server.connected", `{}`)
	for i := range 3 {
		id := fmt.Sprintf("ses_%d", i)
		event("message.updated", `{"info":{"id":"msg_u%d","sessionID":%q,"role":"user"}}`, i, id)
		event("message.updated", `{"info":{"id":"msg_a%d","sessionID":%q,"role":"assistant"}}`, i, id) // the message is never finished
		event("session.status", `{"sessionID":%q,"status":{"type":"idle"}}`, id)
	}
	require.Equal(t, 3, opencode.Views(f), "late pieces are still assembled")
	c.ForgetSession("ses_0")
	c.ForgetSession("ses_1")
	opencode.NewFollower(c, nil, "ses_1") // makes the client treat the session as one that it runs
	event("server.heartbeat", `{}`)
	assert.Equal(t, 2, opencode.Views(f))
	c.ForgetSession("ses_1")
	c.ForgetSession("ses_2")
	event("server.heartbeat", `{}`)
	assert.Zero(t, opencode.Views(f))
	opencode.Down(f)
}

func TestABrokenStreamIsAGapAndIsOpenedAgain(t *testing.T) {
	bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
		task := r.under(r.launch("wait"))
		r.f.breakStreams()
		time.Sleep(time.Second)
		assert.Equal(t, []bgagent.HostEventKind{bgagent.HostStreamUp, bgagent.HostStreamGap, bgagent.HostStreamGap, bgagent.HostStreamUp}, r.stream())
		assert.NotZero(t, r.count("GET", task.Session+"/message"), "the lost messages are read")
		// The poll after the gap finds the turn that ended while no event arrived.
		r.f.do(func() { r.f.mute = true; r.f.abort(task.Session) })
		time.Sleep(100 * time.Millisecond)
		r.f.do(func() { r.f.mute = false })
		r.f.breakStreams()
		began := time.Now()
		assert.Equal(t, bgagent.Cancelled, r.wait(task).Status)
		assert.Less(t, time.Since(began), 3*time.Second)
	})
}

// stream returns the events about the stream itself, without heartbeats.
func (r *rig) stream() (out []bgagent.HostEventKind) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events {
		switch e.Kind {
		case bgagent.HostStreamUp, bgagent.HostStreamGap:
			out = append(out, e.Kind)
		}
	}
	return out
}

func TestASilentStreamIsDead(t *testing.T) {
	bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
		seconds(60)
		assert.Equal(t, []bgagent.HostEventKind{bgagent.HostStreamUp}, r.stream(), "heartbeats keep it up")
		r.f.do(func() { r.f.mute = true })
		task := r.launch("say done")
		seconds(20)
		r.f.do(func() { r.f.mute = false })
		seconds(16)
		assert.Len(t, r.stream(), 4, "the client reconnects after 25 s of silence")
		assert.Equal(t, "done", r.wait(task).Result, "polls find the end meanwhile")
	})
}

func TestAMessageWhoseBeginningWasMissedIsToldInWhole(t *testing.T) {
	bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
		task := r.launch("say " + strings.Repeat("word ", 400))
		time.Sleep(time.Second) // until the middle of the turn
		r.f.breakStreams()
		task = r.wait(task)
		want := strings.Repeat("word ", 400)
		assert.Equal(t, bgagent.Completed, task.Status, task.Reason)
		assert.Equal(t, strings.TrimSpace(want), strings.TrimSpace(task.Result))
		for _, e := range r.told(task.Session, bgagent.HostMessage) {
			assert.True(t, strings.HasPrefix(want, e.Message.Text) || e.Message.Role == bgagent.RoleUser, "emitted a part of the text: %q", e.Message.Text)
		}
	})
}

func TestWithoutAStreamPollsFindEverything(t *testing.T) {
	for _, script := range []string{"say done", "use", "refuse", "ask", "question"} {
		bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
			r.f.intercept(func(req *http.Request) *http.Response {
				if req.URL.Path == "/global/event" {
					return answer(http.StatusNotFound, `{"name":"NotFoundError","data":{"message":"no such route"}}`)
				}
				return nil
			})
			r.f.breakStreams()
			seconds(1)
			task := r.wait(r.launch(script))
			if script == "refuse" {
				assert.Equal(t, "refused as told", task.Reason[len(task.Reason)-len("refused as told"):])
				return
			}
			assert.Equal(t, bgagent.Completed, task.Status, task.Reason)
		})
	}
}

func TestEventsReturnsWhenTheServerRefusesThem(t *testing.T) {
	bubble(t, opencode.Config{Password: "wrong"}, none, func(t *testing.T, r *rig) {
		other := newClient(t, opencode.Config{Password: "wrong", HTTPClient: r.f.client()})
		r.f.do(func() { r.f.password = "right" })
		began := time.Now()
		err := other.Events(t.Context(), func(bgagent.HostEvent) {})
		assert.ErrorContains(t, err, "OPENCODE_SERVER_PASSWORD")
		assert.Zero(t, time.Since(began), "it does not retry a refusal")
		r.f.do(func() { r.f.password, r.f.down = "", true })
		err = other.Events(t.Context(), func(bgagent.HostEvent) {})
		assert.ErrorContains(t, err, "start it with")
		assert.Less(t, time.Since(began), time.Minute)
	})
}

func TestOneManagerFollowsTheEventsOfAClient(t *testing.T) {
	bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
		err := r.c.Events(t.Context(), func(bgagent.HostEvent) {})
		assert.ErrorContains(t, err, "already followed")
	})
}

func TestEventsOfOtherSessionsAreTheirStatusesOnly(t *testing.T) {
	bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
		other := newClient(t, opencode.Config{HTTPClient: r.f.client()})
		id, err := other.CreateSession(t.Context(), bgagent.SessionSpec{Agent: "worker"})
		require.NoError(t, err)
		require.NoError(t, other.StartTurn(t.Context(), id, prompt("bgp_1", "use")))
		seconds(1)
		assert.NotEmpty(t, r.told(id, bgagent.HostStatus))
		assert.Empty(t, r.told(id, bgagent.HostMessage))
	})
}

func TestTodosAreToldAndHoldTheTaskBack(t *testing.T) {
	bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
		began := time.Now()
		task := r.wait(r.launch("todo"))
		assert.Equal(t, bgagent.Completed, task.Status)
		assert.Equal(t, 1, task.OpenTodos)
		assert.GreaterOrEqual(t, time.Since(began), 30*time.Second)
		assert.Equal(t, []bgagent.Todo{{Text: "later"}, {Text: "done", State: bgagent.TodoCompleted}}, task.Progress.Todos)
	})
}

// Events of any length are read, and an event that cannot be decoded is harmless.
func TestEventsOfAnyShapeAndLengthAreReadOrPassedOver(t *testing.T) {
	bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
		task := r.under(r.launch("wait"))
		for _, line := range []string{
			`{`, `null`, `[]`, `"x"`, `{"payload":null}`, `{"payload":{"type":"message.updated","properties":7}}`,
			`{"payload":{"type":"message.updated","properties":{"info":7}}}`,
			`{"payload":{"type":"message.part.updated","properties":{}}}`,
			`{"payload":{"type":"message.part.delta","properties":{"sessionID":"` + task.Session + `","field":"text","delta":"x"}}}`,
			`{"payload":{"type":"session.error","properties":{}}}`, `{"payload":{"type":"session.deleted","properties":{}}}`,
			`{"payload":{"type":"of.a.later.version","properties":{"sessionID":"` + task.Session + `"}}}`,
			`{"payload":{"type":"session.status","properties":{"sessionID":"` + task.Session + `","status":{"type":"napping"}}}}`,
			`{"payload":{"type":"permission.asked","properties":{"id":"per_1"}}}`,
		} {
			r.f.raw(line)
		}
		part := fmt.Sprintf(`{"id":"prt_long","sessionID":%q,"messageID":"msg_long","type":"text","text":%q}`, task.Session, strings.Repeat("long ", 1<<20))
		r.f.raw(`{"payload":{"type":"message.updated","properties":{"sessionID":"` + task.Session + `","info":{"id":"msg_long","role":"assistant","time":{"created":1}}}}}`)
		r.f.raw(`{"payload":{"type":"message.part.updated","properties":{"sessionID":"` + task.Session + `","part":` + part + `}}}`)
		seconds(1)
		told := r.told(task.Session, bgagent.HostMessage)
		assert.Len(t, told[len(told)-1].Message.Text, 5<<20)
		assert.Equal(t, []bgagent.HostEventKind{bgagent.HostStreamUp}, r.stream())
		assert.Equal(t, bgagent.Running, r.under(task).Status)
	})
}

// raw sends a line on all streams.
func (f *fakeServer) raw(line string) {
	f.do(func() {
		for st := range f.streams {
			st.send <- []byte(line)
		}
	})
}

func TestADisposedInstanceIsAGap(t *testing.T) {
	bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
		r.f.raw(`{"directory":"/work","payload":{"type":"server.instance.disposed","properties":{}}}`)
		seconds(1)
		assert.Equal(t, []bgagent.HostEventKind{bgagent.HostStreamUp, bgagent.HostStreamGap, bgagent.HostStreamUp}, r.stream())
	})
}

func TestEventsEndWithTheirContext(t *testing.T) {
	bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
		other := newClient(t, opencode.Config{HTTPClient: r.f.client()})
		ctx, cancel := context.WithCancelCause(t.Context())
		why := errors.New("enough")
		time.AfterFunc(time.Minute, func() { cancel(why) })
		assert.ErrorIs(t, other.Events(ctx, func(bgagent.HostEvent) {}), why)
	})
}

func TestEventsAreReadWhateverEndsTheirLines(t *testing.T) {
	const want = `{"a":1}|{"b":` + "\n" + `2}|{"c":3}`
	for name, stream := range map[string]string{
		"\\n":              "data: {\"a\":1}\n\n: comment\ndata: {\"b\":\ndata:2}\nid: 7\n\nretry: 1\n\ndata:{\"c\":3}\n\n",
		"comments of 2 MB": ":" + strings.Repeat("x", 2<<20) + "\ndata: {\"a\":1}\n\ndata: {\"b\":\ndata:2}\n\n\n\ndata\n\ndata:{\"c\":3}\n\n",
	} {
		for end, with := range map[string]string{"LF": "\n", "CRLF": "\r\n", "CR": "\r"} {
			for _, mark := range []string{"", "\xef\xbb\xbf"} {
				var got []string
				err := opencode.ReadEvents(strings.NewReader(mark+strings.ReplaceAll(stream, "\n", with)), func(data []byte) { got = append(got, string(data)) })
				assert.ErrorIs(t, err, io.ErrUnexpectedEOF)
				assert.Equal(t, want, strings.Join(got, "|"), "%s %s", name, end)
			}
		}
	}
}

func TestAnEventThatIsTooLargeIsPassedOverAndTheSessionRead(t *testing.T) {
	var got []string
	read := func(r io.Reader) {
		got = nil
		_ = opencode.ReadEvents(r, func(data []byte) {
			if data == nil {
				got = append(got, "too large")
				return
			}
			got = append(got, string(data))
		})
	}
	line := strings.Repeat("x", 1<<20)
	read(io.MultiReader(strings.NewReader("data: a\n\ndata: "), &endless{text: line, n: 40}, strings.NewReader("\n\ndata: b\n\n")))
	assert.Equal(t, []string{"a", "too large", "b"}, got, "one line")
	read(io.MultiReader(&endless{text: "data: " + line + "\n", n: 40}, strings.NewReader("\ndata: b\n\n")))
	assert.Equal(t, []string{"too large", "b"}, got, "many lines")

	var told []bgagent.HostEventKind
	f := opencode.NewFollower(newClient(t, opencode.Config{}), func(e bgagent.HostEvent) { told = append(told, e.Kind) })
	opencode.Event(f, t.Context(), nil)
	assert.Equal(t, []bgagent.HostEventKind{bgagent.HostStreamGap, bgagent.HostStreamUp}, told)
	opencode.Down(f)
}
