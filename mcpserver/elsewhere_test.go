package mcpserver_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/mcpserver"
)

// far is another process, which has one task in the scope "me".
type far struct{ bgagent.Elsewhere }

const farTask = "bg_1111111111111111"

func (far) Read(_ context.Context, by bgagent.Caller, id string, _ time.Duration) (bgagent.TaskElsewhere, error) {
	if by.Session != "me" || id != farTask {
		return bgagent.TaskElsewhere{}, bgagent.ErrUnknownTask
	}
	return bgagent.TaskElsewhere{Process: "m2", Task: bgagent.Task{ID: id, Parent: "me", Root: "me", Status: bgagent.Completed, Result: "found \x1b[31mfar away"}}, nil
}

func TestAResourceOfAnotherProcessIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, s := newServer(t, mcpserver.Config{Tools: bgagent.ToolOptions{Elsewhere: far{}}})
		mine, theirs := connect(t, s, "me", nil), connect(t, s, "another", nil)
		_, out := use(t, mine, "background_output", map[string]any{"task_id": farTask})
		require.Contains(t, out.Text, "This task belongs to the process `m2`.")
		require.Equal(t, "bgagent://task/"+farTask, out.Tasks[0].URI)
		r, err := mine.ReadResource(t.Context(), &mcp.ReadResourceParams{URI: out.Tasks[0].URI})
		require.NoError(t, err)
		require.Contains(t, r.Contents[0].Text, `"found far away"`)
		_, err = theirs.ReadResource(t.Context(), &mcp.ReadResourceParams{URI: out.Tasks[0].URI})
		require.Error(t, err)
		_, out = use(t, theirs, "background_output", map[string]any{"task_id": farTask})
		require.Contains(t, out.Text, "None of your tasks has the id")
	})
}
