package embedded_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/race"
	bgnats "github.com/bgagent/bgagent/nats"
	"github.com/bgagent/bgagent/nats/embedded"
)

// task returns the record of a live task.
func task(key string) bgagent.StoreRecord {
	return bgagent.StoreRecord{Key: key, Kind: bgagent.StoreTask, Due: true, Data: []byte("data of " + key), Agent: "worker", Status: bgagent.Running}
}

// The function "ended" returns the record of a task that has ended and whose end has been reported.
func ended(key string, at time.Time) bgagent.StoreRecord {
	r := task(key)
	r.Due, r.Status, r.Launched, r.Ended = false, bgagent.Completed, at, at
	return r
}

func owner(n int) bgagent.StoreOwner {
	return bgagent.StoreOwner{Instance: fmt.Sprint("instance ", n), PID: n, Host: "here", Program: "a test"}
}

func open(t *testing.T, s *bgnats.Store, n int) bgagent.StoreContents {
	t.Helper()
	c, err := s.Open(t.Context(), owner(n))
	require.NoError(t, err)
	return c
}

func write(t *testing.T, s *bgnats.Store, b *bgagent.StoreBatch) {
	t.Helper()
	require.NoError(t, s.Write(t.Context(), b))
}

// requireOwner fails the test unless the error names the owner with the given number.
func requireOwner(t *testing.T, err error, n int) {
	t.Helper()
	var owned *bgagent.StoreOwnedError
	require.ErrorAs(t, err, &owned)
	require.Equal(t, n, owned.Owner.PID)
}

func TestALateWriteOfAnEarlierOwnerIsRefused(t *testing.T) {
	c := newStores(t, start(t))
	first, p := c.store(bgnats.StoreOptions{})
	open(t, first, 1)
	write(t, first, &bgagent.StoreBatch{Number: 1, Records: []bgagent.StoreRecord{task("a")}})
	heal := p.part()
	second, _ := c.store(bgnats.StoreOptions{})
	require.Len(t, open(t, second, 2).Records, 1)
	heal()

	late := &bgagent.StoreBatch{Number: 2, Records: []bgagent.StoreRecord{task("a"), task("late")}}
	var err error
	for errors.As(err, new(*bgagent.StoreOwnedError)) == false {
		if err = first.Write(t.Context(), late); err != nil && !errors.As(err, new(*bgagent.StoreOwnedError)) {
			// The client has not reconnected yet, or the answer was lost together with the old
			// connection.
			if errors.Is(err, bgagent.ErrUncertain) {
				_, err = first.Reopen(t.Context())
			}
		}
		require.Error(t, err)
		require.NoError(t, t.Context().Err())
	}
	requireOwner(t, err, 2)
	_, err = first.Reopen(t.Context())
	requireOwner(t, err, 2)
	require.NoError(t, first.Close())

	third, _ := c.store(bgnats.StoreOptions{})
	_, err = third.Open(t.Context(), owner(3))
	requireOwner(t, err, 2) // the first owner's Close did not release the store
	write(t, second, &bgagent.StoreBatch{Number: 2, Records: []bgagent.StoreRecord{task("b")}})
	require.NoError(t, second.Close())
	require.Equal(t, []bgagent.StoreRecord{task("a"), task("b")}, open(t, third, 3).Records)
}

func TestALargeWriteOfAnEarlierOwnerIsRefused(t *testing.T) {
	c := newStores(t, start(t))
	first, p := c.store(bgnats.StoreOptions{})
	open(t, first, 1)
	second, _ := c.store(bgnats.StoreOptions{})
	opened := false
	p.at(func(f frame) verdict { // the store gets another owner in the middle of the first journal
		if f.write && !opened {
			opened = true
			c.steal()
		}
		return pass
	})
	requireOwner(t, first.Write(t.Context(), large(1)), 9)
	require.True(t, opened)
	contents := open(t, second, 2) // the owner that the method "steal" has named does not answer
	require.Zero(t, contents.Batch)
	require.Empty(t, contents.Records)
	require.Empty(t, contents.Damage)
}

// steal changes the message about the store, so that it names another owner. Nothing answers for
// that owner.
func (c *content) steal() {
	c.change("m", func(m *nats.Msg) {
		m.Data = []byte(strings.NewReplacer(`"token":"`, `"token":"X`, `"pid":1,`, `"pid":9,`).Replace(string(m.Data)))
	})
}

func TestAnOwnerThatConnectsAgainKeepsTheStore(t *testing.T) {
	c := newStores(t, start(t))
	first, p := c.store(bgnats.StoreOptions{})
	open(t, first, 1)
	heal := p.part()

	q := newProcess(t, c.server)
	t.Cleanup(q.crash)
	asked := make(chan struct{}, 1)
	questions := 0
	q.at(func(f frame) verdict {
		if strings.Contains(f.subject, ".alive.") {
			if questions++; questions == 3 { // the first request goes to the store itself; the second went to the owner and was not answered
				asked <- struct{}{}
			}
		}
		return pass
	})
	second := bgnats.NewStore(q.nc, c.name, bgnats.StoreOptions{Grace: time.Hour})
	done := make(chan error)
	go func() {
		_, err := second.Open(t.Context(), owner(2))
		done <- err
	}()
	<-asked
	heal()
	requireOwner(t, <-done, 1)
	require.NoError(t, second.Close())
}

