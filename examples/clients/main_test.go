package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestOutput(t *testing.T) {
	var b strings.Builder
	require.NoError(t, run(t.Context(), &b))
	require.Equal(t, `explore ran on the first with model "" (client "")
librarian ran on docs with model "openai/gpt-5" (client "docs")
oracle ran on big with model "anthropic/claude-opus-4-5" (client "big")
refused: bgagent: launch: choosing the model of agent "oracle": oracle always runs on anthropic/claude-opus-4-5; leave the model out
provider anthropic: limit 3, 0 in use
provider openai: limit 2, 0 in use
`, b.String())
}
