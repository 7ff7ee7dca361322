package bridge

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// The type "turns" is a server whose only caller is alice. It also contains the answers to the server's
// questions about turns. Each mark is also the id of a task.
type turns struct {
	*Server
	t     *testing.T
	tasks map[string]Task
	live  map[string]bool   // tasks that have not ended
	in    map[string]string // tasks by the marks of running turns
	gone  []string
	file  string // see Config.File
}

func withTurns(t *testing.T) *turns {
	x := &turns{t: t, tasks: map[string]Task{}, live: map[string]bool{}, in: map[string]string{}}
	x.restart()
	return x
}

// restart replaces the server. The tasks continue.
func (x *turns) restart() {
	x.Server = NewServer(Config{Scope: "alice",
		Turn: func(mark string) (Task, error) {
			if task, ok := x.tasks[mark]; ok {
				return task, nil
			}
			return Task{}, errors.New("it is too deep")
		},
		TaskInTurn: func(mark string) string { return x.in[mark] },
		Live:       func(id string) bool { return x.live[id] },
		Busy:       func(scope string) bool { return x.below(scope) },
		Owed:       func(scope string) bool { return false },
		File:       x.file,
		Gone:       func(scope string) { x.gone = append(x.gone, scope) },
	})
}

// The method "below" reports whether a task below the scope has not ended.
func (x *turns) below(scope string) bool {
	for id, t := range x.tasks {
		if x.live[id] && slices.Contains(t.Above, scope) {
			return true
		}
	}
	return false
}

// The method "top" opens a bridge outside of turns, and returns its scope and the context of its
// calls.
func (x *turns) top(n Narrow) (scope string, ctx context.Context) {
	x.t.Helper()
	h := Hello{Key: "k", Narrow: n}
	scope, err := x.take("alice", "/", h)
	require.NoError(x.t, err)
	return scope, within(x.t.Context(), "/", h)
}

// open opens a bridge inside the turn with the mark, and returns its scope and the context of its calls.
func (x *turns) open(mark, dir string, n Narrow) (scope string, ctx context.Context) {
	x.t.Helper()
	h := Hello{Turn: mark, Narrow: n}
	scope, err := x.takeInTurn("alice", dir, h)
	require.NoError(x.t, err)
	require.True(x.t, x.inTurn(scope))
	return scope, within(x.t.Context(), dir, h)
}

// inTurn reports whether the server knows the scope and the scope is inside a turn.
func (x *turns) inTurn(name string) bool {
	sc, _ := x.find(name)
	return sc != nil && sc.task != ""
}

// The method "launch" launches a task over a bridge and begins the task's turn. The name doubles as the
// task's id, the turn's mark and the session's id.
func (x *turns) launch(ctx context.Context, scope, name string) bgagent.LaunchInput {
	x.t.Helper()
	in, err := x.Prepare(ctx, bgagent.Caller{Session: scope}, bgagent.LaunchInput{Agent: "free"})
	require.NoError(x.t, err)
	above := []string{scope}
	if by, ok := x.tasks[scope]; ok {
		above = append(above, by.Above...)
	}
	x.begin(Task{ID: name, Session: name, Above: above, Metadata: in.Metadata})
	return in
}

func (x *turns) begin(t Task) { x.tasks[t.ID], x.live[t.ID], x.in[t.ID] = t, true, t.ID }

// The method "allows" returns the error from launching a task for the agent, or "".
func (x *turns) allows(ctx context.Context, scope, agent string) string {
	if _, err := x.Prepare(ctx, bgagent.Caller{Session: scope}, bgagent.LaunchInput{Agent: agent}); err != nil {
		return err.Error()
	}
	return ""
}