func TestOpenWaitsNoLongerThanItsContext(t *testing.T) {
	c := newStores(t, start(t))
	first, p := c.store(bgnats.StoreOptions{})
	open(t, first, 1)
	p.crash()
	q := newProcess(t, c.server)
	t.Cleanup(q.crash)
	ctx, cancel := context.WithCancel(t.Context())
	questions := 0
	q.at(func(f frame) verdict {
		if strings.Contains(f.subject, ".alive.") {
			if questions++; questions == 2 { // the first request goes to the store itself, and the second to the owner
				cancel()
			}
		}
		return pass
	})
	second := bgnats.NewStore(q.nc, c.name, bgnats.StoreOptions{Grace: time.Hour})
	_, err := second.Open(ctx, owner(2))
	require.ErrorIs(t, err, context.Canceled)
	require.NotErrorAs(t, err, new(*bgagent.StoreOwnedError))
	third, _ := c.store(bgnats.StoreOptions{}) // the failed Open must not have taken the store
	open(t, third, 3)
}

func TestOfManyThatOpenAStoreOneGetsIt(t *testing.T) {
	c := newStores(t, start(t))
	for round := range 3 {
		var wg sync.WaitGroup
		errs := make([]error, 8)
		all := make([]*bgnats.Store, len(errs))
		for i := range errs {
			all[i], _ = c.store(bgnats.StoreOptions{})
		}
		for i := range errs {
			wg.Go(func() { _, errs[i] = all[i].Open(t.Context(), owner(i)) })
		}
		wg.Wait()
		winner := -1
		for i, err := range errs {
			if err == nil {
				require.Equal(t, -1, winner, "two owners")
				winner = i
			}
		}
		require.NotEqual(t, -1, winner)
		for i, err := range errs {
			if i != winner {
				requireOwner(t, err, winner)
			}
		}
		write(t, all[winner], &bgagent.StoreBatch{Number: uint64(round + 1), Records: []bgagent.StoreRecord{task("a")}})
		require.NoError(t, all[winner].Close())
	}
}

// The function "large" returns a batch with more messages than a server accepts at once.
func large(number uint64) *bgagent.StoreBatch {
	b := &bgagent.StoreBatch{Number: number}
	for i := range 1010 {
		b.Records = append(b.Records, task(fmt.Sprintf("large_%04d", i)))
	}
	b.Texts = []bgagent.StoreText{{Record: "large_0000", Name: "result.1", Text: strings.Repeat("0123456789abcdef", 300<<10/16)}}
	return b
}

func TestALargeBatchIsAtomic(t *testing.T) {
	server := start(t)
	var commits []int // places before the last message of each batch
	c := newStores(t, server)
	s, p := c.store(bgnats.StoreOptions{})
	open(t, s, 1)
	sent := 0
	p.at(func(f frame) verdict {
		if f.commit {
			commits = append(commits, sent)
		}
		if f.write {
			sent++
		}
		return pass
	})
	write(t, s, large(1))
	require.Len(t, commits, 4, "the journal, the message about it, and two batches that apply it")

	journal, decided := commits[0], commits[1]
	for i, x := range []struct {
		place int
		whole bool
	}{
		{0, false}, {journal, false}, {journal + 1, false}, {decided, false},
		{decided + 1, true}, {decided + 500, true}, {commits[2], true}, {commits[2] + 1, true}, {commits[3], true}, {commits[3] + 1, true}, {sent + 1, true},
	} {
		if !race.Enabled || i%4 == 3 {
			dieAt(t, server, x.place, x.whole)
		}
	}
}

// dieAt makes a process die at the given place in a large batch.
func dieAt(t *testing.T, server *embedded.Server, place int, whole bool) {
	c := newStores(t, server)
	s, p := c.store(bgnats.StoreOptions{})
	open(t, s, 1)
	old := task("large_0000")
	old.Agent = "the previous batch"
	write(t, s, &bgagent.StoreBatch{Number: 1, Records: []bgagent.StoreRecord{old}, Texts: []bgagent.StoreText{{Record: old.Key, Name: "prompt.1", Text: "the prompt"}}})
	p.crashAt(place)
	b := large(2)
	err := s.Write(t.Context(), b)
	p.crash()

	next, _ := c.store(bgnats.StoreOptions{})
	contents := open(t, next, 2)
	require.Empty(t, contents.Damage)
	require.Nil(t, c.meta().Journal)
	text, missing := next.Text(t.Context(), old.Key, "result.1")
	if whole {
		require.EqualValues(t, 2, contents.Batch, place)
		require.Equal(t, b.Records, contents.Records)
		require.NoError(t, missing)
		require.True(t, b.Texts[0].Text == text)
	} else {
		require.Error(t, err)
		require.EqualValues(t, 1, contents.Batch, place)
		require.Equal(t, []bgagent.StoreRecord{old}, contents.Records)
		require.ErrorIs(t, missing, bgagent.ErrNoText)
		write(t, next, b) // the next owner can write the same batch
	}
	text, err = next.Text(t.Context(), old.Key, "prompt.1")
	require.NoError(t, err)
	require.Equal(t, "the prompt", text)
}

func TestATextThatIsLargerThanABatchIsReadBack(t *testing.T) {
	c := newStores(t, start(t))
	s, _ := c.store(bgnats.StoreOptions{})
	open(t, s, 1)
	long := strings.Repeat("0123456789abcdef", 10<<20/16) // so long that one read does not return all its parts
	b := &bgagent.StoreBatch{Number: 1, Records: []bgagent.StoreRecord{task("a")}, Texts: []bgagent.StoreText{{Record: "a", Name: "result.1", Text: long}}}
	write(t, s, b)
	b.Number++
	write(t, s, b) // the record already contains the text
	text, err := s.Text(t.Context(), "a", "result.1")
	require.NoError(t, err)
	require.True(t, long == text)
	b = &bgagent.StoreBatch{Number: 3, Texts: []bgagent.StoreText{{Record: "a", Name: "result.1", Text: long + "!"}}}
	require.ErrorContains(t, s.Write(t.Context(), b), "another text")
}
