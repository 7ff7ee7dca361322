package mcpserver_test

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/inproc"
	"github.com/bgagent/bgagent/mcpserver"
)

// worker is an agent that works for the duration in its prompt and answers with the prompt. With
// the prompt "fail", it fails.
func worker(ctx context.Context, t *inproc.Turn) (string, error) {
	if t.Prompt.Text == "fail" {
		return "", context.Canceled
	}
	t.Tool(bgagent.MessageTool{ID: "1", Name: "look", State: bgagent.ToolDone})
	if d, err := time.ParseDuration(t.Prompt.Text); err == nil {
		select {
		case <-time.After(d):
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	return "did " + t.Prompt.Text, nil
}

// newServer returns a server for a new manager, whose only agent is worker.
func newServer(t *testing.T, cfg mcpserver.Config) (*bgagent.BackgroundManager, *mcpserver.Server) {
	t.Helper()
	m, err := bgagent.New(inproc.New(map[string]inproc.Agent{"worker": worker}), bgagent.Config{StaleTimeout: bgagent.Disabled, TimeToLive: bgagent.Disabled})
	require.NoError(t, err)
	s, err := mcpserver.New(m, cfg)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, s.Close())
		_ = m.Close(context.Background()) // the error lists notices that have not been taken
	})
	return m, s
}

func TestAForgottenScopeBeginsAgainWithItsTasks(t *testing.T) {
	_, s := newServer(t, mcpserver.Config{})
	protocol, err := s.MCP("me")
	require.NoError(t, err)
	cs := connect(t, s, "me", nil)
	delegate(t, cs, "1h")
	require.NoError(t, cs.Close())
	require.False(t, s.Forget("nobody"))
	require.True(t, s.Forget("me"))
	require.False(t, s.Forget("me"), "it has already been forgotten")
	later, err := s.MCP("me")
	require.NoError(t, err)
	require.NotSame(t, protocol, later)
	_, out := use(t, connect(t, s, "me", nil), "background_output", nil)
	require.Len(t, out.Tasks, 1)
}

// connect returns a client that is connected with the given scope.
func connect(t *testing.T, s *mcpserver.Server, scope string, o *mcp.ClientOptions) *mcp.ClientSession {
	t.Helper()
	here, there := mcp.NewInMemoryTransports()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, scope, there) }()
	c := mcp.NewClient(&mcp.Implementation{Name: "client", Version: "1"}, o)
	require.NoError(t, mcp.AddSendingCustomMethod[*handleParams, *handle](c, "tasks/get"))
	require.NoError(t, mcp.AddSendingCustomMethod[*handleParams, *handle](c, "tasks/cancel"))
	cs, err := c.Connect(ctx, here, nil)
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = cs.Close()
		cancel()
		<-done
	})
	return cs
}

// The function "use" calls a tool.
func use(t *testing.T, cs *mcp.ClientSession, tool string, args map[string]any) (*mcp.CallToolResult, mcpserver.Structured) {
	t.Helper()
	r, err := cs.CallTool(t.Context(), &mcp.CallToolParams{Name: tool, Arguments: args})
	require.NoError(t, err)
	return r, structured(t, r)
}

func structured(t *testing.T, r *mcp.CallToolResult) (s mcpserver.Structured) {
	t.Helper()
	raw, err := json.Marshal(r.StructuredContent)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(raw, &s))
	require.Equal(t, s.Text, r.Content[0].(*mcp.TextContent).Text, "a program may show its model either of them")
	return s
}

func delegate(t *testing.T, cs *mcp.ClientSession, prompt string) string {
	t.Helper()
	_, s := use(t, cs, "delegate_task", map[string]any{"subagent_type": "worker", "prompt": prompt, "description": prompt})
	require.Len(t, s.Tasks, 1, s.Text)
	return s.Tasks[0].ID
}

func bubble(t *testing.T, test func(t *testing.T)) { synctest.Test(t, test) }

