package main

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent/internal/modelserver"
)

func start(t *testing.T, script modelserver.Handler) (*harness, *modelserver.Server, *bytes.Buffer) {
	s := modelserver.New(script)
	t.Cleanup(s.Close)
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(dir+"/README.md", []byte("# Project\nmore\n"), 0o600))
	require.NoError(t, os.WriteFile(dir+"/go.mod", []byte("module example.com/project\n"), 0o600))
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	out := &bytes.Buffer{}
	return &harness{url: s.URL + "/v1", model: "scripted", files: root, out: out}, s, out
}

func TestTheModelIsWokenByOneNoticeAndReadsWhatWasFound(t *testing.T) {
	h, s, out := start(t, script())
	require.NoError(t, h.run(t.Context(), question, strings.NewReader("")))
	for _, want := range []string{
		"Three agents are working. I will continue when I am notified.",
		"- README.md begins with # Project",
		"- go.mod begins with module example.com/project",
		"- There are 2 names at the top",
	} {
		require.Contains(t, out.String(), want)
	}
	require.Equal(t, 3, strings.Count(out.String(), "(delegate_task "))
	require.Equal(t, 3, strings.Count(out.String(), "(background_output "))
	isWorker := func(r modelserver.Request) bool { return !r.Offers("delegate_task") }
	require.LessOrEqual(t, s.MaxOpen(isWorker, nil), 2, "two sessions per model at a time")
	require.Len(t, s.Requests(), 4+3*2, "two turns of the leader and one of each agent, with two requests each")
}

func TestAKeyThatIsMissingIsNamedBeforeAnythingIsAsked(t *testing.T) {
	err := (&harness{url: openAI}).usable(false)
	require.ErrorContains(t, err, "OPENAI_API_KEY is not set")
	require.ErrorContains(t, err, "-offline")
	require.NoError(t, (&harness{url: openAI}).usable(true))
	require.NoError(t, (&harness{url: openAI, key: "k"}).usable(false))
	require.NoError(t, (&harness{url: "http://127.0.0.1:11434/v1"}).usable(false))
}

func TestLinesOfInputAreQuestionsToo(t *testing.T) {
	h, _, out := start(t, func(r modelserver.Request) modelserver.Reply { return modelserver.Say("heard " + r.LastUser()) })
	require.NoError(t, h.run(t.Context(), "one", strings.NewReader("two\nthree\n")))
	require.Equal(t, "\nheard one\n\n\nheard two\n\n\nheard three\n\n", out.String())
}

func TestAModelThatRefusesIsNamed(t *testing.T) {
	h, _, _ := start(t, func(modelserver.Request) modelserver.Reply { return modelserver.Refuse(401, "wrong key") })
	require.ErrorContains(t, h.run(t.Context(), "one", strings.NewReader("")), "wrong key")
}
