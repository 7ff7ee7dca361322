//go:build linux

package command

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/modelserver"
	"github.com/bgagent/bgagent/internal/realagent"
	"github.com/stretchr/testify/require"
)

// turns is the client of a real program. Its turns run without a manager.
type turns struct {
	*testing.T
	w *realagent.World
	c *Client
}

// The method "turns" returns a client for the program. If once is true, the program does not retry
// requests that the provider refused. Opencode's retries cannot be switched off.
func (r real) turns(t *testing.T, once bool) turns {
	t.Helper()
	w := realagent.New(t, r.name)
	a := r.agent(w)
	if once {
		switch r.name {
		case "claude":
			a.LeaveRetries = true
		case "codex":
			a.Args = append(a.Args, "-c", "model_providers.scripted.request_max_retries=0", "-c", "model_providers.scripted.stream_max_retries=0")
		case "gemini":
			require.NoError(t, os.MkdirAll(filepath.Join(w.Dir, ".gemini"), 0o755))
			require.NoError(t, os.WriteFile(filepath.Join(w.Dir, ".gemini", "settings.json"), []byte(`{"general":{"maxAttempts":1}}`), 0o644))
		}
	}
	return turns{t, w, clientOf(t, a, func(cc *Config) { cc.Directory, cc.Grace = w.Dir, 0 })}
}

func (s turns) session() string {
	s.Helper()
	id, err := s.c.CreateSession(s.Context(), bgagent.SessionSpec{Agent: "a"})
	require.NoError(s, err)
	return id
}

// The method "run" executes one turn. The result "retries" contains the reports about retried
// requests.
func (s turns) run(session string, p bgagent.Prompt) (end bgagent.TurnEnd, retries []bgagent.Report, err error) {
	s.Helper()
	var mu sync.Mutex
	p.Permissions = everything
	end, err = s.c.RunTurn(s.Context(), session, p, bgagent.NewReporter(func(x bgagent.Report) {
		mu.Lock()
		defer mu.Unlock()
		if x.Kind == bgagent.ReportRetrying {
			retries = append(retries, x)
		}
	}))
	return end, retries, err
}

// The method "refused" executes a turn that must fail because of the provider, and returns the
// provider's failure.
func (s turns) refused(session string, p bgagent.Prompt) *bgagent.ProviderError {
	s.Helper()
	end, _, err := s.run(session, p)
	var failure *bgagent.ProviderError
	require.ErrorAs(s, err, &failure)
	require.Equal(s, bgagent.StopError, end.Stop)
	if !strings.Contains(p.Text, "half") { // in a turn with "half", the model writes a part of its answer
		require.Empty(s, end.Text, "the program's text about the failure is not the agent's text")
	}
	return failure
}

// The method "seen" returns how many times the user messages in the last request to the model
// contain the text.
func (s turns) seen(text string) (n int) {
	requests := s.w.Model.Requests()
	for _, m := range requests[len(requests)-1].Messages {
		if m.Role == modelserver.User {
			n += strings.Count(m.Text, text)
		}
	}
	return n
}

// goesOn continues a turn that the provider refused, in the way that the failure suggests, and
// checks that the model sees the prompt only once.
func (s turns) goesOn(session string, failure *bgagent.ProviderError, p bgagent.Prompt) {
	s.Helper()
	switch failure.Next {
	case bgagent.NextContinue:
		p = bgagent.Prompt{ID: "next", Text: "Go on.\n@say fine", Unanswered: p.ID}
	case bgagent.NextNewSession:
		session = s.session()
	default:
		s.Fatalf("the turn cannot be continued: %d", failure.Next)
	}
	end, _, err := s.run(session, p)
	require.NoError(s, err)
	require.Equal(s, "fine", end.Text)
	require.Equal(s, 1, s.seen("MARK-ONE"))
}

func TestRealRefusedTurnIsContinuedAndTheModelSeesThePromptOnce(t *testing.T) {
	each(t, func(t *testing.T, r real) {
		s := r.turns(t, true)
		// Opencode needs more than a minute to give up after status 429, but it gives up immediately
		// after status 401. The content of the session is the same in both cases.
		script, kind, status := "@error 429 times=1 slow down", limited, 429
		if r.name == "opencode" {
			script, kind, status = "@error 401 times=1 no", authentication, 401
		}
		if r.name == "gemini" {
			// The second turn has a new session. The first message of a session describes the folder, so it
			// can differ between the two sessions, and the model server might not see that the request is
			// repeated. Therefore, the test itself counts the attempts.
			var attempts atomic.Int32
			s.w.Model.Handle(func(q modelserver.Request) modelserver.Reply {
				if q.Kind == modelserver.Main {
					q.Attempt = int(attempts.Add(1))
				}
				return q.Scripted()
			})
		}
		session, p := s.session(), bgagent.Prompt{ID: "first", Text: "MARK-ONE\n" + script + "\n@say fine"}
		failure := s.refused(session, p)
		require.Equal(t, kind, failure.Kind)
		require.Equal(t, status, failure.Status)
		if r.name == "gemini" {
			require.Equal(t, anew, failure.Next)
		} else {
			require.Equal(t, goOn, failure.Next)
		}
		s.goesOn(session, failure, p)
	})
}

