package embedded_test

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/inproc"
	bgnats "github.com/bgagent/bgagent/nats"
)

// tokenOf returns the owner's token in a process's store.
func tokenOf(t *testing.T, nc *nats.Conn, process string) string {
	t.Helper()
	js, err := nc.JetStream()
	require.NoError(t, err)
	msg, err := js.GetLastMsg("BGAGENT_bgagent_"+process, "bgagent.bgagent_"+process+".m")
	require.NoError(t, err)
	var m struct {
		Token string `json:"token"`
	}
	require.NoError(t, json.Unmarshal(msg.Data, &m))
	return m.Token
}

func TestTheNumberOfEndedTasksOfAListIsLimited(t *testing.T) {
	s := listening(t, func(*server.Options) {})
	one, two := joined(t, s.URL(), bgnats.ClusterOptions{Process: "one"}), joined(t, s.URL(), bgnats.ClusterOptions{Process: "two"})
	m := managerOf(t, one, map[string]inproc.Agent{"slow": waits})
	require.NoError(t, one.Serve(m))
	_, err := m.Launch(t.Context(), bgagent.Caller{Session: "s"}, bgagent.LaunchInput{Agent: "slow", Prompt: "wait"})
	require.NoError(t, err)
	kept := joined(t, s.URL(), bgnats.ClusterOptions{Process: "kept"}).Store
	open(t, kept, 1)
	t.Cleanup(func() { require.NoError(t, kept.Close()) })
	b := &bgagent.StoreBatch{Number: 1}
	for i := range 1005 {
		b.Records = append(b.Records, ended(fmt.Sprint("t", i), time.Now()))
	}
	write(t, kept, b)

	for _, n := range []int{-1, math.MinInt, math.MaxInt} {
		p := ofProcess(t, two, "one", n)
		require.NoError(t, p.Err)
		require.Len(t, p.Tasks, 1)
	}
	nc, err := nats.Connect(s.URL())
	require.NoError(t, err)
	defer nc.Close()
	for _, n := range []int{-1, math.MinInt, math.MaxInt} {
		answer, err := nc.Request(fmt.Sprintf("bgagent.bgagent_one.ask.%s.tasks", tokenOf(t, nc, "one")), fmt.Appendf(nil, `{"ended":%d}`, n), 30*time.Second)
		require.NoError(t, err)
		require.NotContains(t, string(answer.Data), "error")
	}
	require.Empty(t, ofProcess(t, two, "kept", -1).Tasks)
	p := ofProcess(t, two, "kept", math.MaxInt)
	require.True(t, p.More)
	require.Equal(t, 1000, strings.Count(p.Err.Error(), "the key is not the id of a task"), "the records that were read")
}

func TestAnAnswerThatIsTooLongIsNotRead(t *testing.T) {
	s := listening(t, func(*server.Options) {})
	one, two := joined(t, s.URL(), bgnats.ClusterOptions{Process: "one"}), joined(t, s.URL(), bgnats.ClusterOptions{Process: "two"})
	open(t, one.Store, 1)
	t.Cleanup(func() { require.NoError(t, one.Store.Close()) })
	write(t, one.Store, &bgagent.StoreBatch{Number: 1, Records: []bgagent.StoreRecord{task("a")}})
	nc, err := nats.Connect(s.URL())
	require.NoError(t, err)
	defer nc.Close()
	_, err = nc.Subscribe(fmt.Sprintf("bgagent.bgagent_one.ask.%s.read", tokenOf(t, nc, "one")), func(q *nats.Msg) {
		for i := range 80 {
			m := nats.NewMsg(q.Reply)
			m.Header.Set("Bgagent-Piece", fmt.Sprintf("%d 81", i))
			m.Data = make([]byte, 1<<20-100)
			_ = nc.PublishMsg(m) // if this fails, the test times out
		}
	})
	require.NoError(t, err)
	require.NoError(t, nc.Flush())
	_, _, err = two.Read(t.Context(), "a")
	require.ErrorIs(t, err, bgnats.ErrUnanswered)
	require.ErrorContains(t, err, "more than 67108864 bytes")
}
