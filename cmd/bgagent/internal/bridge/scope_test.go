package bridge

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// withDeep returns a server with the open bridges of the tasks "top" and "deep". The bridge inside the turn
// of "top" forbids the agent b. It was opened after "top" had launched "deep".
func withDeep(t *testing.T, file string) *turns {
	t.Helper()
	x := withTurns(t)
	x.file = file
	x.restart()
	root, ctx := x.top(Narrow{Without: []string{"a"}})
	x.launch(ctx, root, "top")
	top, ctx := x.open("top", "/", Narrow{Without: []string{"a"}})
	x.launch(ctx, top, "deep")
	x.open("top", "/", Narrow{Without: []string{"b"}, TaskBudget: bgagent.Budget{Cost: 3}})
	return x
}

func TestWhatABridgeInATurnForbidsAfterALaunchHoldsAfterARestart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "bridges.json")
	x := withDeep(t, file)
	held := func() {
		t.Helper()
		for _, scope := range []string{"deep", "top"} {
			name, ctx := x.open(scope, "/", Narrow{})
			require.Contains(t, x.allows(ctx, name, "a"), "removes the agent a")
			require.Contains(t, x.allows(ctx, name, "b"), "removes the agent b")
			require.Empty(t, x.allows(ctx, name, "c"))
			require.Contains(t, x.Resumes(ctx, name, bgagent.Task{ID: "bg_1", Agent: "c"}, nil), "a smaller budget for each task")
		}
	}
	held()
	for range 2 {
		x.restart()
		x.top(Narrow{})
		held()
	}

	delete(x.live, "top")
	x.restart()
	x.top(Narrow{})
	require.False(t, x.inTurn("top"))
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, "{}", string(b), "nothing is kept of tasks that have ended")
}

// Restrictions in the task's metadata need no file.
func TestABridgeThatForbidsNothingNewWritesNoFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "none", "bridges.json") // a file that cannot be written
	x := withTurns(t)
	x.file = file
	x.restart()
	same := Narrow{Without: []string{"a"}, TaskBudget: bgagent.Budget{Cost: 2}}
	root, ctx := x.top(same)
	x.launch(ctx, root, "top")
	top, ctx := x.open("top", "/", same)
	require.Contains(t, x.allows(ctx, top, "a"), "removes the agent a")
	x.open("top", "/", Narrow{})
	_, err := x.takeInTurn("alice", "/", Hello{Turn: "top", Narrow: Narrow{Without: []string{"b"}}})
	require.ErrorContains(t, err, "its restrictions cannot be kept: ")
	require.Empty(t, x.allows(ctx, top, "b"), "the bridge was refused")
	x.leave(top)
	x.leave(top)
	require.Panics(t, func() { delete(x.scopes, top); x.leave(top) }, "the refused bridge does not count")
}

func TestABridgeInATurnIsRefusedIfTheFileCannotBeRead(t *testing.T) {
	for _, text := range []string{"", "{", `{"top": {"task": "top", "narrow": [{"a_new_limit": 1}]}}`, `{"top": {"more": 1}}`} {
		file := filepath.Join(t.TempDir(), "bridges.json")
		x := withDeep(t, file)
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		x.restart()
		x.top(Narrow{}) // a bridge outside of turns is still accepted
		_, err := x.takeInTurn("alice", "/", Hello{Turn: "deep"})
		require.ErrorContains(t, err, "the server cannot read the restrictions that bridges inside turns had set before it was started: ")
		require.ErrorContains(t, err, "remove "+file+" and start the server again")
		require.NoError(t, os.Remove(file))
		x.restart()
		x.top(Narrow{})
		x.open("deep", "/", Narrow{})
	}
}

func TestScopesThatAreNotUsedAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := withTurns(t)
		owed := map[string]bool{}
		x.cfg.Owed = func(scope string) bool { return owed[scope] }
		open := func(key string, n Narrow) string {
			name, err := x.take("alice", "/", Hello{Key: key, Narrow: n})
			require.NoError(t, err)
			return name
		}
		forbids := Narrow{Without: []string{"a"}}
		used, busy, texts, old := open("used", forbids), open("busy", forbids), open("texts", forbids), open("old", forbids)
		x.begin(Task{ID: "top", Session: "top", Above: []string{busy}, Metadata: map[string]string{recordKey: "[]"}})
		owed[texts] = true
		for _, name := range []string{busy, texts, old} {
			x.leave(name)
		}
		time.Sleep(idleTime - time.Nanosecond)
		x.leave(open("other", Narrow{}))
		require.Len(t, x.scopes, 5)
		time.Sleep(time.Nanosecond)
		last := open("last", Narrow{})
		require.Equal(t, []string{old}, x.gone)
		for _, name := range []string{used, busy, texts, last} {
			require.Contains(t, x.scopes, name)
		}
		x.leave(last)
		_, ctx := x.open("top", "/", Narrow{})
		require.Contains(t, x.allows(ctx, "top", "a"), "removes the agent a", "the restrictions of the program above still apply")
		x.leave("top")

		delete(x.live, "top")
		x.sweep()
		require.ElementsMatch(t, []string{old, "top", busy}, x.gone)
		x.live["top"] = true // a person resumes the task
		_, err := x.takeInTurn("alice", "/", Hello{Turn: "top"})
		require.ErrorContains(t, err, "has not connected since this server was started, or for a day, so its restrictions are not known; start that program again")
		require.Equal(t, busy, open("busy", Narrow{}), "the next bridge gets the same scope")
	})
}

func TestTheNumberOfScopesThatAreNotUsedIsLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := withTurns(t)
		x.cfg.Owed = func(string) bool { return true }
		take := func(i int) string {
			name, err := x.take("alice", "/", Hello{Key: fmt.Sprint("k", i)})
			require.NoError(t, err)
			x.leave(name)
			time.Sleep(time.Nanosecond)
			return name
		}
		busy := take(0)
		x.begin(Task{ID: "top", Session: "top", Above: []string{busy}})
		second := take(1)
		for i := range maxIdle {
			take(2 + i)
		}
		require.Empty(t, x.gone)
		last := take(-1)
		require.Equal(t, []string{second}, x.gone, "the scope that has been unused for the longest time")
		require.Contains(t, x.scopes, last)
		require.Contains(t, x.scopes, busy)
		for i := range 50 {
			take(maxIdle + 2 + i)
		}
		require.Len(t, x.scopes, maxIdle+2, "the last scope was taken after the others had been counted")
	})
}
