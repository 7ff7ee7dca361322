package bgagent_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// postman receives the notices from all processes. Each notice arrives immediately, but the call
// that delivers it returns only after the duration in the field "takes".
type postman struct {
	mu    sync.Mutex
	got   []bgagent.Notice
	takes time.Duration
	err   error
}

// postmanLife is a client that passes its notices to a postman.
type postmanLife struct {
	*life
	to *postman
}

func (c postmanLife) Notify(_ context.Context, _ string, n bgagent.Notice) error {
	c.to.mu.Lock()
	takes, err := c.to.takes, c.to.err
	if !errors.Is(err, bgagent.ErrBusy) {
		c.to.got = append(c.to.got, n)
	}
	c.to.mu.Unlock()
	select {
	case <-time.After(takes):
		return err
	case <-c.dead:
		return errors.New("the process is dead")
	}
}

func (p *postman) answers(takes time.Duration, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.takes, p.err = takes, err
}

func (p *postman) all() []bgagent.Notice {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.got)
}

func withPostman(t *testing.T, test func(t *testing.T, w *world, p *postman)) {
	inWorld(t, func(t *testing.T, w *world) {
		p := &postman{}
		w.client = func(l *life) bgagent.SessionClient { return postmanLife{l, p} }
		w.takes(time.Second)
		test(t, w, p)
	})
}

// sameNotice fails the test unless the notices have the same id, text and first item.
func sameNotice(t *testing.T, want, got bgagent.Notice) {
	t.Helper()
	require.Equal(t, want.ID, got.ID)
	require.Equal(t, want.Text, got.Text)
	require.Equal(t, want.Items[0].ID, got.Items[0].ID)
}

// noNoticeIn fails the test if the store contains a notice.
func noNoticeIn(t *testing.T, w *world) {
	t.Helper()
	for _, r := range w.memory.Records() {
		require.False(t, r.Kind == bgagent.StoreSession && strings.Contains(string(r.Data), `"bgn_`), string(r.Data))
	}
}

// In this test, the end of a task is read while its notice is being pushed. The notice arrives, so
// the end is reported, even if nobody acknowledges Read's answer.
func TestAnEndThatIsReadDuringItsDeliveryIsNotToldAgain(t *testing.T) {
	withPostman(t, func(t *testing.T, w *world, p *postman) {
		p.answers(4*time.Second, nil)
		m := w.begin()
		id := launch(t, m, "a").ID
		time.Sleep(2 * time.Second)
		require.Len(t, p.all(), 1, "the notice is being pushed")
		_, err := m.Read(root, id)
		require.NoError(t, err)
		time.Sleep(10 * time.Second)
		w.crash()
		m = w.begin()
		m.Start()
		_, owed := m.Outstanding(root.Session)
		require.Zero(t, owed)
		time.Sleep(time.Hour)
		require.Len(t, p.all(), 1)
		require.Empty(t, sessionsIn(&w.memory))
	})
}

// In this test, the end of a task is read during or after the push of its notice. It is unknown
// whether the notice has arrived, so the next process must not report the end with another notice.
func TestAnEndThatIsReadAfterItsNoticeWasSentIsToldAgainWithTheSameNotice(t *testing.T) {
	for name, read := range map[string]struct{ at, crash time.Duration }{
		"during the delivery":                       {2 * time.Second, 3 * time.Second},
		"during the delivery, which then fails":     {2 * time.Second, time.Minute},
		"after the delivery has failed":             {5500 * time.Millisecond, time.Minute},
		"while the delivery is tried once more":     {7 * time.Second, 8 * time.Second},
		"while the last delivery fails once more":   {7 * time.Second, 5 * time.Minute},
		"long after the delivery has failed before": {4 * time.Minute, 5 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			withPostman(t, func(t *testing.T, w *world, p *postman) {
				p.answers(4*time.Second, errors.New("the answer is lost"))
				m := w.begin()
				id := launch(t, m, "a").ID
				time.Sleep(read.at)
				_, err := m.Read(root, id)
				require.NoError(t, err)
				time.Sleep(read.crash - read.at)
				want := p.all()
				w.crash()
				for range 2 { // these processes only open the store
					m = w.begin()
					_, owed := m.Outstanding(root.Session)
					require.Equal(t, 1, owed)
					time.Sleep(10 * time.Second)
					w.crash()
				}
				p.answers(0, nil)
				m = w.begin()
				m.Start()
				time.Sleep(time.Hour)
				got := p.all()
				require.Greater(t, len(got), len(want))
				for _, n := range got {
					sameNotice(t, want[0], n)
				}
				_, owed := m.Outstanding(root.Session)
				require.Zero(t, owed)
				time.Sleep(time.Hour)
				require.Empty(t, sessionsIn(&w.memory))
			})
		})
	}
}

