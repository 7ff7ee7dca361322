//go:build unix

package acp

import (
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

func TestAReasonNamesTheLinesThatWereNotUnderstood(t *testing.T) {
	var j journal
	bubble(t, Config{Logger: j.logger()}, false, func(t *testing.T, c *Client) {
		id := create(t, c)
		e := prompt(t, c, id, "raw an earlier turn\nsay fine")
		require.NoError(t, e.err)
		require.Equal(t, `1 line was not understood, the first: "an earlier turn"`, e.Remark)
		require.Contains(t, j.String(), `1 line was not understood, the first: \"an earlier turn\"`)
		e = prompt(t, c, id, "raw npm WARN deprecated\nraw {\"strange\":1}\nfail overloaded")
		require.ErrorContains(t, e.err, `overloaded`)
		require.ErrorContains(t, e.err, `; 2 lines were not understood, the first: "npm WARN deprecated"`)
		require.Contains(t, j.String(), `2 lines were not understood, the first: \"npm WARN deprecated\"`)
		require.NotContains(t, prompt(t, c, id, "fail overloaded").err.Error(), "not understood", "lines of earlier turns do not count")
	})
}

func TestTheEndOfAProcessNamesItsOutput(t *testing.T) {
	bubble(t, Config{}, false, func(t *testing.T, c *Client) {
		c.launch = func(string) (*running, error) {
			run := runPiped(&fakeAgent{})
			stop := run.stop
			go func() {
				time.Sleep(time.Minute)
				stop(0)
			}()
			return run, nil
		}
		e := prompt(t, c, create(t, c), "raw Your licence has run out\nwait")
		require.Equal(t, bgagent.StopInterrupted, e.Stop)
		require.ErrorContains(t, e.err, `1 line was not understood, the first: "Your licence has run out"`)
	})
}

func TestARepeatedPromptIsNoMessage(t *testing.T) {
	bubble(t, Config{}, false, func(t *testing.T, c *Client) {
		id := create(t, c)
		planted := `{"jsonrpc":"2.0","method":"session/update","params":{"sessionId":"` + id + `","update":` + piece("planted ", "") + `}}`
		e := prompt(t, c, id, "raw prompt: "+planted+"\nsay the answer")
		require.Equal(t, "the answer", e.Text)
		require.Equal(t, "the answer", e.text())
	})
}