func TestToolsAreServedWithWhatAClientNeeds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, s := newServer(t, mcpserver.Config{Tools: bgagent.ToolOptions{Agents: []bgagent.AgentInfo{{Name: "worker", Description: "Works."}}}})
		list, err := connect(t, s, "me", nil).ListTools(t.Context(), nil)
		require.NoError(t, err)
		names := map[string]*mcp.Tool{}
		for _, tool := range list.Tools {
			names[tool.Name] = tool
			require.NotEmpty(t, tool.Annotations.Title)
			require.NotNil(t, tool.OutputSchema)
		}
		require.Len(t, names, 3)
		require.Contains(t, names["delegate_task"].Description, "worker")
		require.True(t, names["background_output"].Annotations.ReadOnlyHint)
		require.False(t, names["delegate_task"].Annotations.ReadOnlyHint)
	})
}

func TestATaskIsDelegatedReadAndCancelled(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m, s := newServer(t, mcpserver.Config{})
		cs := connect(t, s, "me", nil)
		id := delegate(t, cs, "1m")
		task, err := m.Get(id)
		require.NoError(t, err)
		require.Equal(t, "me", task.Parent)
		_, out := use(t, cs, "background_output", map[string]any{"task_id": id, "block": true, "timeout": 120_000})
		require.Contains(t, out.Text, "did 1m")
		require.Equal(t, bgagent.Completed, out.Tasks[0].Status)

		other := delegate(t, cs, "1h")
		_, out = use(t, cs, "background_cancel", map[string]any{"task_id": other})
		require.Equal(t, other, out.Tasks[0].ID)
		r, out := use(t, cs, "background_cancel", map[string]any{"task_id": "nonsense"})
		require.True(t, r.IsError)
		require.Contains(t, out.Text, "nonsense")
		r, _ = use(t, cs, "delegate_task", map[string]any{"prompt": 7})
		require.True(t, r.IsError, "the answer tells the model about bad arguments")
	})
}

func TestAnEndIsToldWithTheNextAnswer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, s := newServer(t, mcpserver.Config{})
		cs := connect(t, s, "me", nil)
		first := delegate(t, cs, "1m")
		second := delegate(t, cs, "1h")
		time.Sleep(2 * time.Minute)
		_, out := use(t, cs, "background_output", map[string]any{"task_id": second})
		require.Contains(t, out.Text, first)
		_, out = use(t, cs, "background_output", map[string]any{"block": true, "timeout": 600_000})
		require.True(t, out.TimedOut, out.Text)
	})
}

func TestScopesDoNotSeeEachOther(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m, s := newServer(t, mcpserver.Config{})
		mine, theirs := connect(t, s, "me", nil), connect(t, s, "they", nil)
		id := delegate(t, mine, "1h")
		for tool, args := range map[string]map[string]any{
			"background_output": {"task_id": id},
			"background_cancel": {"task_id": id},
			"delegate_task":     {"task_id": id, "prompt": "go on"},
		} {
			r, _ := use(t, theirs, tool, args)
			require.True(t, r.IsError, tool)
		}
		_, out := use(t, theirs, "background_output", nil)
		require.NotContains(t, out.Text, id)
		_, err := theirs.ReadResource(t.Context(), &mcp.ReadResourceParams{URI: "bgagent://task/" + id})
		require.Error(t, err)
		_, err = mcp.CallCustomMethod[*handleParams, *handle](t.Context(), theirs, "tasks/cancel", &handleParams{TaskID: id + ".1"})
		require.Error(t, err)
		task, err := m.Get(id)
		require.NoError(t, err)
		require.Equal(t, bgagent.Running, task.Status)
	})
}

