package bgagent_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// This test uses a server that answers StartTurn after the slot has expired.
func TestASessionIsNotTouchedOnceItsSlotIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scriptedSource{auto: true}
		f := newServer()
		f.started = func(string, bgagent.Prompt) { time.Sleep(time.Hour) }
		m := manage(t, f, bgagent.Config{Slots: s})
		launch(t, m, "1")
		s.claim(t, 0).lose(5 * time.Second)
		time.Sleep(6 * time.Second)
		require.Equal(t, 1, f.session("ses_1").aborts)
		time.Sleep(2 * time.Hour)
		require.Equal(t, 1, f.session("ses_1").aborts)
	})
}

// This test uses a server whose Abort does not return on its own.
func TestAnAbortEndsWithTheSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scriptedSource{auto: true}
		f := newServer()
		var lasted time.Duration
		f.abort = func(ctx context.Context, _ string) error {
			began := time.Now()
			<-ctx.Done()
			lasted = time.Since(began)
			return ctx.Err()
		}
		m := manage(t, f, bgagent.Config{Slots: s, StopTimeout: time.Minute})
		launch(t, m, "1")
		k := s.claim(t, 0)
		time.Sleep(time.Second)
		k.lose(5 * time.Second)
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, 5*time.Second, lasted)
		require.Equal(t, 1, f.session("ses_1").aborts)
	})
}

// A process that was paused for longer than its lease finds out too late that its slots are lost.
func TestASessionIsNotStoppedIfItsSlotIsAlreadyOver(t *testing.T) {
	for range 100 { // the goroutine that would call Abort races with the deadline
		synctest.Test(t, func(t *testing.T) {
			s := &scriptedSource{auto: true}
			f := newServer()
			m := manage(t, f, bgagent.Config{Slots: s})
			launch(t, m, "1")
			synctest.Wait()
			s.claim(t, 0).lose(-5 * time.Second)
			time.Sleep(time.Minute)
			require.Zero(t, f.session("ses_1").aborts)
		})
	}
}

// This test uses a server that answers StartTurn after the stopping deadline, and whose Abort does
// not return on its own.
func TestAnAbortAfterTheStoppingDeadlineEndsWithTheSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scriptedSource{auto: true}
		f := newServer()
		f.started = func(string, bgagent.Prompt) { time.Sleep(12 * time.Second) }
		late := make(chan time.Duration, 1)
		began := time.Now()
		f.abort = func(ctx context.Context, _ string) error {
			if time.Since(began) < 12*time.Second {
				return nil
			}
			<-ctx.Done()
			late <- time.Since(began)
			return ctx.Err()
		}
		m := manage(t, f, bgagent.Config{Slots: s, StopTimeout: 10 * time.Second})
		launch(t, m, "1")
		s.claim(t, 0).lose(15 * time.Second)
		require.Equal(t, 15*time.Second, <-late)
	})
}
