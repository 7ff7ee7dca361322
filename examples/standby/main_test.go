package main

import (
	"io"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestMain calls the function "main" if the test binary was started by the function "run". In that
// case, the binary is one of the two processes.
func TestMain(m *testing.M) {
	if os.Getenv(urlVariable) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

func TestOutput(t *testing.T) {
	var b strings.Builder
	require.NoError(t, run(t.Context(), &b))
	require.Equal(t, `The first process has accepted 4 tasks. The second process waits.
The first process was killed. 2 tasks had ended, and 2 were running.
The second process has taken over the store.
4 of 4 tasks have completed with the right result, and 4 ends were reported.
`, b.String())
}

func TestTheJudgeFindsALostTask(t *testing.T) {
	ids := func(all ...string) map[string]bool {
		m := map[string]bool{}
		for _, id := range all {
			m[id] = true
		}
		return m
	}
	all := ids("a", "b", "c", "d")
	for _, x := range []struct {
		completed, toldFirst, toldSecond map[string]bool
		lost                             bool
	}{
		{all, ids("a", "b"), ids("b", "c", "d"), false},
		{ids("a", "b", "c"), all, nil, true},
		{all, ids("a", "b"), ids("c"), true},
	} {
		first := &process{lines: map[string]map[string]bool{"accepted": all, "told": x.toldFirst}}
		second := &process{lines: map[string]map[string]bool{"completed": x.completed, "told": x.toldSecond}}
		require.Equal(t, x.lost, judge(io.Discard, first, second) != nil)
	}
}
