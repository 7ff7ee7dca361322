package bgagent_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/inside"
	"github.com/bgagent/bgagent/storetest"
	"github.com/stretchr/testify/require"
)

// The type "hands" is a store whose methods a test can replace.
type hands struct {
	*storetest.Process
	mu      sync.Mutex // guards the functions
	open    func(ctx context.Context, owner bgagent.StoreOwner) (bgagent.StoreContents, error)
	write   func(ctx context.Context, b *bgagent.StoreBatch) error
	text    func(ctx context.Context, record, name string) (string, error)
	history func(ctx context.Context, q bgagent.StoreQuery) ([]bgagent.StoreRecord, error)
	close   func() error
}

// The function "chosen" returns the function that is stored in the field.
func chosen[F any](h *hands, field *F) F {
	h.mu.Lock()
	defer h.mu.Unlock()
	return *field
}

func (h *hands) Open(ctx context.Context, owner bgagent.StoreOwner) (bgagent.StoreContents, error) {
	if f := chosen(h, &h.open); f != nil {
		return f(ctx, owner)
	}
	return h.Process.Open(ctx, owner)
}

func (h *hands) Write(ctx context.Context, b *bgagent.StoreBatch) error {
	if f := chosen(h, &h.write); f != nil {
		return f(ctx, b)
	}
	return h.Process.Write(ctx, b)
}

func (h *hands) Text(ctx context.Context, record, name string) (string, error) {
	if f := chosen(h, &h.text); f != nil {
		return f(ctx, record, name)
	}
	return h.Process.Text(ctx, record, name)
}

func (h *hands) History(ctx context.Context, q bgagent.StoreQuery) ([]bgagent.StoreRecord, error) {
	if f := chosen(h, &h.history); f != nil {
		return f(ctx, q)
	}
	return h.Process.History(ctx, q)
}

func (h *hands) Close() error {
	if f := chosen(h, &h.close); f != nil {
		return f()
	}
	return h.Process.Close()
}

// withHands runs a test in a synctest bubble. The methods of the manager's store can be replaced.
func withHands(t *testing.T, sc bgagent.SessionClient, cfg bgagent.Config, test func(*testing.T, *bgagent.BackgroundManager, *storetest.Memory, *hands)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		mem := &storetest.Memory{}
		h := &hands{Process: mem.Process()}
		cfg.Store = h
		m, err := bgagent.New(sc, cfg)
		require.NoError(t, err)
		inside.CheckAlways(m, func(err error) { t.Error(err) })
		t.Cleanup(func() { _ = m.Close(context.Background()) })
		test(t, m, mem, h)
	})
}

var errPicky = errors.New("this record is not welcome")

// The method "refuse" makes the store refuse every batch for which bad returns true, and counts the
// refusals.
func (h *hands) refuse(bad func(b *bgagent.StoreBatch) bool) (refused *atomic.Int64) {
	refused = &atomic.Int64{}
	h.mu.Lock()
	h.write = func(ctx context.Context, b *bgagent.StoreBatch) error {
		if bad(b) {
			refused.Add(1)
			return errPicky
		}
		return h.Process.Write(ctx, b)
	}
	h.mu.Unlock()
	return refused
}

// The function "holds" reports whether the batch contains the record with the key.
func holds(b *bgagent.StoreBatch, key string) bool {
	return slices.ContainsFunc(b.Records, func(r bgagent.StoreRecord) bool { return r.Key == key })
}

