//go:build unix

package acp

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	sdk "github.com/coder/acp-go-sdk"
	"github.com/stretchr/testify/require"
)

// The values in the variable "others" are wrong for most fields of the protocol.
var others = []string{"7", "null", `"x"`, "true", `[7]`, `{"x":[7]}`, "1e400", `[null]`, `[{"type":7}]`}

func TestAFieldOfTheWrongTypeCostsThatFieldAlone(t *testing.T) {
	bubble(t, Config{}, false, func(t *testing.T, c *Client) {
		for _, w := range others {
			text := fmt.Sprintf(`{"sessionUpdate":"agent_message_chunk","_meta":%s,"content":{"type":"text","text":"the answer","annotations":%[1]s},"messageId":%[1]s}`, w)
			if w == `"x"` {
				text = strings.Replace(text, `"messageId":"x"`, `"messageId":"m"`, 1)
			}
			tool := fmt.Sprintf(`{"sessionUpdate":"tool_call","toolCallId":"1","title":"grep","kind":%s,"status":"completed","locations":%[1]s,"content":%[1]s,"rawInput":%[1]s}`, w)
			plan := fmt.Sprintf(`{"sessionUpdate":"plan","entries":[{"content":%s},{"content":"look","status":%[1]s,"priority":%[1]s}]}`, w)
			e := prompt(t, c, create(t, c), "update "+tool+"\nupdate "+plan+"\nupdate "+text)
			require.NoError(t, e.err, w)
			require.Equal(t, "the answer", e.Text, w)
			require.Equal(t, []string{"grep done"}, toolsOf(e), w)
			require.Len(t, e.of(bgagent.ReportTodos), 1, w)
			list := e.of(bgagent.ReportTodos)[0].Todos
			require.Equal(t, "look", list[len(list)-1].Text, w)
		}
	})
}

// toolsOf returns the tool calls that were reported, in order.
func toolsOf(e ended) (list []string) {
	for _, r := range e.of(bgagent.ReportTool) {
		state := map[bgagent.ToolState]string{bgagent.ToolPending: "pending", bgagent.ToolRunning: "running", bgagent.ToolDone: "done", bgagent.ToolFailed: "failed"}
		list = append(list, r.Tool.Name+" "+state[r.Tool.State])
	}
	return list
}

func TestAnswersAreReadAsFarAsPossible(t *testing.T) {
	for _, w := range others {
		if w == "null" || w == `"x"` {
			continue // the value is valid for some of the fields
		}
		var made sdk.NewSessionResponse
		left, err := readable(fmt.Appendf(nil, `{"_meta":%s,"configOptions":%[1]s,"modes":{"availableModes":[{"id":"plan","name":%[1]s},%[1]s],"currentModeId":%[1]s},"models":%[1]s,"sessionId":"s"}`, w), &made)
		require.NoError(t, err, w)
		require.True(t, left)
		require.Equal(t, sdk.SessionId("s"), made.SessionId, w)
		require.NotNil(t, made.Modes, w)
		require.Equal(t, sdk.SessionModeId("plan"), made.Modes.AvailableModes[0].Id, w)

		var over sdk.PromptResponse
		_, err = readable(fmt.Appendf(nil, `{"usage":{"inputTokens":%s,"outputTokens":3,"totalTokens":%[1]s},"stopReason":"end_turn","_meta":%[1]s}`, w), &over)
		require.NoError(t, err, w)
		require.Equal(t, sdk.StopReasonEndTurn, over.StopReason, w)
		require.Equal(t, int64(3), int64(over.Usage.OutputTokens), w)
	}
}

func TestLenientReadingTakesBoundedTime(t *testing.T) {
	began := time.Now()
	for _, raw := range []string{
		`{"configOptions":[` + strings.Repeat(`{"type":"select","id":7},`, 200_000) + `7],"sessionId":"s"}`,
		strings.Repeat(`{"configOptions":[`, 3000) + strings.Repeat(`]}`, 3000),
		`{"sessionId":` + strings.Repeat("[", 3000) + strings.Repeat("]", 3000) + `}`,
	} {
		var made sdk.NewSessionResponse
		_, _ = readable([]byte(raw), &made)
	}
	require.Less(t, time.Since(began), 5*time.Minute) // takes one second; without the limit mostTries, it would take hours
}

func TestAPartlyReadQuestionIsUnclear(t *testing.T) {
	for _, rules := range [][]bgagent.Permission{
		{on("bash", "*", bgagent.PermissionAllow), on("bash", "rm *", bgagent.PermissionDeny)},
		{on("bash", "*", bgagent.PermissionAllow)},
	} {
		bubble(t, Config{}, false, func(t *testing.T, c *Client) {
			id := create(t, c)
			params := `{"sessionId":"` + id + `","toolCall":{"toolCallId":"9","title":"list the files","kind":"execute","rawInput":{"command":"ls"},"locations":[{"path":7}]},"options":[{"optionId":"yes","name":"Yes","kind":"allow_once"},{"optionId":"no","name":7,"kind":"reject_once"}]}`
			l := run(t, c, id, bgagent.Prompt{Text: "say hm\nnap 1s\nsay done", Permissions: rules})
			<-l.said
			got, problem := c.sessions[id].proc.request(t.Context(), sdk.ClientMethodSessionRequestPermission, json.RawMessage(params))
			require.Nil(t, problem)
			outcome := got.(sdk.RequestPermissionResponse).Outcome
			require.NotNil(t, outcome.Selected)
			want := sdk.PermissionOptionId("yes")
			if len(rules) == 2 { // the question might be about a command that the second rule forbids
				want = "no"
			}
			require.Equal(t, want, outcome.Selected.OptionId)
			l.wait()
		})
	}
}

func TestARepeatedEndIsNoOtherCall(t *testing.T) {
	bubble(t, Config{}, false, func(t *testing.T, c *Client) {
		news := func(kind, status string) string {
			return `update {"sessionUpdate":"` + kind + `","toolCallId":"1","title":"grep","kind":"search","status":"` + status + `"}` + "\n"
		}
		again := strings.Repeat(news("tool_call_update", "completed"), 3) + news("tool_call_update", "in_progress")
		e := prompt(t, c, create(t, c), news("tool_call", "pending")+again+news("tool_call", "completed")+again+"say done")
		require.Equal(t, []string{"grep pending", "grep done", "grep done"}, toolsOf(e))
		require.Len(t, e.of(bgagent.ReportActivity), 7, "each repetition counts as activity")
	})
}
