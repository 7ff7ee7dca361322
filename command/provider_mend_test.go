package command

import (
	"strings"
	"testing"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// outputOf joins the lines of a program's output.
func outputOf(lines ...string) []byte { return []byte(strings.Join(lines, "\n")) }

func TestCodexRepeatsARequestAfterABare403(t *testing.T) {
	const bare, named, wrong = `(unexpected status 403 Forbidden: <html>blocked</html>)`, `(unexpected status 403 Forbidden: {\"error\":{\"code\":\"invalid_api_key\"}})`, `(unexpected status 401 Unauthorized: no)`
	for text, ends := range map[string]bool{bare: false, named: true, wrong: true} {
		got := playRecorded(Codex(), outputOf(`{"type":"thread.started","thread_id":"t"}`, `{"type":"error","message":"Reconnecting... 1/5 `+text+`"}`), 1)
		require.Equal(t, ends, got.said.end != nil, text)
		require.Empty(t, got.retries, "the manager would end the task")
	}
	got := playRecorded(Codex(), outputOf(`{"type":"error","message":"Reconnecting... 1/5 `+bare+`"}`, item("completed", "1", "fine"), codexDone), 0)
	require.NoError(t, got.err)
	got = playRecorded(Codex(), outputOf(`{"type":"thread.started","thread_id":"t"}`, `{"type":"turn.failed","error":{"message":"unexpected status 403 Forbidden: no"}}`), 1)
	require.Equal(t, &bgagent.ProviderError{Kind: authentication, Status: 403, Tries: 1, Scope: allModels, Next: goOn, Message: "unexpected status 403 Forbidden: no"}, got.failure)
}
