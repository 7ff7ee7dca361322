package bgagent_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/storetest"
	"github.com/stretchr/testify/require"
)

// scriptedSource is a source of slots that the test controls.
type scriptedSource struct {
	mu     sync.Mutex
	claims []*scriptedClaim
	auto   bool // grant each slot immediately
	panics bool
	none   bool          // Request returns no claim
	takes  time.Duration // how long Release takes
	limits *bgagent.Limits
}

type scriptedClaim struct {
	bgagent.SlotRequest
	h        bgagent.SlotHolder
	takes    time.Duration
	mu       sync.Mutex
	released int
	stale    bool
}

func (s *scriptedSource) Request(r bgagent.SlotRequest, h bgagent.SlotHolder) bgagent.SlotClaim {
	if s.panics {
		panic("on purpose")
	}
	k := &scriptedClaim{SlotRequest: r, h: h, takes: s.takes}
	s.mu.Lock()
	s.claims = append(s.claims, k)
	s.mu.Unlock()
	if s.auto {
		h.SlotGranted()
	}
	if s.none {
		return nil
	}
	return k
}

func (s *scriptedSource) Limits() bgagent.Limits {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.limits != nil {
		return *s.limits
	}
	return bgagent.Limits{Default: 2}
}

func (s *scriptedSource) Pools() []bgagent.PoolStats {
	return []bgagent.PoolStats{{Name: "agent worker", Limit: 2, InUse: 2, Waiting: 7}}
}

// The method "claim" waits until all goroutines are idle, and returns the claim with the given
// number.
func (s *scriptedSource) claim(t *testing.T, i int) *scriptedClaim {
	t.Helper()
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	require.Greater(t, len(s.claims), i, "the source was not asked")
	return s.claims[i]
}

func (s *scriptedSource) asked() int {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.claims)
}

func (k *scriptedClaim) Release() {
	time.Sleep(k.takes)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.released++
}

func (k *scriptedClaim) MayBegin() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return !k.stale
}

func (k *scriptedClaim) expire() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.stale = true
}

func (k *scriptedClaim) releases() int {
	synctest.Wait()
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.released
}

var errCut = fmt.Errorf("%w: the connection is cut", bgagent.ErrSlotLost)

// The method "lose" notifies the holder that its slot will be lost after the given time.
func (k *scriptedClaim) lose(in time.Duration) {
	k.expire()
	k.h.SlotLost(time.Now().Add(in), errCut)
}

func TestATaskStartsOnceTheSourceHasGrantedItsSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scriptedSource{}
		m := manage(t, working(time.Minute), bgagent.Config{Slots: s})
		task := launch(t, m, "1")
		k := s.claim(t, 0)
		require.Equal(t, bgagent.SlotRequest{Agent: "worker", Root: "root", Queued: task.Queued}, k.SlotRequest)
		time.Sleep(time.Hour)
		waiting := get(t, m, task.ID)
		require.Equal(t, bgagent.Pending, waiting.Status)
		require.Equal(t, bgagent.PoolStats{Name: "agent worker", Limit: 2, InUse: 2, Waiting: 7}, waiting.Queue.Pool, "the figures must come from the source")
		require.Equal(t, s.Pools(), m.Figures().Pools)
		require.Equal(t, s.Pools(), m.Concurrency().Pools())
		k.h.SlotGranted()
		began := time.Now()
		require.Equal(t, bgagent.Completed, ended(t, m, task.ID)[0].Status)
		require.Equal(t, time.Minute, time.Since(began))
		require.Equal(t, 1, k.releases())
	})
}

func TestACancelledTaskGivesItsPlaceBackToTheSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scriptedSource{}
		m := manage(t, working(time.Minute), bgagent.Config{Slots: s})
		task := launch(t, m, "1")
		k := s.claim(t, 0)
		_, err := m.Cancel(t.Context(), bgagent.Caller{}, task.ID, bgagent.CancelOptions{})
		require.NoError(t, err)
		require.Equal(t, 1, k.releases())
		k.h.SlotGranted() // the grant arrives late
		synctest.Wait()
		require.Equal(t, bgagent.CauseHost, get(t, m, task.ID).Cause)
		require.True(t, get(t, m, task.ID).Started.IsZero())
		require.Equal(t, 1, k.releases())
	})
}

func TestALostSlotEndsTheAttemptAndStopsItsSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scriptedSource{auto: true}
		m := manage(t, &goRunner{run: works(10 * time.Minute)}, bgagent.Config{Slots: s})
		task := launch(t, m, "1")
		k := s.claim(t, 0)
		time.Sleep(time.Minute)
		k.lose(5 * time.Second)
		end := ended(t, m, task.ID)[0]
		require.Equal(t, bgagent.Failed, end.Status)
		require.Equal(t, bgagent.CauseSlotLost, end.Cause)
		require.Equal(t, "its slot is lost: the slot is lost: the connection is cut", end.Reason)
		require.Equal(t, 1, k.releases(), "the turn must return, because its context has ended")

		_, err := m.Resume(t.Context(), bgagent.Caller{Session: "root"}, task.ID, bgagent.ResumeInput{Prompt: "go on"})
		require.NoError(t, err)
		require.Equal(t, bgagent.Completed, ended(t, m, task.ID)[0].Status)
	})
}