func TestOneRecordThatTheStoreRefusesDoesNotHoldUpTheOthers(t *testing.T) {
	box := &inbox{}
	withHands(t, working(time.Minute), bgagent.Config{Notify: box.notify}, func(t *testing.T, m *bgagent.BackgroundManager, mem *storetest.Memory, h *hands) {
		_, sub := m.Subscribe(1 << 10)
		bad := launch(t, m, "bad")
		var others []string
		for range 5 {
			others = append(others, launch(t, m, "good").ID)
		}
		time.Sleep(30 * time.Second)
		welcome := &atomic.Bool{}
		refused := h.refuse(func(b *bgagent.StoreBatch) bool { return !welcome.Load() && holds(b, bad.ID) })
		for _, task := range ended(t, m, append(others, bad.ID)...) {
			require.Equal(t, bgagent.Completed, task.Status)
		}
		require.Positive(t, refused.Load())
		for _, id := range others {
			x, _ := taskIn(mem, id)
			require.Equal(t, "completed", x.Status, "the end of the other task is durable")
		}
		x, _ := taskIn(mem, bad.ID)
		require.Equal(t, "running", x.Status, "the store must keep the last accepted record")
		more := launch(t, m, "more")
		require.Equal(t, "answer to more", ended(t, m, more.ID)[0].Result)
		var trouble []bgagent.Event
		for _, e := range unread(sub) {
			if e.Kind == bgagent.EventStoreTrouble {
				trouble = append(trouble, e)
			}
		}
		require.Len(t, trouble, 1, "the refusal must be reported once")
		require.Equal(t, bad.ID, trouble[0].Task.ID)
		time.Sleep(10 * time.Minute)
		require.Less(t, refused.Load(), int64(30), "the record must be tried again, with pauses")
		told := 0
		for _, n := range box.all() {
			told += len(n.Items)
		}
		require.Equal(t, 7, told)
		welcome.Store(true)
		time.Sleep(2 * time.Minute)
		x, _ = taskIn(mem, bad.ID)
		require.Equal(t, "completed", x.Status, "the record must be written as soon as the store accepts it")
		require.NoError(t, m.Close(t.Context()))
	})
}

func TestATaskWhoseRecordTheStoreRefusesIsNotResumed(t *testing.T) {
	withHands(t, working(time.Minute), bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager, mem *storetest.Memory, h *hands) {
		bad := launch(t, m, "bad")
		time.Sleep(30 * time.Second)
		welcome := &atomic.Bool{}
		h.refuse(func(b *bgagent.StoreBatch) bool { return !welcome.Load() && holds(b, bad.ID) })
		ended(t, m, bad.ID)
		_, err := m.Resume(t.Context(), root, bad.ID, bgagent.ResumeInput{Prompt: "more"})
		require.ErrorIs(t, err, bgagent.ErrStore)
		require.ErrorContains(t, err, "it refuses the record of the task")
		welcome.Store(true)
		time.Sleep(2 * time.Minute)
		_, err = m.Resume(t.Context(), root, bad.ID, bgagent.ResumeInput{Prompt: "more"})
		require.NoError(t, err)
		require.Equal(t, "answer to more", ended(t, m, bad.ID)[0].Result)
	})
}

func TestALaunchThatTheStoreRefusesFailsAlone(t *testing.T) {
	withHands(t, working(time.Hour), bgagent.Config{TimeToLive: bgagent.Disabled}, func(t *testing.T, m *bgagent.BackgroundManager, mem *storetest.Memory, h *hands) {
		good := launch(t, m, "good")
		h.refuse(func(b *bgagent.StoreBatch) bool {
			return slices.ContainsFunc(b.Texts, func(x bgagent.StoreText) bool { return x.Text == "bad" })
		})
		for range 3 {
			_, err := m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: "worker", Prompt: "bad"})
			require.ErrorIs(t, err, bgagent.ErrStore)
			require.NotErrorIs(t, err, bgagent.ErrUncertain)
			require.ErrorContains(t, err, errPicky.Error())
			time.Sleep(time.Second)
			launch(t, m, "another")
		}
		_, err := m.Cancel(t.Context(), root, good.ID, bgagent.CancelOptions{})
		require.NoError(t, err)
		require.Len(t, tasksIn(mem), 4)
	})
}

func TestAResumeWhoseTextTheStoreRefusesIsTakenBackAlone(t *testing.T) {
	withHands(t, working(time.Second), bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager, mem *storetest.Memory, h *hands) {
		a := launch(t, m, "a")
		before := ended(t, m, a.ID)[0]
		h.refuse(func(b *bgagent.StoreBatch) bool {
			return slices.ContainsFunc(b.Texts, func(x bgagent.StoreText) bool { return x.Text == "other" })
		})
		done := make(chan error)
		go func() {
			_, err := m.Resume(t.Context(), root, a.ID, bgagent.ResumeInput{Prompt: "other"})
			done <- err
		}()
		b, err := m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: "worker", Prompt: "b"})
		if err != nil { // the launch was part of the refused batch
			time.Sleep(5 * time.Second)
			b = launch(t, m, "b")
		}
		require.ErrorIs(t, <-done, bgagent.ErrStore)
		require.Equal(t, before, get(t, m, a.ID))
		ended(t, m, b.ID)
		_, err = m.Resume(t.Context(), root, a.ID, bgagent.ResumeInput{Prompt: "more"})
		require.NoError(t, err)
		require.Equal(t, "answer to more", ended(t, m, a.ID)[0].Result)
	})
}