func TestProgressIsToldWhileACallWaits(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, s := newServer(t, mcpserver.Config{})
		var mu sync.Mutex
		var got []*mcp.ProgressNotificationParams
		cs := connect(t, s, "me", &mcp.ClientOptions{ProgressNotificationHandler: func(_ context.Context, r *mcp.ProgressNotificationClientRequest) {
			mu.Lock()
			defer mu.Unlock()
			got = append(got, r.Params)
		}})
		id := delegate(t, cs, "1m")
		p := &mcp.CallToolParams{Name: "background_output", Arguments: map[string]any{"task_id": id, "block": true, "timeout": 600_000}}
		p.SetProgressToken("token")
		_, err := cs.CallTool(t.Context(), p)
		require.NoError(t, err)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		require.GreaterOrEqual(t, len(got), 5, "one every 10 s at the latest")
		for i, p := range got {
			require.Equal(t, "token", p.ProgressToken)
			require.NotEmpty(t, p.Message)
			require.True(t, i == 0 || p.Progress > got[i-1].Progress)
		}
	})
}

func TestACancelledCallEndsTheWaitAndNotTheTask(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m, s := newServer(t, mcpserver.Config{})
		cs := connect(t, s, "me", nil)
		for _, p := range []*mcp.CallToolParams{
			{Name: "background_output", Arguments: map[string]any{"task_id": delegate(t, cs, "1h"), "block": true}},
			{Name: "delegate_task", Arguments: map[string]any{"subagent_type": "worker", "prompt": "2h", "run_in_background": false}},
		} {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			_, err := cs.CallTool(ctx, p)
			cancel()
			require.ErrorIs(t, err, context.DeadlineExceeded)
		}
		synctest.Wait()
		for _, task := range m.List(bgagent.Query{Parent: "me"}) {
			require.Equal(t, bgagent.Running, task.Status)
		}
		time.Sleep(3 * time.Hour)
		_, out := use(t, cs, "background_output", nil)
		require.Contains(t, out.Text, "2h", "its end is still reported")
	})
}

func TestADelegationInTheForegroundAnswersWithTheResult(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, s := newServer(t, mcpserver.Config{})
		cs := connect(t, s, "me", nil)
		before := delegate(t, cs, "1s")
		time.Sleep(time.Minute)
		_, out := use(t, cs, "delegate_task", map[string]any{"subagent_type": "worker", "prompt": "1m", "run_in_background": false})
		require.Contains(t, out.Text, "did 1m")
		require.Contains(t, out.Text, before, "the answer brings the notice that was owed")
		require.Equal(t, bgagent.Completed, out.Tasks[0].Status)
	})
}

func TestTasksAreResources(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m, s := newServer(t, mcpserver.Config{})
		var mu sync.Mutex
		changed := 0
		cs := connect(t, s, "me", &mcp.ClientOptions{ResourceUpdatedHandler: func(context.Context, *mcp.ResourceUpdatedNotificationRequest) {
			mu.Lock()
			defer mu.Unlock()
			changed++
		}})
		id := delegate(t, cs, "1m")
		uri := "bgagent://task/" + id
		require.NoError(t, cs.Subscribe(t.Context(), &mcp.SubscribeParams{URI: uri}))
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		mu.Lock()
		require.Positive(t, changed)
		mu.Unlock()
		r, err := cs.ReadResource(t.Context(), &mcp.ReadResourceParams{URI: uri})
		require.NoError(t, err)
		var task bgagent.Task
		require.NoError(t, json.Unmarshal([]byte(r.Contents[0].Text), &task))
		require.Equal(t, "did 1m", task.Result)
		task, err = m.Get(id)
		require.NoError(t, err)
		require.Equal(t, bgagent.NoticeOwed, task.Notice, "reading a resource does not settle the notice")
	})
}