// This test uses a session that does not stop before its slot expires.
func TestASessionThatOutlivesItsSlotIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scriptedSource{auto: true}
		f := &goRunner{run: func(context.Context, string, bgagent.Prompt, *bgagent.Reporter) (bgagent.TurnEnd, error) {
			time.Sleep(time.Hour)
			return bgagent.TurnEnd{}, errors.New("late")
		}}
		m := manage(t, f, bgagent.Config{Slots: s})
		launch(t, m, "1")
		k := s.claim(t, 0)
		k.lose(5 * time.Second)
		time.Sleep(5*time.Second - 1)
		require.Zero(t, k.releases())
		require.Zero(t, m.Figures().OverLimit)
		time.Sleep(time.Nanosecond)
		require.Equal(t, 1, k.releases(), "the time for stopping ends with the slot, not with Config.StopTimeout")
		require.EqualValues(t, 1, m.Figures().OverLimit)
		time.Sleep(time.Hour)
	})
}

func TestATaskThatIsBeingStoppedHasTimeUntilItsSlotIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scriptedSource{auto: true}
		f := &goRunner{run: func(context.Context, string, bgagent.Prompt, *bgagent.Reporter) (bgagent.TurnEnd, error) {
			time.Sleep(time.Hour)
			return bgagent.TurnEnd{}, errors.New("late")
		}}
		m := manage(t, f, bgagent.Config{Slots: s})
		task := launch(t, m, "1")
		k := s.claim(t, 0)
		_, err := m.Cancel(t.Context(), bgagent.Caller{}, task.ID, bgagent.CancelOptions{})
		require.NoError(t, err)
		k.lose(2 * time.Second)
		time.Sleep(2 * time.Second)
		require.Equal(t, 1, k.releases())
		require.Equal(t, bgagent.CauseHost, get(t, m, task.ID).Cause, "the attempt ended before it lost its slot")
		time.Sleep(time.Hour)
	})
}

func TestALostPlaceInLineEndsThePendingTask(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scriptedSource{}
		m := manage(t, working(time.Minute), bgagent.Config{Slots: s})
		task := launch(t, m, "1")
		k := s.claim(t, 0)
		k.lose(0)
		require.Equal(t, bgagent.CauseSlotLost, ended(t, m, task.ID)[0].Cause)
		require.Equal(t, 1, k.releases())
	})
}

// In this test, the slot is lost before the source can report the loss.
func TestNoCallBeginsWithASlotThatIsLost(t *testing.T) {
	for _, call := range []string{"create", "run", "start"} {
		t.Run(call, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &scriptedSource{}
				var begun []string
				expire := func() { s.claim(t, 0).expire() }
				var client bgagent.SessionClient
				f := &goRunner{run: func(_ context.Context, _ string, p bgagent.Prompt, _ *bgagent.Reporter) (bgagent.TurnEnd, error) {
					begun = append(begun, p.Text)
					return bgagent.TurnEnd{Text: "ok"}, nil
				}}
				f.create = func(context.Context, bgagent.SessionSpec) (string, error) {
					begun = append(begun, "create")
					expire()
					return f.nextID(), nil
				}
				client = f
				var srv *server
				if call == "start" {
					srv = newServer()
					srv.started = func(_ string, p bgagent.Prompt) { begun = append(begun, p.Text) }
					client = &lateCreator{srv, expire}
				}
				m := manage(t, client, bgagent.Config{Slots: s})
				task := launch(t, m, "first")
				k := s.claim(t, 0)
				want := []string{"create"}
				switch call {
				case "create":
					k.expire()
					want = nil
				case "start":
					want = nil
				}
				k.h.SlotGranted()
				end := ended(t, m, task.ID)[0]
				require.Equal(t, bgagent.CauseSlotLost, end.Cause, end.Reason)
				synctest.Wait()
				require.Equal(t, want, begun)
				require.Equal(t, 1, k.releases())
				k.h.SlotLost(time.Now(), errCut) // a loss that is reported after the release has no effect
				synctest.Wait()

				if call == "run" { // before RunTurn, the session exists but has not received the prompt
					_, err := m.Resume(t.Context(), bgagent.Caller{Session: "root"}, task.ID, bgagent.ResumeInput{Prompt: "second"})
					require.NoError(t, err)
					s.claim(t, 1).h.SlotGranted()
					ended(t, m, task.ID)
					require.Equal(t, []string{"create", "first\n\nsecond"}, begun)
				}
			})
		})
	}
}

// lateCreator is a server that calls a function after it creates a session.
type lateCreator struct {
	*server
	created func()
}

func (f *lateCreator) CreateSession(ctx context.Context, s bgagent.SessionSpec) (string, error) {
	id, err := f.server.CreateSession(ctx, s)
	f.created()
	return id, err
}

