package dashboard_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/dashboard"
	"github.com/bgagent/bgagent/inproc"
	"github.com/bgagent/bgagent/storetest"
)

// viewer imitates a page without a browser. It applies the batches that it receives.
type viewer struct {
	mu      sync.Mutex
	events  []string
	tasks   map[string]map[string]any
	pools   []bgagent.PoolStats
	batches int
	rows    int // number of rows in all batches
	biggest int
	closed  bool

	header  http.Header
	partial string
	slow    time.Duration // time that the page takes to receive a message
	done    chan struct{}
	stop    context.CancelFunc
}

func (v *viewer) Header() http.Header                { return v.header }
func (v *viewer) WriteHeader(int)                    {}
func (v *viewer) Flush()                             {}
func (v *viewer) SetWriteDeadline(_ time.Time) error { return nil }

func (v *viewer) Write(b []byte) (int, error) {
	time.Sleep(v.slow)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.partial += string(b)
	for {
		event, rest, ok := strings.Cut(v.partial, "\n\n")
		if !ok {
			return len(b), nil
		}
		v.partial = rest
		v.take(event)
	}
}

func (v *viewer) take(event string) {
	name, data, _ := strings.Cut(strings.TrimPrefix(event, "event: "), "\ndata: ")
	v.events = append(v.events, name)
	switch name {
	case "closed":
		v.closed = true
	case "batch":
		var b struct {
			First bool
			Rows  []map[string]any
			Gone  []string
			Pools []bgagent.PoolStats
		}
		if err := json.Unmarshal([]byte(data), &b); err != nil {
			panic(err)
		}
		if b.First {
			clear(v.tasks)
		}
		for _, r := range b.Rows {
			v.tasks[r["id"].(string)] = r
		}
		for _, id := range b.Gone {
			delete(v.tasks, id)
		}
		if b.Pools != nil {
			v.pools = b.Pools
		}
		v.batches++
		v.rows += len(b.Rows)
		v.biggest = max(v.biggest, len(b.Rows))
	}
}

// The function "watch" opens a page in a bubble of testing/synctest. The page is closed at the end
// of the test.
func watch(t *testing.T, h http.Handler, slow time.Duration) *viewer {
	ctx, cancel := context.WithCancel(t.Context())
	v := &viewer{tasks: map[string]map[string]any{}, header: http.Header{}, done: make(chan struct{}), stop: cancel, slow: slow}
	go func() {
		defer close(v.done)
		h.ServeHTTP(v, httptest.NewRequestWithContext(ctx, http.MethodGet, "/events", nil))
	}()
	return v
}

// The function "pass" lets time pass and waits until all goroutines in the bubble are blocked.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (v *viewer) leave() {
	v.stop()
	<-v.done
}

func (v *viewer) status(id string) string {
	v.mu.Lock()
	defer v.mu.Unlock()
	s, _ := v.tasks[id]["status"].(string)
	return s
}

func TestAPageSeesWhatWasAndWhatHappens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, bgagent.Config{Limits: bgagent.Limits{Default: 1}})
		h := dashboard.New(m, dashboard.Config{})
		before := launch(t, m, "main", "wait", "x").ID
		queued := launch(t, m, "main", "wait", "y").ID
		v := watch(t, h, 0)
		pass(time.Second)
		require.Equal(t, "running", v.status(before))
		require.Equal(t, "pending", v.status(queued))
		require.Equal(t, []bgagent.PoolStats{{Name: "agent wait", Limit: 1, InUse: 1, Waiting: 1}}, v.pools)
		require.Equal(t, "waiting", v.tasks[before]["text"])
		task, err := m.Get(before)
		require.NoError(t, err)
		require.EqualValues(t, task.Progress.LastActivity.UnixMilli(), v.tasks[before]["heard"])
		require.Equal(t, "hello", v.events[0])

		after := launch(t, m, "other", "echo", "z").ID
		pass(dashboard.DefaultInterval + time.Millisecond)
		require.Equal(t, "completed", v.status(after))
		require.Equal(t, "other", v.tasks[after]["parent"])
		_, err = m.Cancel(t.Context(), bgagent.Caller{}, before, bgagent.CancelOptions{})
		require.NoError(t, err)
		pass(time.Second)
		require.Equal(t, "cancelled", v.status(before))
		require.Equal(t, "running", v.status(queued))
		_, err = m.Cancel(t.Context(), bgagent.Caller{}, queued, bgagent.CancelOptions{})
		require.NoError(t, err)
		pass(time.Second)
		require.Equal(t, []bgagent.PoolStats{{Name: "agent wait", Limit: 1}}, v.pools, "an empty pool stays")
		batches := v.batches
		pass(time.Minute)
		require.Equal(t, batches, v.batches, "nothing is sent when nothing happens")
		require.Contains(t, v.events, "beat")
		v.leave()
	})
}

