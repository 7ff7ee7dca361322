package bgagent

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// lateStarter is a server that answers StartTurn after 20 s. It counts the Abort calls.
type lateStarter struct{ aborts atomic.Int32 }

func (*lateStarter) CreateSession(context.Context, SessionSpec) (string, error) { return "ses", nil }
func (f *lateStarter) Abort(context.Context, string) error                      { f.aborts.Add(1); return nil }
func (*lateStarter) StartTurn(context.Context, string, Prompt) error {
	time.Sleep(20 * time.Second)
	return nil
}
func (*lateStarter) Statuses(context.Context, []string) (map[string]SessionStatus, error) {
	return map[string]SessionStatus{"ses": {State: SessionIdle}}, nil
}
func (*lateStarter) Messages(context.Context, string, Cursor, int) (Page, error) { return Page{}, nil }

// In this test, a process decides to stop a session once more. In one case, the session's slot
// expires before the process makes the call.
func TestASessionIsNotStoppedOnceMoreIfItsSlotExpiresBeforeTheCall(t *testing.T) {
	for name, expires := range map[string]bool{"expired": true, "not expired": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &lateStarter{}
				m, err := New(f, Config{StopTimeout: 10 * time.Second})
				require.NoError(t, err)
				defer func() { _ = m.Close(context.Background()) }()
				task, err := m.Launch(t.Context(), Caller{Session: "root"}, LaunchInput{Agent: "worker", Prompt: "p", Description: "d"})
				require.NoError(t, err)
				synctest.Wait()
				_, err = m.Cancel(t.Context(), Caller{}, task.ID, CancelOptions{})
				require.NoError(t, err)
				time.Sleep(15 * time.Second) // the stopping deadline has passed
				before, wanted := f.aborts.Load(), false
				m.update(func(st *state, _ int64) {
					m.check = func(st *state) {
						for _, t := range st.tasks {
							if a := t.run; a != nil && a.aborts == 1 && !wanted {
								if wanted = true; expires {
									a.slotEnd = st.now
								}
							}
						}
					}
				})
				time.Sleep(15 * time.Second)
				m.view(func(st *state) {
					m.check = nil
					require.True(t, wanted)
					for _, x := range st.tasks {
						require.True(t, x.run == nil || x.run.aborts == 0, "the call must count as returned")
					}
				})
				want := before
				if !expires {
					want++
				}
				require.Equal(t, want, f.aborts.Load())
			})
		})
	}
}
