package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent/internal/modelserver"
	"github.com/bgagent/bgagent/internal/realagent"
	"github.com/bgagent/bgagent/opencode"
)

func TestTheSceneOnARealServer(t *testing.T) {
	w := realagent.New(t, "opencode")
	w.Model.Handle(func(r modelserver.Request) modelserver.Reply {
		if r.Kind != modelserver.Main {
			return r.Scripted()
		}
		_, who, _ := strings.Cut(r.System, "You are an ")
		who, _, _ = strings.Cut(who, ".")
		return modelserver.Say("this is what the " + who + " says")
	})
	s := w.ServeOpencode(t)
	var b strings.Builder
	require.NoError(t, run(t.Context(), &b, options{
		server: opencode.Config{URL: s.URL, Directory: w.Dir, Model: realagent.OpencodeModel}, fallback: "worker", limit: 2,
	}))
	for _, want := range []string{"## Explore: find the main parts\n\ncompleted after ", "this is what the explorer says", "this is what the oracle says", "## Librarian", "All together took"} {
		require.Contains(t, b.String(), want)
	}
	require.LessOrEqual(t, w.Model.MaxOpen(func(r modelserver.Request) bool { return r.Kind == modelserver.Main }, nil), 2)
}

func TestAServerThatIsNotThereIsNamedWithTheRemedy(t *testing.T) {
	err := run(t.Context(), &strings.Builder{}, options{server: opencode.Config{URL: "http://127.0.0.1:1"}})
	require.ErrorContains(t, err, "opencode serve")
	require.ErrorContains(t, err, "-url")
	require.NotContains(t, err.Error(), "Config")
}