func TestEachPageIsToldAtMostOnceInAnInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, err := bgagent.New(inproc.New(map[string]inproc.Agent{
			"busy": func(ctx context.Context, turn *inproc.Turn) (string, error) {
				for i := range 10_000 {
					turn.Tool(bgagent.MessageTool{ID: fmt.Sprint(i), Name: "read", State: bgagent.ToolDone})
					time.Sleep(time.Millisecond)
				}
				return "done", nil
			},
		}), bgagent.Config{MaxToolCalls: bgagent.Unlimited})
		require.NoError(t, err)
		defer m.Close(context.Background())
		id := launch(t, m, "main", "busy", "x").ID
		h := dashboard.New(m, dashboard.Config{Interval: 200 * time.Millisecond})
		fast, slow := watch(t, h, 0), watch(t, h, 2*time.Second)
		pass(14*time.Second + time.Millisecond)
		require.Equal(t, "completed", fast.status(id))
		require.InDelta(t, 50, fast.batches, 5)
		require.LessOrEqual(t, fast.rows, fast.batches, "a task appears once per message")
		require.Equal(t, "completed", slow.status(id))
		require.Less(t, slow.batches, 8, "a slow page gets the latest state only")
		fast.leave()
		slow.leave()
	})
}

func TestAFirstSnapshotComesInPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, bgagent.Config{MaxTasksPerRoot: bgagent.Unlimited, Limits: bgagent.Limits{Default: bgagent.Unlimited}})
		for range 3000 {
			launch(t, m, "main", "echo", "x")
		}
		h := dashboard.New(m, dashboard.Config{})
		first, second := watch(t, h, 0), watch(t, h, 0)
		pass(time.Second)
		for _, v := range []*viewer{first, second} {
			require.Len(t, v.tasks, 3000)
			require.LessOrEqual(t, v.biggest, 400)
		}
		first.leave()
		launch(t, m, "main", "echo", "x")
		pass(time.Second)
		require.Len(t, second.tasks, 3001)
		second.leave()

		// The feed stopped, so the next page starts over.
		third := watch(t, h, 0)
		pass(time.Second)
		require.Len(t, third.tasks, 3001)
		third.leave()
	})
}

func TestWhatHasExpiredLeavesThePage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, bgagent.Config{MaxTasksPerRoot: bgagent.Unlimited, RetainTasks: 10, Wake: bgagent.WakeNever,
			Limits: bgagent.Limits{Default: bgagent.Unlimited}})
		v := watch(t, dashboard.New(m, dashboard.Config{}), 0)
		lazy := watch(t, dashboard.New(m, dashboard.Config{}), time.Second)
		for range 40 {
			for range 300 {
				launch(t, m, "main", "echo", "x")
			}
			pass(time.Second)
			m.TakeNotice("main")
		}
		pass(time.Minute)
		require.Len(t, v.tasks, len(m.List(bgagent.Query{})))
		require.Len(t, lazy.tasks, len(m.List(bgagent.Query{})))
		v.leave()
		lazy.leave()
	})
}

