//go:build linux

package killed

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bgagent/bgagent/internal/kills"
	"github.com/bgagent/bgagent/internal/modelserver"
	"github.com/bgagent/bgagent/internal/realagent"
	"github.com/bgagent/bgagent/sqlite"
	"github.com/stretchr/testify/require"
)

var (
	killCount = flag.Int("kills", 2, "number of processes that are killed for each program")
	killSeed  = flag.Uint64("kills.seed", 0, "seed of the moments at which processes are killed; 0 for a random one")
)

// TestNoKillLosesOrRepeatsWorkOfRealPrograms starts a process with 50 live tasks, which run in a real
// program, and kills the process with SIGKILL at a random moment. Then it starts the process again on
// the same store, kills it again, and so on. Finally, it lets a process finish the tasks, and judges
// the results from outside. Then it begins again with a new store.
func TestNoKillLosesOrRepeatsWorkOfRealPrograms(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			seed := *killSeed
			if seed == 0 {
				seed = rand.Uint64()
			}
			t.Logf("-kills.seed %d", seed)
			c := &campaign{T: t, kind: k, rnd: rand.New(rand.NewPCG(seed, 0)), w: realagent.New(t, k.program)}
			c.w.Model.Handle(k.reply)
			if k.server {
				c.server = c.w.ServeOpencode(t)
			}
			var all kills.Figures
			done, stores := 0, 0
			for ; done < *killCount && !t.Failed(); stores++ {
				n := min(1+c.rnd.IntN(6), *killCount-done)
				wrong, figures := judge(c.store(fmt.Sprintf("s%d", stores), n))
				for _, w := range wrong {
					t.Errorf("store %d, %d kills: %s", stores, n, w)
				}
				all.Add(figures)
				done += n
				t.Logf("%d kills of processes on %d stores. %s", done, stores+1, all.Describe("requests to the model"))
			}
		})
	}
}

// A campaign kills processes whose tasks run in one program.
type campaign struct {
	*testing.T
	kind
	rnd    *rand.Rand
	w      *realagent.World
	server *realagent.OpencodeServer // nil if the program has no server
}

// The method "store" kills n processes on a new store, lets another process finish the tasks, and returns the
// evidence. The names of the conversations begin with the given name.
func (c *campaign) store(of string, n int) (e evidence) {
	url := ""
	if c.server != nil {
		url = c.server.URL
	}
	agent, err := json.Marshal(c.settings(c.w, url))
	require.NoError(c, err)
	o := kills.Order{Dir: c.TempDir(), Kind: of, More: agent, Env: c.w.Env}
	for o.Life = 1; o.Life <= n; o.Life++ {
		o.Seed = c.rnd.Uint64()
		require.NoError(c, o.Kill(c.Context(), 1<<30, func(ctx context.Context) { c.moment(ctx, of) }))
		e.kills = append(e.kills, time.Now())
		if c.with {
			c.server.Restart()
		}
	}
	o.Seed = c.rnd.Uint64()
	require.NoError(c, o.Finish(c.Context()))
	e.left, e.intact, e.unclear = c.left(), c.kind.server && !c.with, c.unclear
	e.lines, err = kills.ReadLog(o.Dir)
	require.NoError(c, err)
	r, err := sqlite.OpenReader(filepath.Join(o.Dir, "store"))
	require.NoError(c, err)
	defer r.Close()
	e.found, err = kills.Read(c.Context(), r)
	require.NoError(c, err)
	for _, r := range c.requests(of) {
		e.requests = append(e.requests, seen(of, r))
	}
	return e
}

// The method "moment" waits for a random moment: some time after a number of requests, or after the start.
func (c *campaign) moment(ctx context.Context, of string) {
	if c.rnd.IntN(5) == 0 {
		kills.Sleep(ctx, time.Duration(c.rnd.Int64N(int64(3*time.Second))))
		return
	}
	until := len(c.requests(of)) + 1 + c.rnd.IntN(12)
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := c.w.Model.WaitFor(ctx, func([]modelserver.Request) bool { return len(c.requests(of)) >= until }); err != nil {
		c.Errorf("%v", err)
	}
	kills.Sleep(ctx, time.Duration(c.rnd.Int64N(int64(400*time.Millisecond))))
}

// The method "requests" returns the requests of the agents' turns.
func (c *campaign) requests(of string) (list []modelserver.Request) {
	for _, r := range c.w.Model.Requests() {
		if r.Kind == modelserver.Main && strings.HasPrefix(r.Key, of+"-") {
			list = append(list, r)
		}
	}
	return list
}

// The function "seen" returns the facts about a request that the judge needs.
func seen(of string, r modelserver.Request) request {
	name := "task " + strings.TrimPrefix(r.Key, of+"-")
	x := request{task: name, from: r.Arrived, to: r.Ended, left: r.Left, fresh: true}
	if !r.Done {
		x.to = time.Now()
	}
	for _, m := range r.Messages {
		switch {
		case m.Role == modelserver.Assistant:
			x.fresh = false
		case m.Role == modelserver.User && strings.Contains(m.Text, "The request was:"):
			x.fresh = false // the prompt continues a turn, and repeats the task
		case m.Role == modelserver.User:
			x.prompts += strings.Count(m.Text, prompt(of, name))
		}
	}
	return x
}

// The method "left" waits until all agent programs except the server have ended. It returns those that are
// still running after ten seconds.
func (c *campaign) left() (lines []string) {
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		lines = nil
		for _, p := range c.w.Processes() {
			if c.server == nil || !strings.Contains(p, " serve --hostname ") {
				lines = append(lines, p)
			}
		}
		if len(lines) == 0 || time.Now().After(end) {
			return lines
		}
	}
}
