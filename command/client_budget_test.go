package command

import (
	"testing"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

func TestProgramsSayWhatTheyReport(t *testing.T) {
	c, err := New(Config{Agents: map[string]Agent{
		"codex": {Program: Codex()}, "gemini": {Program: Gemini()}, "claude": {Program: Claude()}, "opencode": {Program: Opencode()},
		"text": {Program: Text("cat")}, "lines": {Program: Lines("cat")},
	}})
	require.NoError(t, err)
	for agent, want := range map[string][2]bool{ // whether the cost and the tokens are reported
		"codex": {false, true}, "gemini": {false, true}, "claude": {true, true}, "opencode": {true, true},
		"text": {false, false}, "lines": {true, true}, "unknown": {true, true},
	} {
		require.Equal(t, want, [2]bool{c.ReportsCost(agent), c.ReportsTokens(agent)}, agent)
	}
}

// If a program prints usage together with the end of the turn, the usage does not
// change how the turn ends.
func TestUsageOfTheLineThatEndsTheTurnBelongsToTheEnd(t *testing.T) {
	for name, c := range map[string]struct {
		decode func() Decoder
		out    string
	}{
		"codex":    {decodeCodex, `{"type":"turn.completed","usage":{"input_tokens":10,"output_tokens":5}}`},
		"gemini":   {decodeGemini, `{"type":"result","status":"success","stats":{"input_tokens":10,"output_tokens":5}}`},
		"opencode": {decodeOpencode, `{"type":"step_finish","part":{"id":"p1","reason":"stop","tokens":{"input":10,"output":5}}}`},
	} {
		said, heard := decodeAllSplit(c.decode(), c.out)
		require.Equal(t, int64(10), said.used.InputTokens, name)
		require.Zero(t, heard.usage, name)
	}
	said, heard := decodeAllSplit(decodeOpencode(), `{"type":"step_finish","part":{"id":"p1","reason":"tool-calls","tokens":{"input":10,"output":5}}}`)
	require.Zero(t, said.used)
	require.Equal(t, int64(10), heard.usage.InputTokens, "another step follows")
}

// decodeAllSplit decodes one line and reports its usage as readObjects does.
func decodeAllSplit(decode Decoder, line string) (said, told) {
	var heard told
	o := newOutput(bgagent.NewReporter(heard.take), 1, bgagent.Usage{})
	decode([]byte(line), o)
	o.reportUsage()
	return o.said(), heard
}
