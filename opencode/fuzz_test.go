package opencode_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/opencode"
)

const fuzzSession = "ses_fuzz"

// The list "recorded" contains events in the server's formats.
var recorded = []string{
	`{"payload":{"type":"server.connected","properties":{}}}`,
	`{"directory":"/w","payload":{"id":"evt_1","type":"message.updated","properties":{"sessionID":"ses_fuzz","info":{"id":"msg_1","role":"user","sessionID":"ses_fuzz","time":{"created":1},"agent":"worker"}}}}`,
	`{"directory":"/w","payload":{"type":"message.part.updated","properties":{"sessionID":"ses_fuzz","part":{"id":"prt_1","type":"text","text":"@say hi","metadata":{"bgagent":"bgp_1"},"messageID":"msg_1","sessionID":"ses_fuzz"},"time":1}}}`,
	`{"payload":{"type":"session.status","properties":{"sessionID":"ses_fuzz","status":{"type":"busy"}}}}`,
	`{"payload":{"type":"message.updated","properties":{"sessionID":"ses_fuzz","info":{"id":"msg_2","parentID":"msg_1","role":"assistant","cost":0,"tokens":{"input":0,"output":0,"cache":{"read":0,"write":0}},"time":{"created":1}}}}}`,
	`{"payload":{"type":"message.part.updated","properties":{"sessionID":"ses_fuzz","part":{"id":"prt_2","messageID":"msg_2","sessionID":"ses_fuzz","type":"text","text":""}}}}`,
	`{"payload":{"type":"message.part.delta","properties":{"sessionID":"ses_fuzz","messageID":"msg_2","partID":"prt_2","field":"text","delta":"hi"}}}`,
	`{"payload":{"type":"message.part.updated","properties":{"sessionID":"ses_fuzz","part":{"id":"prt_3","messageID":"msg_2","sessionID":"ses_fuzz","type":"tool","callID":"c","tool":"bash","state":{"status":"running"}}}}}`,
	`{"payload":{"type":"message.part.removed","properties":{"sessionID":"ses_fuzz","messageID":"msg_2","partID":"prt_3"}}}`,
	`{"payload":{"type":"session.error","properties":{"sessionID":"ses_fuzz","error":{"name":"MessageAbortedError","data":{"message":"Aborted"}}}}}`,
	`{"payload":{"type":"todo.updated","properties":{"sessionID":"ses_fuzz","todos":[{"content":"a","status":"pending"}]}}}`,
	`{"payload":{"type":"permission.asked","properties":{"id":"per_1","sessionID":"ses_fuzz","permission":"bash","patterns":["x"],"metadata":{}}}}`,
	`{"payload":{"type":"permission.replied","properties":{"sessionID":"ses_fuzz","requestID":"per_1","reply":"reject"}}}`,
	`{"payload":{"type":"session.status","properties":{"sessionID":"ses_fuzz","status":{"type":"retry","attempt":1,"message":"m","next":1.5}}}}`,
	`{"payload":{"type":"message.removed","properties":{"sessionID":"ses_fuzz","messageID":"msg_2"}}}`,
	`{"payload":{"type":"session.status","properties":{"sessionID":"ses_fuzz","status":{"type":"idle"}}}}`,
	`{"type":"session.idle","properties":{"sessionID":"ses_fuzz"}}`,
	`{"payload":{"type":"session.deleted","properties":{"info":{"id":"ses_fuzz"}}}}`,
	`{"payload":{"type":"sync","syncEvent":{"type":"message.updated.1","data":{}}}}`,
	`{"payload":{"type":"server.heartbeat","properties":{}}}`,
}