func TestAStoreThatRefusesEverythingSetsNothingAside(t *testing.T) {
	withHands(t, working(time.Second), bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager, mem *storetest.Memory, h *hands) {
		a := launch(t, m, "a")
		time.Sleep(500 * time.Millisecond) // the turn has begun
		_, sub := m.Subscribe(1 << 10)
		end := time.Now().Add(time.Minute)
		h.refuse(func(*bgagent.StoreBatch) bool { return time.Now().Before(end) })
		time.Sleep(50 * time.Second)
		require.Equal(t, bgagent.PhaseStoring, get(t, m, a.ID).Phase, "the end must not be shown before it is durable")
		require.Equal(t, "answer to a", ended(t, m, a.ID)[0].Result)
		x, _ := taskIn(mem, a.ID)
		require.Equal(t, "completed", x.Status)
		for _, e := range unread(sub) {
			require.True(t, e.Kind != bgagent.EventStoreTrouble || e.Task.ID == "")
		}
	})
}

// A store whose disk is full can refuse a large record but accept a small one. The manager must still
// write the large record as soon as there is room again.
func TestAFullStoreSetsNothingAside(t *testing.T) {
	withHands(t, working(time.Second), bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager, mem *storetest.Memory, h *hands) {
		a := launch(t, m, "a")
		time.Sleep(500 * time.Millisecond) // the turn has begun
		end := time.Now().Add(time.Minute)
		h.mu.Lock()
		h.write = func(ctx context.Context, b *bgagent.StoreBatch) error {
			if time.Now().Before(end) && holds(b, a.ID) {
				return fmt.Errorf("no room: %w", syscall.ENOSPC)
			}
			return h.Process.Write(ctx, b)
		}
		h.mu.Unlock()
		time.Sleep(50 * time.Second)
		require.Equal(t, bgagent.PhaseStoring, get(t, m, a.ID).Phase)
		require.Equal(t, "answer to a", ended(t, m, a.ID)[0].Result)
		x, _ := taskIn(mem, a.ID)
		require.Equal(t, "completed", x.Status)
	})
}

// The variable "thieves" contains functions that make a manager lose its store, each in a different
// way. Some of them take effect only when the manager opens the store again after a write with an
// uncertain result. Each function returns true if the manager can find out who owns the store.
var thieves = map[string]func(t *testing.T, mem *storetest.Memory, h *hands) (owned bool){
	"another manager has it open": func(t *testing.T, mem *storetest.Memory, h *hands) bool {
		h.mu.Lock()
		h.close = func() error {
			err := h.Process.Close()
			_, _ = mem.Process().Open(context.Background(), bgagent.StoreOwner{Instance: "other", Program: "a thief"})
			return err
		}
		h.mu.Unlock()
		return true
	},
	"another manager has written later batches": func(t *testing.T, mem *storetest.Memory, h *hands) bool {
		h.mu.Lock()
		h.close = func() error { return errors.Join(h.Process.Close(), steal(mem, 3)) }
		h.mu.Unlock()
		return false
	},
	"another manager has written a batch with the same number": func(t *testing.T, mem *storetest.Memory, h *hands) bool {
		h.mu.Lock()
		h.close = func() error { return errors.Join(h.Process.Close(), steal(mem, 1)) }
		h.mu.Unlock()
		return false
	},
	"batches are missing": func(t *testing.T, mem *storetest.Memory, h *hands) bool {
		h.mu.Lock()
		h.open = func(ctx context.Context, owner bgagent.StoreOwner) (bgagent.StoreContents, error) {
			c, err := h.Process.Open(ctx, owner)
			c.Batch -= 2
			return c, err
		}
		h.mu.Unlock()
		return false
	},
	"it is outdated": func(t *testing.T, mem *storetest.Memory, h *hands) bool {
		h.mu.Lock()
		h.open = func(ctx context.Context, owner bgagent.StoreOwner) (bgagent.StoreContents, error) {
			c, err := h.Process.Open(ctx, owner)
			c.Outdated = "it is a copy"
			return c, err
		}
		h.mu.Unlock()
		return false
	},
	"a write is refused because of its owner": func(t *testing.T, mem *storetest.Memory, h *hands) bool {
		h.mu.Lock()
		h.write = func(context.Context, *bgagent.StoreBatch) error {
			return fmt.Errorf("refused: %w", &bgagent.StoreOwnedError{Owner: bgagent.StoreOwner{Instance: "other", Program: "a thief"}})
		}
		h.mu.Unlock()
		return true
	},
}

