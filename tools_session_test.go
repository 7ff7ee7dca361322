package bgagent_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

func TestFullSession(t *testing.T) {
	bubble(t, &goRunner{run: echo}, bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
		task := job(t, m, "now")
		synctest.Wait()
		r := output(t, m, bgagent.BackgroundOutputArgs{TaskID: task.ID, FullSession: true})
		require.True(t, r.IsError)
		require.Contains(t, r.Text, "cannot be read")

		f := newServer()
		f.started = func(session string, p bgagent.Prompt) {
			for _, s := range []string{"one", "two", "three", "four"} {
				f.put(session, bgagent.Message{ID: "msg_" + s, Text: "text " + s, Finished: true})
			}
			f.put(session, bgagent.Message{ID: "msg_end", Text: strings.Repeat("long ", 10_000), Finished: true, Stop: bgagent.StopEndOfTurn})
			f.set(session, bgagent.SessionIdle)
		}
		m = manage(t, f, bgagent.Config{})
		id := job(t, m, "read").ID
		ended(t, m, id)
		read := func(a bgagent.BackgroundOutputArgs) string {
			a.TaskID, a.FullSession = id, a.SinceMessageID == ""
			r := output(t, m, a)
			require.False(t, r.IsError, r.Text)
			return r.Text
		}
		s := read(bgagent.BackgroundOutputArgs{MessageLimit: 2})
		require.Contains(t, s, "Messages: 1 to 2 of 6")
		require.Contains(t, s, `since_message_id="msg_one")`)
		require.NotContains(t, s, "text two")
		s = read(bgagent.BackgroundOutputArgs{SinceMessageID: "msg_one", MessageLimit: 2})
		require.Contains(t, s, "Messages: 3 to 4 of 6")
		require.Contains(t, s, "text three")
		s = read(bgagent.BackgroundOutputArgs{FromEnd: true, MessageLimit: 2})
		require.Contains(t, s, "of 6")
		require.Contains(t, s, "### Message 6 (agent, only its end)")
		s = read(bgagent.BackgroundOutputArgs{SinceMessageID: "msg_end"})
		require.Contains(t, s, "Messages: none new of 6")
		s = read(bgagent.BackgroundOutputArgs{SinceMessageID: "msg_four"})
		require.Contains(t, s, `To read on in message 6: background_output(task_id="`+id+`", full_session=true, since_message_id="msg_four", message_limit=1, offset=`)
		s = read(bgagent.BackgroundOutputArgs{SinceMessageID: "msg_four", Offset: 49_990})
		require.Contains(t, s, "```\nlong long \n```")
		bad := output(t, m, bgagent.BackgroundOutputArgs{TaskID: id, SinceMessageID: "msg_nope"})
		require.True(t, bad.IsError)
		require.Contains(t, bad.Text, "The session has no message `msg_nope`")
		f.do(func() { f.readErr = bgagent.ErrNoSession })
		bad = output(t, m, bgagent.BackgroundOutputArgs{TaskID: id, FullSession: true})
		require.True(t, bad.IsError)
		require.Contains(t, bad.Text, "does not exist any more, so its messages cannot be read")
		f.do(func() { f.readErr = errors.New("the server\nis down") })
		bad = output(t, m, bgagent.BackgroundOutputArgs{TaskID: id, FullSession: true})
		require.True(t, bad.IsError)
		require.Contains(t, bad.Text, "the server is down")
	})
}