func TestRenamedAndMissingTools(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, s := newServer(t, mcpserver.Config{Tools: bgagent.ToolOptions{Names: map[string]string{"background_output": "task_output"}, Omit: []string{"delegate_task"}}})
		cs := connect(t, s, "me", nil)
		list, err := cs.ListTools(t.Context(), nil)
		require.NoError(t, err)
		var names []string
		for _, tool := range list.Tools {
			names = append(names, tool.Name)
			require.NotNil(t, tool.Annotations)
		}
		require.ElementsMatch(t, []string{"task_output", "background_cancel"}, names)
	})
	_, err := mcpserver.New(nil, mcpserver.Config{})
	require.ErrorContains(t, err, "manager is nil")
	m, err := bgagent.New(inproc.New(map[string]inproc.Agent{"worker": worker}), bgagent.Config{})
	require.NoError(t, err)
	defer m.Close(context.Background())
	_, err = mcpserver.New(m, mcpserver.Config{Tools: bgagent.ToolOptions{Omit: []string{"nothing"}}})
	require.ErrorContains(t, err, "nothing")
	s, err := mcpserver.New(m, mcpserver.Config{})
	require.NoError(t, err)
	require.ErrorContains(t, s.Run(t.Context(), " ", nil), "scope is empty")
	require.NoError(t, s.Close())
	require.ErrorContains(t, s.Run(t.Context(), "me", nil), "closed")
}

// handleParams and handle are messages of the extension, as a client decodes them.
type handleParams struct {
	mcp.ParamsBase
	TaskID string `json:"taskId"`
}

type handle struct {
	mcp.ResultBase
	ResultType string              `json:"resultType"`
	TaskID     string              `json:"taskId"`
	Status     string              `json:"status"`
	CreatedAt  string              `json:"createdAt"`
	Result     *mcp.CallToolResult `json:"result"`
}

func TestTheTasksExtension(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m, s := newServer(t, mcpserver.Config{})
		caps := &mcp.ClientCapabilities{}
		caps.AddExtension(mcpserver.ExtensionTasks, nil)
		cs := connect(t, s, "me", &mcp.ClientOptions{Capabilities: caps})
		get := func(id string) (*handle, error) {
			return mcp.CallCustomMethod[*handleParams, *handle](t.Context(), cs, "tasks/get", &handleParams{TaskID: id})
		}
		launch := func(prompt string) string {
			// The error is ignored: the library's client cannot decode a handle, because a handle is not a
			// tool result.
			_, _ = cs.CallTool(t.Context(), &mcp.CallToolParams{Name: "delegate_task", Arguments: map[string]any{"subagent_type": "worker", "prompt": prompt, "run_in_background": false}})
			synctest.Wait()
			all := m.List(bgagent.Query{Parent: "me"})
			i := slices.IndexFunc(all, func(x bgagent.Task) bool { return x.Prompt == prompt })
			return all[i].ID + ".1"
		}
		id := launch("1m")
		h, err := get(id)
		require.NoError(t, err)
		require.Equal(t, handle{ResultBase: h.ResultBase, ResultType: "complete", TaskID: id, Status: "working", CreatedAt: h.CreatedAt}, *h)
		time.Sleep(2 * time.Minute)
		h, err = get(id)
		require.NoError(t, err)
		require.Equal(t, "completed", h.Status)
		require.Contains(t, structured(t, h.Result).Text, "did 1m")
		task, err := m.Get(strings.TrimSuffix(id, ".1"))
		require.NoError(t, err)
		require.Equal(t, bgagent.NoticeRead, task.Notice)

		id = launch("fail")
		h, err = get(id)
		require.NoError(t, err)
		require.Equal(t, "completed", h.Status, "a task that failed is a call that has an answer")

		id = launch("1h")
		_, err = mcp.CallCustomMethod[*handleParams, *handle](t.Context(), cs, "tasks/cancel", &handleParams{TaskID: id})
		require.NoError(t, err)
		h, err = get(id)
		require.NoError(t, err)
		require.Equal(t, "cancelled", h.Status)
		_, err = mcp.CallCustomMethod[*handleParams, *handle](t.Context(), cs, "tasks/cancel", &handleParams{TaskID: id})
		require.NoError(t, err, "a second call is not an error")

		for _, wrong := range []string{"", "bg_0000000000000000.1", id + "1", strings.TrimSuffix(id, ".1") + ".0", "bgagent://task/x.1"} {
			_, err = get(wrong)
			require.ErrorContains(t, err, "there is no task", wrong)
		}
	})
}
