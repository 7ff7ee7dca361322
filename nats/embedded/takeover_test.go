package embedded_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/race"
	bgnats "github.com/bgagent/bgagent/nats"
)

func serverOf(t *testing.T) string {
	t.Helper()
	return listening(t, func(*server.Options) {}).URL()
}

// The time bound is longer if the killed process is the allocator, because another allocator must be
// elected before a turn begins. Test machines can be busy, so the test is repeated if it exceeds the bound.
func TestTheTasksOfAKilledProcessGoOnInAnotherWithTheSameHome(t *testing.T) {
	for _, test := range []struct {
		name      string
		allocator bool
		bound     time.Duration
	}{{"a process", false, 3 * time.Second}, {"the allocator", true, 5 * time.Second}} {
		t.Run(test.name, func(t *testing.T) {
			took := killOne(t, test.allocator)
			for try := 1; took > test.bound && try < 3 && !race.Enabled; try++ {
				took = killOne(t, test.allocator)
			}
			if !race.Enabled {
				bound(t, took, test.bound)
			}
		})
	}
}

// killOne kills one of three processes that can take over each other's tasks. It returns how long it
// took until another process continued the tasks of the killed process.
func killOne(t *testing.T, allocator bool) time.Duration {
	g, reader := newGroup(t, 2*time.Second)
	until(t, reader.Slots.IsAllocator)
	x := g.start("x", "home")
	if allocator {
		require.NoError(t, reader.Close(t.Context()))
		until(t, func() bool {
			fmt.Fprintln(x.in, "allocator")
			return len(g.all("allocator", "true")) > 0
		})
		reader = g.reader("second")
	}
	g.start("y", "home")
	g.start("z", "home")
	g.start("other", "elsewhere")
	names := g.launch(x, "t", 12, 400*time.Millisecond)
	until(t, func() bool { return g.begun("x", names) > 5 })
	g.kill(x, "x")
	killed := time.Now()
	until(t, func() bool { return g.begun("y", names)+g.begun("z", names) > 0 })
	took := time.Since(killed)
	t.Log("a task goes on after", took)
	stop := keepReading(t, reader, g.task(names[0])) // this task has ended, so only the store contains it
	g.requireEnds(reader, names)
	g.requireOneBodyEach()
	until(t, func() bool { return ofProcess(t, reader, "x", 0).TakenBy == "" }) // process x has no unfinished tasks, so the process that took over its tasks closes its store
	require.NoError(t, stop())
	require.Len(t, g.all("took"), 1)
	require.Zero(t, g.begun("other", names), "its home is another one")
	return took
}

// keepReading reads a task repeatedly until the returned function is called. That function returns an error
// if a read has failed.
func keepReading(t *testing.T, c *bgnats.Cluster, id string) (stop func() error) {
	ctx, cancel := context.WithCancel(t.Context())
	const readers = 4
	done := make(chan error, readers)
	for range readers {
		go func() {
			for {
				_, _, err := c.Read(ctx, id)
				switch {
				case ctx.Err() != nil:
					done <- nil
					return
				case err != nil:
					done <- err
					return
				}
			}
		}()
	}
	return func() (err error) {
		cancel()
		for range readers {
			err = errors.Join(err, <-done)
		}
		return err
	}
}

func TestTasksThatWereTakenOverAreFoundAndGivenBackToTheirProcess(t *testing.T) {
	t.Parallel()
	g, reader := newGroup(t, memberLease)
	x := g.start("x", "home")
	g.start("y", "home")
	names := g.launch(x, "t", 4, 3*time.Second)
	until(t, func() bool { return g.begun("x", names) == 4 })
	g.kill(x, "x")
	until(t, func() bool { return g.begun("y", names) == 4 })
	p := ofProcess(t, reader, "x", 0)
	require.True(t, p.Lives)
	require.Equal(t, "y", p.TakenBy)
	require.Len(t, p.Tasks, 4)
	unneeded := names[3]
	got, by, err := reader.Read(t.Context(), g.task(unneeded))
	require.NoError(t, err)
	require.Equal(t, bgagent.Running, got.Status)
	require.Equal(t, "x", by.Name)
	require.Equal(t, "y", by.TakenBy)
	require.True(t, by.Lives)
	_, err = reader.Cancel(t.Context(), got.ID, "not needed")
	require.NoError(t, err)
	require.Equal(t, "y", g.await("stopped", unneeded).process)
	names = names[:3]

	began := time.Now()
	g.start("x", "home")
	require.Less(t, time.Since(began), 10*time.Second, "it need not wait for the end of the tasks")
	require.Len(t, g.all("stopped"), 4)
	g.requireEnds(reader, names)
	g.requireOneBodyEach()
	for _, name := range names {
		got, by, err := reader.Read(t.Context(), g.task(name))
		require.NoError(t, err)
		require.Equal(t, name+" by x", got.Result)
		require.Equal(t, "x", by.Name)
		require.Empty(t, by.TakenBy)
	}
	got, _, err = reader.Read(t.Context(), g.task(unneeded))
	require.NoError(t, err)
	require.Equal(t, bgagent.Cancelled, got.Status)
}

func TestTasksThatWereTakenOverAreTakenOverAgain(t *testing.T) {
	t.Parallel()
	g, reader := newGroup(t, memberLease)
	x, y := g.start("x", "home"), g.start("y", "home")
	xs, ys := g.launch(x, "x", 3, time.Second), g.launch(y, "y", 3, time.Second)
	until(t, func() bool { return g.begun("x", xs) > 0 })
	g.kill(x, "x")
	g.await("took", "x")
	g.start("z", "home")
	g.kill(y, "y")
	g.requireEnds(reader, append(xs, ys...))
	g.requireOneBodyEach()
	for _, process := range []string{"x", "y"} {
		taken := g.all("took", process)
		require.Equal(t, "z", taken[len(taken)-1].process)
	}
	until(t, func() bool { return ofProcess(t, reader, "x", 0).TakenBy == "" }) // process x has no unfinished tasks, so the process that took over its tasks closes its store
	require.False(t, ofProcess(t, reader, "x", 0).Lives)
}

// A process is suspended when its standard input ends.
func TestTheTasksOfASuspendedProcessAreTakenOverLater(t *testing.T) {
	t.Parallel()
	g, reader := newGroup(t, memberLease)
	x, y := g.start("x", "home"), g.start("y", "home")
	names := g.launch(x, "t", 2, 5*time.Second)
	until(t, func() bool { return g.begun("x", names) == 2 })
	require.NoError(t, x.in.Close())
	require.NoError(t, x.cmd.Wait())
	suspended := time.Now()
	took := g.await("took", "x")
	require.Greater(t, took.at.Sub(suspended), suspendedFor/2, "it might have started again")

	g.start("z", "home")
	until(t, func() bool { return g.begun("y", names) == 2 })
	require.NoError(t, y.in.Close())
	require.NoError(t, y.cmd.Wait())
	left := time.Now()
	until(t, func() bool { return g.begun("z", names) == 2 })
	require.Less(t, time.Since(left), suspendedFor-time.Second, "x did not end by itself")
	g.requireEnds(reader, names)
	g.requireOneBodyEach()
}