func TestABridgeInATurnHasTheScopeOfItsTaskAndAllRestrictionsAboveIt(t *testing.T) {
	x := withTurns(t)
	root, ctx := x.top(Narrow{Without: []string{"a"}, TaskBudget: bgagent.Budget{Cost: 5}})
	x.launch(ctx, root, "top")
	x.leave(root)
	x.begin(Task{ID: "lost", Session: "lost", Above: []string{"alice/k-9"}, Metadata: x.tasks["top"].Metadata})
	x.begin(Task{ID: "plain", Session: "plain", Above: []string{"alice"}}) // launched over HTTP, without restrictions
	for mark, want := range map[string]string{"none": "it is too deep", "lost": "its restrictions are not known"} {
		_, err := x.takeInTurn("alice", "/", Hello{Turn: mark})
		require.ErrorContains(t, err, want)
	}
	_, err := x.takeInTurn("ali", "/", Hello{Turn: "top"})
	require.ErrorContains(t, err, "of another caller")
	top, ctx := x.open("top", "/top", Narrow{Without: []string{"b"}, TaskBudget: bgagent.Budget{Cost: 3}})
	x.launch(ctx, top, "deep")
	again, _ := x.open("top", "/again", Narrow{})
	require.Equal(t, top, again, "two bridges of a turn work for the same task")
	x.leave(top)
	x.leave(top)
	deep, ctx := x.open("deep", "/deep", Narrow{Without: []string{"c"}, TaskBudget: bgagent.Budget{Cost: 4}})
	require.False(t, x.inTurn(root))
	for _, agent := range []string{"a", "b", "c"} {
		require.Contains(t, x.allows(ctx, deep, agent), "removes the agent "+agent)
	}
	in := x.launch(ctx, deep, "deeper")
	require.Equal(t, "/deep", in.Directory)
	require.Equal(t, bgagent.Budget{Cost: 3}, in.Budget)
	require.Contains(t, x.Resumes(ctx, deep, bgagent.Task{ID: "bg_1", Agent: "b"}, nil), "removes the agent b")

	x.live = map[string]bool{"plain": true, "deep": true}
	x.open("plain", "/", Narrow{})
	require.Equal(t, []string{"top"}, x.gone)
	require.True(t, x.inTurn("deep"))
	x.leave(deep)
	delete(x.live, "deep")
	x.top(Narrow{})
	require.Equal(t, []string{"top", "deep"}, x.gone, "nothing is kept of tasks that have ended")
	require.False(t, x.inTurn("top"))
	require.False(t, x.inTurn("deep"))
}

// The account of a tree belongs to its root. If a task could narrow the account, it could cancel tasks that
// are not below it.
func TestABridgeInATurnNeverNarrowsTheBudgetOfTheTree(t *testing.T) {
	x := withTurns(t)
	root, ctx := x.top(Narrow{TreeBudget: bgagent.Budget{Cost: 9}})
	require.Equal(t, bgagent.Budget{Cost: 9}, x.launch(ctx, root, "top").TreeBudget)
	top, ctx := x.open("top", "/", Narrow{TaskBudget: bgagent.Budget{Cost: 2, ToolCalls: 5}, TreeBudget: bgagent.Budget{Cost: 1, ToolCalls: 7, TotalTokens: 3}})
	in := x.launch(ctx, top, "deep")
	require.Equal(t, bgagent.Budget{Cost: 9}, in.TreeBudget)
	require.Equal(t, bgagent.Budget{Cost: 1, ToolCalls: 5, TotalTokens: 3}, in.Budget, "each task gets at most the budget of all of them together")

	account := []bgagent.TreeBudget{{Root: root, BudgetUse: bgagent.BudgetUse{Limit: bgagent.Budget{Cost: 9}}}}
	task := bgagent.Task{ID: "bg_1", Agent: "free", Budget: bgagent.BudgetUse{Limit: in.Budget}}
	require.Empty(t, x.Resumes(ctx, top, task, account))
	task.Budget.Limit.TotalTokens = 4
	require.Contains(t, x.Resumes(ctx, top, task, account), "a smaller budget for each task")
}