func TestAnOpenThatTakesTooLongIsGivenUpAndClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := &storetest.Memory{}
		h := &hands{Process: mem.Process()}
		h.mu.Lock()
		h.open = func(ctx context.Context, owner bgagent.StoreOwner) (bgagent.StoreContents, error) {
			time.Sleep(time.Hour)
			return h.Process.Open(context.WithoutCancel(ctx), owner)
		}
		h.mu.Unlock()
		began := time.Now()
		_, err := bgagent.New(working(time.Second), bgagent.Config{Store: h})
		require.ErrorIs(t, err, bgagent.ErrStore)
		require.LessOrEqual(t, time.Since(began), 31*time.Second)
		time.Sleep(2 * time.Hour)
		_, err = mem.Process().Open(t.Context(), bgagent.StoreOwner{Instance: "next"})
		require.NoError(t, err, "a store that opens too late must be closed")
	})
}

func TestATextThatTakesTooLongAtTheStartIsNoDamage(t *testing.T) {
	withHands(t, working(time.Hour), bgagent.Config{TimeToLive: bgagent.Disabled}, func(t *testing.T, m *bgagent.BackgroundManager, mem *storetest.Memory, h *hands) {
		launch(t, m, "a")
		h.Process.Crash()
		h2 := &hands{Process: mem.Process()}
		h2.text = func(ctx context.Context, _, _ string) (string, error) { <-t.Context().Done(); return "", ctx.Err() }
		began := time.Now()
		_, err := bgagent.New(working(time.Second), bgagent.Config{Store: h2})
		require.ErrorIs(t, err, bgagent.ErrStore)
		require.LessOrEqual(t, time.Since(began), 2*time.Minute)
		_, err = mem.Process().Open(t.Context(), bgagent.StoreOwner{Instance: "next"})
		require.NoError(t, err)
	})
}

func TestAStoreThatHangsHoldsUpNoReader(t *testing.T) {
	withHands(t, working(time.Second), bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager, mem *storetest.Memory, h *hands) {
		hung := make(chan struct{})
		h.mu.Lock()
		h.history = func(context.Context, bgagent.StoreQuery) ([]bgagent.StoreRecord, error) { <-hung; return nil, nil }
		h.mu.Unlock()
		defer close(hung)
		began := time.Now()
		_, err := m.Read(root, "bg_unknown")
		require.ErrorIs(t, err, bgagent.ErrUnknownTask)
		require.LessOrEqual(t, time.Since(began), 31*time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began = time.Now()
		_, err = m.History(ctx, bgagent.Query{}, "")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, bgagent.ErrStore)
		require.Equal(t, time.Second, time.Since(began))
		_, err = m.History(t.Context(), bgagent.Query{}, "")
		require.ErrorIs(t, err, bgagent.ErrStore)
	})
}