// In this test, one process pushes the notice, the end is read in the next process, and the process
// after that hands out the notice.
func TestAnEndThatALaterProcessReadsKeepsItsNotice(t *testing.T) {
	withPostman(t, func(t *testing.T, w *world, p *postman) {
		p.answers(4*time.Second, errors.New("the answer is lost"))
		m := w.begin()
		id := launch(t, m, "a").ID
		time.Sleep(2 * time.Second)
		w.crash()
		m = w.begin()
		_, err := m.Read(root, id)
		require.NoError(t, err)
		time.Sleep(10 * time.Second)
		w.crash()
		w.cfg.Wake = bgagent.WakeNever
		m = w.begin()
		n, ok := m.TakeNotice(root.Session)
		require.True(t, ok)
		sameNotice(t, p.all()[0], n)
	})
}

// In this test, either the session's next call acknowledges Read's answer, or the notice itself is
// acknowledged. The end is then not reported again.
func TestAnAcknowledgedEndIsNotToldAgainAlthoughItsNoticeWasSent(t *testing.T) {
	for name, ack := range map[string]func(m *bgagent.BackgroundManager, p *postman){
		"by the next call": func(m *bgagent.BackgroundManager, _ *postman) { _, _ = m.TakeNotice(root.Session) },
		"by the notice":    func(m *bgagent.BackgroundManager, p *postman) { m.Ack(p.all()[0].ID) },
		"by its item":      func(m *bgagent.BackgroundManager, p *postman) { m.Ack(p.all()[0].Items[0].ID) },
	} {
		t.Run(name, func(t *testing.T) {
			withPostman(t, func(t *testing.T, w *world, p *postman) {
				p.answers(4*time.Second, errors.New("the answer is lost"))
				m := w.begin()
				id := launch(t, m, "a").ID
				time.Sleep(2 * time.Second)
				_, err := m.Read(root, id)
				require.NoError(t, err)
				time.Sleep(10 * time.Second)
				ack(m, p)
				time.Sleep(10 * time.Second)
				noNoticeIn(t, w)
				w.crash()
				p.answers(0, nil)
				m = w.begin()
				m.Start()
				time.Sleep(time.Hour)
				require.Len(t, p.all(), 1)
			})
		})
	}
}

// A session that refuses a notice because it is busy has not recorded the notice. Therefore, a
// different notice can report the end later.
func TestAnEndThatIsReadWhileItsSessionIsBusyNeedsNoOldNotice(t *testing.T) {
	withPostman(t, func(t *testing.T, w *world, p *postman) {
		p.answers(4*time.Second, bgagent.ErrBusy)
		m := w.begin()
		id := launch(t, m, "a").ID
		time.Sleep(2 * time.Second)
		_, err := m.Read(root, id)
		require.NoError(t, err)
		time.Sleep(10 * time.Second)
		noNoticeIn(t, w)
		w.crash()
		p.answers(0, nil)
		m = w.begin()
		m.Start()
		time.Sleep(time.Hour)
		require.Len(t, p.all(), 1, "nobody has acknowledged the answer of Read")
	})
}

// In this test, a notice reports two ends. One of them is read while the notice is being pushed,
// and the notice arrives.
func TestANoticeThatArrivesSettlesTheEndsThatWereReadMeanwhile(t *testing.T) {
	withPostman(t, func(t *testing.T, w *world, p *postman) {
		p.answers(4*time.Second, nil)
		m := w.begin()
		first, second := launch(t, m, "a").ID, launch(t, m, "b").ID
		time.Sleep(2 * time.Second)
		require.Len(t, p.all()[0].Items, 2)
		_, err := m.Read(root, first)
		require.NoError(t, err)
		time.Sleep(10 * time.Second)
		require.Equal(t, bgagent.NoticeRead, get(t, m, first).Notice)
		require.Equal(t, bgagent.NoticeDelivered, get(t, m, second).Notice)
		w.crash()
		m = w.begin()
		m.Start()
		time.Sleep(time.Hour)
		require.Len(t, p.all(), 1)
	})
}