// FuzzEvents reads a stream of arbitrary bytes. The client must not panic. All emitted events must
// be complete and must name a session, and all messages must belong to the client's sessions.
func FuzzEvents(f *testing.F) {
	all := ""
	for _, e := range recorded {
		f.Add([]byte("data: " + e + "\n\n"))
		all += "data: " + e + "\n\n"
	}
	f.Add([]byte(all))
	f.Add([]byte(strings.ReplaceAll(all, "\n", "\r\n")))
	f.Add([]byte(": comment\nevent: x\nid: 1\ndata:{\ndata: }\n\n"))
	refuses := &http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) {
		return answer(http.StatusNotFound, `{"name":"NotFoundError","data":{"message":"x"}}`), nil
	})}
	f.Fuzz(func(t *testing.T, stream []byte) {
		c := newClient(t, opencode.Config{HTTPClient: refuses})
		var told []bgagent.HostEvent
		fo := opencode.NewFollower(c, func(e bgagent.HostEvent) { told = append(told, e) }, fuzzSession)
		err := opencode.ReadEvents(bytes.NewReader(stream), func(data []byte) { opencode.Event(fo, t.Context(), data) })
		opencode.Down(fo)
		require.NoError(t, c.Close())
		assert.Error(t, err, "a stream always ends with an error")
		for _, e := range told {
			switch e.Kind {
			case bgagent.HostMessage:
				assert.Equal(t, fuzzSession, e.Session)
				assert.NotEmpty(t, e.Message.ID)
			case bgagent.HostStreamUp, bgagent.HostStreamBeat, bgagent.HostStreamGap:
				assert.Empty(t, e.Session)
			case bgagent.HostError:
				assert.NotEqual(t, bgagent.StopUntold, e.Stop)
				assert.NotContains(t, e.Error, "\n")
			}
		}
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// FuzzMessage decodes arbitrary messages. The client must not panic, and each message with a stop
// reason must be finished.
func FuzzMessage(f *testing.F) {
	for _, rest := range []string{`}`, `,"completed":2},"finish":"stop"`, `},"error":{"name":"APIError","data":{"message":"x"}}`, `},"summary":true`, `},"summary":{"diffs":[]}`} {
		for _, role := range []string{"user", "assistant", ""} {
			f.Add([]byte(`{"info":{"id":"msg_1","role":"` + role + `","time":{"created":1` + rest + `},"parts":[{"type":"text","text":"x","metadata":{"bgagent":"p"}},{"type":"tool","id":"prt_1","state":{"status":"running"}}]}`))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var w opencode.Decode
		if json.Unmarshal(data, &w) != nil {
			return
		}
		m := opencode.Message(&w)
		if m.Stop != bgagent.StopUntold {
			assert.True(t, m.Finished)
			assert.Equal(t, bgagent.RoleAgent, m.Role)
		}
		if m.PromptID != "" {
			assert.Equal(t, bgagent.RoleUser, m.Role)
		}
	})
}

// FuzzPages reads a session in pages of any size while its messages change. Reading from a cursor
// must always return the same messages as reading from the beginning.
func FuzzPages(f *testing.F) {
	f.Add([]byte{1, 1, 1, 0x82, 0x40, 1, 1, 0x83}, 2)
	f.Add([]byte{9, 0x80, 9, 0x81, 0x7f, 0x80, 0x40}, 1)
	f.Fuzz(func(t *testing.T, steps []byte, most int) {
		if len(steps) > 200 {
			return
		}
		most = 1 + (most&0xff)%20
		var list []bgagent.Message
		known := map[string]bgagent.Message{}
		var order []string
		var cursor bgagent.Cursor
		read := func() {
			for range 1000 {
				page, err := opencode.PageOf(cursor, append([]bgagent.Message{}, list...), most)
				require.NoError(t, err)
				require.LessOrEqual(t, len(page.Messages), most)
				for _, m := range page.Messages {
					if _, ok := known[m.ID]; !ok {
						order = append(order, m.ID)
					}
					require.NotEqual(t, known[m.ID], m, "an unchanged message was returned again")
					known[m.ID] = m
				}
				if cursor = page.Next; !page.More {
					return
				}
			}
			t.Fatal("there are always more pages")
		}
		for i, step := range steps {
			switch n := int(step & 0x3f); {
			case step&0x80 != 0: // one of the last four messages changes
				if back := n % 4; back < len(list) {
					list[len(list)-1-back].Text += fmt.Sprint(i)
				}
			case step&0x40 != 0:
				read()
			default:
				for range n {
					list = append(list, bgagent.Message{ID: fmt.Sprintf("msg_%06d", len(list)), Finished: n%3 > 0})
				}
			}
		}
		read()
		require.Len(t, order, len(list))
		for i, m := range list {
			require.Equal(t, order[i], m.ID)
			require.Equal(t, m, known[m.ID])
		}
	})
}
