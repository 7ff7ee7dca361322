//go:build linux

package embedded_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/inproc"
	bgnats "github.com/bgagent/bgagent/nats"
)

const childCanceller = "BGAGENT_NATS_TEST_CANCELLER" // makes the process launch and cancel tasks; the value is a workerPlan

func init() { roles[childCanceller] = runCanceller }

// runCanceller joins a cluster and carries out the orders that it reads: "launch" with the prompt of a task,
// and "cancel" with the id of a task in any process. A body ends only when it is cancelled.
func runCanceller(text string) error {
	var p workerPlan
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		return err
	}
	ctx := context.Background()
	c, err := bgnats.Join(ctx, p.URL, bgnats.ClusterOptions{Process: p.Name, Lease: worldLease})
	if err != nil {
		return err
	}
	client := inproc.New(map[string]inproc.Agent{"waits": func(ctx context.Context, turn *inproc.Turn) (string, error) {
		report("begun", turn.Prompt.Text)
		<-ctx.Done()
		report("told", turn.Prompt.Text, time.Now().UnixNano())
		return "", ctx.Err()
	}})
	m, err := newManager(time.Minute, client, bgagent.Config{Slots: c.Slots, Store: c.Store, Wake: bgagent.WakeNever}) // New fails while the servers have no leader
	if err != nil {
		return err
	}
	if err := c.Serve(m); err != nil {
		return err
	}
	report("ready")
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		switch what, arg, _ := strings.Cut(in.Text(), " "); what {
		case "launch":
			t, err := m.Launch(ctx, bgagent.Caller{}, bgagent.LaunchInput{Agent: "waits", Prompt: arg})
			report("launched", t.ID, err)
		case "cancel":
			at := time.Now().UnixNano()
			_, err := c.Cancel(ctx, arg, "")
			report("cancelled", at, err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return errors.Join(m.Close(ctx), c.Close(ctx))
}

// The method "three" starts three processes with the role, and waits until they are ready.
func (w *world) three(role string) (all []*life) {
	w.t.Helper()
	for _, name := range []string{"one", "two", "three"} {
		all = append(all, w.spawn(name, role, workerPlan{URL: w.url, Name: name}))
	}
	for _, l := range all {
		w.until(l.name+" is ready", func() bool { return w.log.said(l, "ready") })
	}
	return all
}

// tell sends a line to the process. It then waits until the process writes a line whose first word is the
// value of answer, and returns the words of that line.
func (w *world) tell(l *life, line, answer string) (words []string) {
	w.t.Helper()
	n := len(w.log.all())
	_, err := fmt.Fprintln(l.in, line)
	require.NoError(w.t, err)
	w.until(l.name+" has answered "+line, func() bool {
		for _, x := range w.log.all()[n:] {
			if x.by == l && x.words[0] == answer {
				words = x.words
				return true
			}
		}
		return false
	})
	return words
}

// TestACancelFromAnotherProcessReachesTheBodySoon measures the time from the call to Cancel in one
// operating-system process to the end of the body's context in another process. The processes take turns.
func TestACancelFromAnotherProcessReachesTheBodySoon(t *testing.T) {
	t.Parallel()
	n, most := 30, 2*time.Second // the bound is generous, because test machines can be busy
	if *faults > 0 {
		n, most = max(200, 20**faults), 15*time.Millisecond
	}
	w := newWorld(t, "127.0.0.1", here, workerPlan{})
	all := w.three(childCanceller)
	took := make([]time.Duration, n)
	for i := range took {
		has, cancels := all[i%3], all[(i+1+i/3%2)%3]
		prompt := strconv.Itoa(i)
		launched := w.tell(has, "launch "+prompt, "launched")
		require.Equal(t, "<nil>", launched[2], "%v", launched)
		w.until("the body has begun", func() bool { return w.log.last(has, "begun") == prompt })
		cancelled := w.tell(cancels, "cancel "+launched[1], "cancelled")
		require.Equal(t, "<nil>", cancelled[2], "%v", cancelled)
		var told []string
		w.until("the body is told", func() bool {
			for _, x := range w.log.all() {
				if x.by == has && x.words[0] == "told" && x.words[1] == prompt {
					told = x.words
				}
			}
			return told != nil
		})
		from, err := strconv.ParseInt(cancelled[1], 10, 64)
		require.NoError(t, err)
		to, err := strconv.ParseInt(told[2], 10, 64)
		require.NoError(t, err)
		took[i] = time.Duration(to - from)
		require.Positive(t, took[i], "the body was told before the call")
	}
	slices.Sort(took)
	p50, p99 := took[n/2], took[n*99/100]
	t.Logf("from the call of Cancel in one process to the end of the body's context in another: median %v, 99th percentile %v, maximum %v of %d", p50, p99, took[n-1], n)
	require.Less(t, p50, most)
}