func TestASourceThatPanicsEndsTheTask(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := manage(t, working(time.Minute), bgagent.Config{Slots: &scriptedSource{panics: true}})
		for range 2 {
			task := launch(t, m, "1")
			end := ended(t, m, task.ID)[0]
			require.Equal(t, bgagent.CauseSlotLost, end.Cause)
			require.Contains(t, end.Reason, "panicked")
		}
	})
}

// In this test, a task waits for one of its own tasks.
func TestTheNextTurnOfATaskIsRequestedAtTheHead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scriptedSource{auto: true}
		var m *bgagent.BackgroundManager
		f := &goRunner{run: func(_ context.Context, session string, p bgagent.Prompt, _ *bgagent.Reporter) (bgagent.TurnEnd, error) {
			if p.Text == "parent" {
				_, err := m.Launch(t.Context(), bgagent.Caller{Session: session}, bgagent.LaunchInput{Agent: "worker", Prompt: "child", Description: "child"})
				require.NoError(t, err)
			}
			time.Sleep(time.Minute)
			return bgagent.TurnEnd{Text: "ok"}, nil
		}}
		m = manage(t, f, bgagent.Config{Slots: s, MaxDepth: 2})
		task := launch(t, m, "parent")
		require.Equal(t, bgagent.Completed, ended(t, m, task.ID)[0].Status)
		require.Equal(t, 3, s.asked())
		for i, head := range []bool{false, false, true} {
			k := s.claim(t, i)
			require.Equal(t, head, k.Head)
			require.Equal(t, "root", k.Root)
			require.Equal(t, 1, k.releases())
		}
		require.True(t, s.claims[2].Queued.After(s.claims[1].Queued))
	})
}

// In this test, the manager restarts while a session is running on a server.
func TestSessionsOfAnEarlierProcessCountAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := &storetest.Memory{}
		f := newServer()
		first := manage(t, f, bgagent.Config{Store: memory.Process(), Slots: &scriptedSource{auto: true}})
		running, err := first.Launch(t.Context(), bgagent.Caller{Session: "root"}, bgagent.LaunchInput{Agent: "worker", Prompt: "p", Description: "d"})
		require.NoError(t, err)
		time.Sleep(time.Second)
		require.NoError(t, first.Suspend(t.Context()))
		require.NoError(t, first.Close(t.Context()))

		s := &scriptedSource{}
		m := manage(t, f, bgagent.Config{Store: memory.Process(), Slots: s})
		m.Start()
		k := s.claim(t, 0)
		require.True(t, k.Running)
		require.Equal(t, bgagent.Running, get(t, m, running.ID).Status)
		_, err = m.Cancel(t.Context(), bgagent.Caller{}, running.ID, bgagent.CancelOptions{})
		require.NoError(t, err)
		time.Sleep(time.Minute)
		require.Equal(t, 1, k.releases())
	})
}

func TestCloseGivesAllSlotsBackToTheSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scriptedSource{}
		m := manage(t, working(time.Hour), bgagent.Config{Slots: s})
		launch(t, m, "1")
		launch(t, m, "2")
		s.claim(t, 1)
		s.claim(t, 0).h.SlotGranted()
		synctest.Wait()
		_ = m.Close(t.Context()) // the notices are never delivered
		require.Equal(t, 1, s.claim(t, 0).releases())
		require.Equal(t, 1, s.claim(t, 1).releases())
	})
}

func TestASourceReplacesLimits(t *testing.T) {
	own, err := bgagent.NewConcurrencyManager(bgagent.Limits{Default: 1})
	require.NoError(t, err)
	var none *bgagent.ConcurrencyManager
	for _, cfg := range []bgagent.Config{
		{Slots: &scriptedSource{}, Limits: bgagent.Limits{Default: 1}},
		{Slots: &scriptedSource{}, Concurrency: own},
		{Slots: none},
	} {
		_, err := bgagent.New(working(time.Minute), cfg)
		var wrong *bgagent.InputError
		require.ErrorAs(t, err, &wrong)
		require.Equal(t, "Config.Slots", wrong.Field)
	}

	synctest.Test(t, func(t *testing.T) {
		m := manage(t, working(time.Minute), bgagent.Config{Slots: own})
		require.Same(t, own, m.Concurrency())
		launch(t, m, "1")
		require.Equal(t, bgagent.Pending, launch(t, m, "2").Status)

		m = manage(t, working(time.Minute), bgagent.Config{Slots: &scriptedSource{}})
		c := m.Concurrency()
		require.Equal(t, bgagent.Limits{Default: 2}, c.Limits())
		require.Equal(t, bgagent.PoolStats{Name: "default m", Limit: 2}, c.Stats("M"))
		require.Error(t, c.SetLimits(bgagent.Limits{}))
		_, err := c.Acquire(t.Context(), "m")
		require.ErrorContains(t, err, "Config.Slots")
		_, err = c.Pool("m").Acquire(t.Context())
		require.ErrorContains(t, err, "Config.Slots")
		_, ok := c.TryAcquire("m")
		require.False(t, ok)
	})
}
