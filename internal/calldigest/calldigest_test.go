package calldigest_test

import (
	"testing"

	"github.com/bgagent/bgagent/internal/calldigest"
	"github.com/stretchr/testify/require"
)

func TestInputsAreEqualIfTheyAreTheSameJSON(t *testing.T) {
	want := calldigest.Input([]byte(`{"command": "ls", "n": 1}`))
	require.NotZero(t, want)
	require.Equal(t, want, calldigest.Input([]byte(`{"n":1,"command":"ls"}`)))
	for _, other := range []string{`{"command": "ls"}`, `{"command": "ls", "n": 2}`, `{"command": "ls", "n": "1"}`, `["ls", 1]`, `{}`, `""`} {
		require.NotZero(t, calldigest.Input([]byte(other)))
		require.NotEqual(t, want, calldigest.Input([]byte(other)), other)
	}
	require.NotEqual(t, calldigest.Input([]byte(`9007199254740993`)), calldigest.Input([]byte(`9007199254740992`)))
	for _, unknown := range []string{``, `null`, `{`, `ls`} {
		require.Zero(t, calldigest.Input([]byte(unknown)), unknown)
		require.Zero(t, calldigest.Result([]byte(unknown), "0"), unknown)
	}
}

func TestTheNameOfTheFileWithTheWholeResultDoesNotCount(t *testing.T) {
	for _, c := range []struct {
		one, two string
		same     bool
	}{
		{`"<persisted-output>\nOutput too large (164.9KB). Full output saved to: /a/b1.txt\n\nPreview (first 2KB):\n1"`, `"<persisted-output>\nOutput too large (164.9KB). Full output saved to: /a/c2.txt\n\nPreview (first 2KB):\n1"`, true},
		{`"<persisted-output>\nFull output saved to: /a/b1.txt\n\n1"`, `"<persisted-output>\nFull output saved to: /a/c2.txt\n\n2"`, false},
		{`"...output truncated...\n\nFull output saved to: /t/1\n\n9"`, `"...output truncated...\n\nFull output saved to: /t/2\n\n9"`, true},
		{`"1\n\n...5 bytes truncated...\n\nThe tool call succeeded but the output was truncated. Full output saved to: /t/1"`, `"1\n\n...5 bytes truncated...\n\nThe tool call succeeded but the output was truncated. Full output saved to: /t/2"`, true},
		{`"Full output saved to: /t/1"`, `"Full output saved to: /t/2"`, false},
		{`[{"type": "text", "text": "<persisted-output>\nFull output saved to: /1"}]`, `[{"text": "<persisted-output>\nFull output saved to: /2", "type": "text"}]`, true},
		{`{"output": "x", "metadata": {"outputPath": "/1", "exit": 0}}`, `{"output": "x", "metadata": {"outputPath": "/2", "exit": 0}}`, true},
		{`{"output": "x", "metadata": {"outputPath": "/1", "exit": 0}}`, `{"output": "x", "metadata": {"outputPath": "/1", "exit": 1}}`, false},
		{`""`, `" "`, false},
	} {
		one, two := calldigest.Result([]byte(c.one)), calldigest.Result([]byte(c.two))
		require.NotZero(t, one)
		require.Equal(t, c.same, one == two, "%s\n%s", c.one, c.two)
	}
	require.NotEqual(t, calldigest.Result([]byte(`"x"`), "0"), calldigest.Result([]byte(`"x"`), "1"))
}