func TestTheRestrictionsAtTheLaunchOfATaskHoldAfterTheirScopesAreLost(t *testing.T) {
	for name, lose := range map[string]func(x *turns){
		"the task has ended": func(x *turns) {
			delete(x.live, "top")
			x.mu.Lock()
			defer x.mu.Unlock()
			x.sweep()
		},
		"the server was restarted": func(x *turns) {
			x.restart()
			x.top(Narrow{})
		},
	} {
		x := withTurns(t)
		root, ctx := x.top(Narrow{Without: []string{"a"}, TreeBudget: bgagent.Budget{Cost: 9}})
		x.launch(ctx, root, "top")
		top, ctx := x.open("top", "/", Narrow{Without: []string{"b"}, TaskBudget: bgagent.Budget{Cost: 3}})
		x.launch(ctx, top, "deep")
		x.leave(top)
		lose(x)
		require.False(t, x.inTurn(top), name)
		deep, ctx := x.open("deep", "/", Narrow{})
		require.Contains(t, x.allows(ctx, deep, "a"), "removes the agent a", name)
		require.Contains(t, x.allows(ctx, deep, "b"), "removes the agent b", name)
		in := x.launch(ctx, deep, "deeper")
		require.Equal(t, bgagent.Budget{Cost: 3}, in.Budget, name)
		require.NotContains(t, in.Metadata[recordKey], "tree_budget", "only the bridge at the root sets the budget of the tree")
		deeper, ctx := x.open("deeper", "/", Narrow{})
		require.Contains(t, x.allows(ctx, deeper, "b"), "removes the agent b", name)
	}
}

func TestABridgeIsRefusedIfTheRestrictionsOfItsTaskAreNotKnown(t *testing.T) {
	x := withTurns(t)
	root, ctx := x.top(Narrow{})
	x.launch(ctx, root, "top")
	for text, want := range map[string]string{
		"":                     "cannot be read",
		"[{":                   "cannot be read",
		`[{"a_new_limit": 1}]`: "cannot be read",
		"none":                 "cannot be read",
		"nothing":              "were not recorded",
	} {
		task := Task{ID: "bg_1", Session: "s", Above: []string{"top", root}}
		if text != "nothing" {
			task.Metadata = map[string]string{recordKey: text}
		}
		x.begin(task)
		_, err := x.takeInTurn("alice", "/", Hello{Turn: "bg_1"})
		require.ErrorContains(t, err, "it is inside a turn of task bg_1, and the restrictions under which this task was launched", text)
		require.ErrorContains(t, err, want, text)
		require.False(t, x.inTurn("s"))
	}
	x.begin(Task{ID: "bg_2", Session: "s", Above: []string{root}})
	_, err := x.takeInTurn("alice", "/", Hello{Turn: "bg_2"})
	require.ErrorContains(t, err, "were not recorded", "a bridge has launched the task")

	long := func(text string) Narrow { return Narrow{Without: []string{strings.Repeat(text, maxRecord/2)}} }
	x.open("top", "/", long("x"))
	_, err = x.takeInTurn("alice", "/", Hello{Turn: "top", Narrow: long("y")})
	require.ErrorContains(t, err, "do not fit into 65536 bytes")
}

func TestTwoBridgesOfATurnHaveADirectoryEach(t *testing.T) {
	x := withTurns(t)
	root, ctx := x.top(Narrow{})
	x.launch(ctx, root, "top")
	_, one := x.open("top", "/one", Narrow{})
	top, two := x.open("top", "/two", Narrow{})
	require.Equal(t, "/one", x.launch(one, top, "first").Directory)
	require.Equal(t, "/two", x.launch(two, top, "second").Directory)
}

func TestABridgeThatOutlivesItsTurnLaunchesAndResumesNothing(t *testing.T) {
	x := withTurns(t)
	root, ctx := x.top(Narrow{})
	x.launch(ctx, root, "top")
	top, ctx := x.open("top", "/", Narrow{})
	task := bgagent.Task{ID: "bg_1", Agent: "free"}
	require.Empty(t, x.allows(ctx, top, "free"))
	require.Empty(t, x.Resumes(ctx, top, task, nil))
	delete(x.in, "top")
	x.in["next"], x.tasks["next"] = "top", x.tasks["top"] // the task is in its next turn
	require.Contains(t, x.allows(ctx, top, "free"), "the turn of task top inside which this bridge was started has ended")
	require.Contains(t, x.Resumes(ctx, top, task, nil), "the turn of task top inside which this bridge was started has ended")
	_, ctx = x.open("next", "/", Narrow{})
	require.Empty(t, x.allows(ctx, top, "free"))
	require.Contains(t, x.allows(t.Context(), top, "free"), "has ended", "a call without a bridge")
}