func TestThePageShowsWhatOnlyTheStoreHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var memory storetest.Memory
		cfg := bgagent.Config{Store: memory.Process(), Wake: bgagent.WakeNever, RetainTasks: 2, MaxTasksPerRoot: bgagent.Unlimited}
		m := newManager(t, cfg)
		var ids []string
		settle := func(id string) {
			ended(t, m, id)
			n, ok := m.TakeNotice("main")
			require.True(t, ok)
			m.Ack(n.ID)
			pass(time.Second)
		}
		begin := func() {
			ids = append(ids, launch(t, m, "main", "echo", fmt.Sprint("task ", len(ids))).ID)
			settle(ids[len(ids)-1])
		}
		for range 3 {
			begin()
		}
		require.NoError(t, m.Close(t.Context()))

		cfg.Store = memory.Process()
		m = newManager(t, cfg)
		h := dashboard.New(m, dashboard.Config{})
		v := watch(t, h, 0)
		pass(time.Second)
		require.Empty(t, m.List(bgagent.Query{}))
		for range 4 { // some of them expire from memory while the page is open
			begin()
		}
		require.Len(t, m.List(bgagent.Query{}), 2)
		require.Len(t, v.tasks, len(ids))
		for i, id := range ids {
			require.Equal(t, "completed", v.status(id))
			require.EqualValues(t, i+1, v.tasks[id]["n"], "in launch order")
			require.Equal(t, http.StatusOK, get(h, "/messages?id="+id).Code)
			w := get(h, "/task?id="+id)
			require.Equal(t, http.StatusOK, w.Code)
			require.Contains(t, w.Body.String(), fmt.Sprint("you said: task ", i))
		}
		_, err := m.Resume(t.Context(), bgagent.Caller{}, ids[0], bgagent.ResumeInput{Prompt: "more"})
		require.NoError(t, err)
		settle(ids[0])
		require.EqualValues(t, 2, v.tasks[ids[0]]["attempt"])
		v.leave()

		late := watch(t, h, 0)
		pass(time.Second)
		require.Len(t, late.tasks, len(ids))
		late.leave()
	})
}

func TestThePageShowsALimitedPartOfTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var memory storetest.Memory
		m := newManager(t, bgagent.Config{Store: memory.Process(), Wake: bgagent.WakeNever, RetainTasks: 1, MaxTasksPerRoot: bgagent.Unlimited,
			Limits: bgagent.Limits{Default: bgagent.Unlimited}})
		h := dashboard.New(m, dashboard.Config{})
		v := watch(t, h, 0)
		for range 4 {
			for range 400 {
				launch(t, m, "main", "echo", "x")
			}
			pass(time.Second)
			n, _ := m.TakeNotice("main")
			m.Ack(n.ID)
			pass(time.Minute)
		}
		live := len(m.List(bgagent.Query{}))
		require.Less(t, live, 400)
		require.Equal(t, 1000+live, len(v.tasks)) // after several refreshes of the feed
		late := watch(t, dashboard.New(m, dashboard.Config{}), 0)
		pass(time.Second)
		require.Equal(t, 1000+live, len(late.tasks))
		v.leave()
		late.leave()
	})
}

func TestAPageThatMissedEventsIsRightAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, bgagent.Config{MaxTasksPerRoot: bgagent.Unlimited, Limits: bgagent.Limits{Default: bgagent.Unlimited}})
		v := watch(t, dashboard.New(m, dashboard.Config{Interval: time.Second}), 0)
		pass(time.Second)
		for range 8000 { // each task makes several events, so the feed cannot buffer all events
			launch(t, m, "main", "echo", "x")
		}
		pass(5 * time.Second)
		require.Len(t, v.tasks, 8000)
		for id := range v.tasks {
			require.Equal(t, "completed", v.status(id))
		}
		v.leave()
	})
}

func TestTheEndOfTheManagerEndsTheStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, bgagent.Config{})
		h := dashboard.New(m, dashboard.Config{})
		v := watch(t, h, 0)
		id := launch(t, m, "main", "wait", "x").ID
		pass(time.Second)
		_ = m.Close(context.Background()) // the error lists the notice that was not taken
		<-v.done
		require.True(t, v.closed)
		require.Equal(t, "cancelled", v.status(id))

		late := watch(t, h, 0)
		<-late.done
		require.True(t, late.closed)
		require.Equal(t, "cancelled", late.status(id), "the last state can still be read")
	})
}

func TestATaskThatExpiredAndWasResumedIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, bgagent.Config{RetainTasks: 1, Wake: bgagent.WakeNever})
		h := dashboard.New(m, dashboard.Config{Interval: time.Second})
		v := watch(t, h, 0)
		task := ended(t, m, launch(t, m, "main", "echo", "one").ID)
		m.TakeNotice("main")
		pass(5 * time.Second)
		require.Equal(t, "completed", v.status(task.ID))

		// All of the following changes reach the page in one message.
		ended(t, m, launch(t, m, "main", "echo", "another").ID)
		m.TakeNotice("main")
		_, err := m.Get(task.ID)
		require.ErrorIs(t, err, bgagent.ErrExpired)
		_, err = m.Resume(t.Context(), bgagent.Caller{}, task.Session, bgagent.ResumeInput{Prompt: "two"})
		require.NoError(t, err)
		ended(t, m, task.ID)
		pass(5 * time.Second)
		require.Len(t, m.List(bgagent.Query{}), 1)
		require.Equal(t, "completed", v.status(task.ID))
		require.Len(t, v.tasks, 1)
		v.leave()
	})
}

func TestThePoolsOfAClosedManagerAreTheLastOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, bgagent.Config{})
		v := watch(t, dashboard.New(m, dashboard.Config{}), 0)
		launch(t, m, "main", "wait", "x")
		pass(time.Second)
		require.Equal(t, 1, v.pools[0].InUse)
		_ = m.Close(context.Background()) // the error lists the notice that was not taken
		<-v.done
		require.True(t, v.closed)
		require.Zero(t, v.pools[0].InUse)
	})
}

func TestAPageIsToldThatThereIsNoPoolAnyMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, bgagent.Config{Limits: bgagent.Limits{Model: map[string]int{"lab/one": 2}}})
		v := watch(t, dashboard.New(m, dashboard.Config{}), 0)
		pass(time.Second)
		require.Len(t, v.pools, 1)
		require.NoError(t, m.Concurrency().SetLimits(bgagent.Limits{}))
		pass(time.Second)
		require.Empty(t, v.pools)
		v.leave()
	})
}

func TestMorePoolsThanAreShownDoNotTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := bgagent.Limits{Model: map[string]int{}}
		for i := range 300 {
			limits.Model[fmt.Sprint("lab/", i)] = 1
		}
		v := watch(t, dashboard.New(newManager(t, bgagent.Config{Limits: limits}), dashboard.Config{}), 0)
		pass(time.Second)
		require.Len(t, v.pools, 200)
		batches := v.batches
		pass(time.Minute)
		require.Equal(t, batches, v.batches, "nothing is sent when nothing happens")
		v.leave()
	})
}

func TestAPageHearsOfWhatItsListsDoNotShow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, err := bgagent.New(inproc.New(map[string]inproc.Agent{
			"planner": func(ctx context.Context, turn *inproc.Turn) (string, error) {
				turn.Tool(bgagent.MessageTool{ID: "1", Name: "read", State: bgagent.ToolRunning})
				for state := range bgagent.TodoCancelled {
					time.Sleep(time.Second)
					turn.Todos([]bgagent.Todo{{Text: "think", State: state}})
				}
				time.Sleep(time.Second)
				turn.Tool(bgagent.MessageTool{ID: "1", Name: "read", State: bgagent.ToolDone})
				<-ctx.Done()
				return "", ctx.Err()
			},
		}), bgagent.Config{})
		require.NoError(t, err)
		defer m.Close(context.Background())
		v := watch(t, dashboard.New(m, dashboard.Config{}), 0)
		launch(t, m, "main", "planner", "x")
		rows := func() int {
			v.mu.Lock()
			defer v.mu.Unlock()
			return v.rows
		}
		pass(500 * time.Millisecond)
		for i := range 4 {
			before := rows()
			pass(time.Second)
			require.Equal(t, before+1, rows(), i) // a page that shows the task's details then fetches the details again
		}
		v.leave()
	})
}