func TestRealToolCallsBeforeAFailureAreKept(t *testing.T) {
	each(t, func(t *testing.T, r real) {
		if r.name == "opencode" {
			t.Skip("needs more than a minute to give up")
		}
		s := r.turns(t, true)
		session, p := s.session(), bgagent.Prompt{ID: "first", Text: "MARK-ONE\n" + r.shell("echo kept-42") + "\n@error 503 reason=overload"}
		failure := s.refused(session, p)
		require.Equal(t, overloaded, failure.Kind)
		require.Equal(t, goOn, failure.Next)
		s.w.Model.Handle(func(modelserver.Request) modelserver.Reply { return modelserver.Say("fine") }) // a fixed reply instead of a script, because claude sends the next prompt in the same message as the tool's result
		s.goesOn(session, failure, p)
		requests := s.w.Model.Requests()
		result := ""
		for _, m := range requests[len(requests)-1].Messages {
			for _, x := range m.Results { // gemini shows the result twice
				result += x.Text
			}
		}
		require.Contains(t, result, "kept-42", "the model sees the result of the call")
	})
}

func TestRealRejectedKeyEndsTheTurnAtOnce(t *testing.T) {
	each(t, func(t *testing.T, r real) {
		if r.name == "opencode" {
			t.Skip("the test of refused turns has this case")
		}
		s := r.turns(t, false)
		script := "@error 401 reason=key"
		if r.name == "gemini" {
			script = "@error 400 reason=key"
		}
		began := time.Now()
		failure := s.refused(s.session(), bgagent.Prompt{ID: "p", Text: script})
		require.Equal(t, authentication, failure.Kind)
		require.Equal(t, allModels, failure.Scope)
		require.Less(t, time.Since(began), 3*time.Minute) // claude's own retries would take 190 s
	})
}

func TestRealRetriesAreReported(t *testing.T) {
	each(t, func(t *testing.T, r real) {
		if r.name == "opencode" || r.name == "gemini" {
			t.Skip("opencode does not show its retries, and gemini needs 6 s for one")
		}
		s := r.turns(t, false)
		end, retries, err := s.run(s.session(), bgagent.Prompt{ID: "p", Text: "@error 429 times=1 retry-after=1 slow down\n@say fine"})
		require.NoError(t, err)
		require.Equal(t, "fine", end.Text)
		require.NotEmpty(t, retries)
		require.Equal(t, limited, retries[0].Provider.Kind)
		require.Equal(t, 429, retries[0].Provider.Status)
		require.Equal(t, goOn, retries[0].Provider.Next)
		require.Equal(t, r.name == "claude", !retries[0].RetryAt.IsZero(), "only claude tells when it tries again")
	})
}

func TestRealTurnThatIsStoppedBetweenItsRetriesIsContinued(t *testing.T) {
	each(t, func(t *testing.T, r real) {
		if r.name == "opencode" || r.name == "gemini" {
			t.Skip("opencode does not show its retries, and gemini needs 4 s for each turn")
		}
		s := r.turns(t, false)
		s.w.Model.Handle(func(q modelserver.Request) modelserver.Reply {
			if strings.Contains(q.LastUser(), "Go on.") {
				return modelserver.Say("fine")
			}
			return modelserver.Reply{Error: &modelserver.Error{Status: 429, Message: "slow down", RetryAfter: 50 * time.Second}}
		})
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		session, p := s.session(), bgagent.Prompt{ID: "first", Text: "MARK-ONE"}
		var failure *bgagent.ProviderError
		_, err := s.c.RunTurn(ctx, session, p, bgagent.NewReporter(func(x bgagent.Report) {
			if x.Kind == bgagent.ReportRetrying {
				failure = x.Provider
				stop()
			}
		}))
		require.ErrorIs(t, err, context.Canceled)
		require.NotNil(t, failure)
		require.Equal(t, goOn, failure.Next)
		s.goesOn(session, failure, p)
	})
}

func TestRealFailuresInTheMiddleOfAnAnswerAreRecognized(t *testing.T) {
	type failures map[string]bgagent.ProviderErrorKind
	of := map[string]failures{ // recorded output covers the other programs
		"claude": {"@error 500 oops": broken, "@cut half": broken, "@text half\n@error 529 reason=overload": overloaded},
		"codex":  {"@cut half": broken, "@error 529 in-stream=1 busy": broken, "@error 429 reason=usage-limit reset=5400": quota, "@error 429 reason=quota": quota},
		"gemini": {"@cut half": broken},
	}
	each(t, func(t *testing.T, r real) {
		if r.name == "opencode" {
			t.Skip("the recorded output has all kinds")
		}
		s := r.turns(t, true)
		for script, kind := range of[r.name] {
			session := s.session()
			failure := s.refused(session, bgagent.Prompt{ID: "p", Text: script})
			require.Equal(t, kind, failure.Kind, "%s: %+v", script, failure)
			if r.name == "gemini" && script == "@cut half" { // gemini lost its session together with the incomplete answer
				require.Equal(t, anew, failure.Next)
				end, _, err := s.run(session, bgagent.Prompt{ID: "q", Text: "@say fine"})
				require.Error(t, err, "the earlier prompt is repeated and fails again")
				require.Equal(t, "half", end.Text)
			}
		}
	})
}