func TestAStoreThatPanicsHarmsNoCaller(t *testing.T) {
	withHands(t, working(time.Second), bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager, mem *storetest.Memory, h *hands) {
		h.mu.Lock()
		h.history = func(context.Context, bgagent.StoreQuery) ([]bgagent.StoreRecord, error) { panic("broken") }
		h.mu.Unlock()
		_, err := m.History(t.Context(), bgagent.Query{}, "")
		require.ErrorIs(t, err, bgagent.ErrStore)
		_, err = m.Read(root, "bg_unknown")
		require.ErrorIs(t, err, bgagent.ErrUnknownTask)
		broken := &atomic.Bool{}
		broken.Store(true)
		h.mu.Lock()
		h.write = func(ctx context.Context, b *bgagent.StoreBatch) error {
			if broken.Load() {
				panic("broken")
			}
			return h.Process.Write(ctx, b)
		}
		h.mu.Unlock()
		_, err = m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: "worker", Prompt: "a"})
		require.ErrorIs(t, err, bgagent.ErrStore)
		broken.Store(false)
		time.Sleep(time.Minute)
		ended(t, m, launch(t, m, "b").ID)
		_, ok := m.TakeNotice("root")
		require.True(t, ok)
		h.mu.Lock()
		h.close = func() error { _ = h.Process.Close(); panic("broken") }
		h.mu.Unlock()
		require.NoError(t, m.Close(t.Context()))
	})
}

func TestAWriteWithoutAnAnswerIsReported(t *testing.T) {
	withHands(t, working(time.Second), bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager, mem *storetest.Memory, h *hands) {
		_, sub := m.Subscribe(1 << 10)
		slow(mem, time.Hour)
		began := time.Now()
		_, err := m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: "worker", Prompt: "a"})
		require.ErrorIs(t, err, bgagent.ErrUncertain)
		require.LessOrEqual(t, time.Since(began), 31*time.Second)
		time.Sleep(time.Second)
		began = time.Now()
		_, err = m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: "worker", Prompt: "b"})
		require.ErrorIs(t, err, bgagent.ErrStore)
		require.Zero(t, time.Since(began), "no launch may be accepted")
		events := unread(sub)
		require.Len(t, events, 1)
		require.Equal(t, bgagent.EventStoreTrouble, events[0].Kind)
		mem.SetFaults(nil)
		time.Sleep(2 * time.Hour)
		require.Empty(t, tasksIn(mem))
		ended(t, m, launch(t, m, "c").ID)
	})
}

func TestDataThatAClientSavesOftenAreWrittenRarely(t *testing.T) {
	f := &goRunner{run: func(ctx context.Context, _ string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
		for i := range 600 {
			r.SaveState([]byte(fmt.Sprint("state ", i)))
			time.Sleep(100 * time.Millisecond)
		}
		return bgagent.TurnEnd{Text: "done"}, nil
	}}
	withHands(t, f, bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager, mem *storetest.Memory, h *hands) {
		a := launch(t, m, "a")
		time.Sleep(50 * time.Millisecond)
		require.Contains(t, dataIn(mem, a.ID), savedAs("state 0"), "the first data of a turn must be written immediately")
		time.Sleep(100 * time.Millisecond)
		require.Contains(t, dataIn(mem, a.ID), savedAs("state 1"), "the program reports the id of its session after the client has saved the prompt")
		time.Sleep(100 * time.Millisecond)
		require.Contains(t, dataIn(mem, a.ID), savedAs("state 1"), "later data must be written rarely")
		time.Sleep(30 * time.Second)
		require.Less(t, mem.Batch(), uint64(15))
		ended(t, m, a.ID)
		time.Sleep(10 * time.Second)
		require.Contains(t, dataIn(mem, a.ID), savedAs("state 599"))
	})
}

func TestDataThatAreTooLongAreNotSaved(t *testing.T) {
	f := &goRunner{run: func(ctx context.Context, _ string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
		r.SaveState([]byte("short"))
		r.SaveState(make([]byte, 2<<20))
		time.Sleep(10 * time.Second)
		return bgagent.TurnEnd{Text: "done"}, nil
	}}
	withHands(t, f, bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager, mem *storetest.Memory, h *hands) {
		a := launch(t, m, "a")
		ended(t, m, a.ID)
		time.Sleep(10 * time.Second)
		require.Less(t, len(dataIn(mem, a.ID)), 2<<10)
		require.NotContains(t, dataIn(mem, a.ID), savedAs("short"), "older data must not be kept")
	})
}

// dataIn returns the data of the task's record in the store.
func dataIn(mem *storetest.Memory, id string) string {
	for _, r := range tasksIn(mem) {
		if r.Key == id {
			return string(r.Data)
		}
	}
	return ""
}

// savedAs encodes saved data in the same way as a record.
func savedAs(data string) string { return base64.StdEncoding.EncodeToString([]byte(data)) }
