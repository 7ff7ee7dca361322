package embedded_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/hammer"
	"github.com/bgagent/bgagent/internal/tempdir"
	bgnats "github.com/bgagent/bgagent/nats"
	"github.com/bgagent/bgagent/nats/embedded"
	"github.com/bgagent/bgagent/storetest"
)

func TestHammerOnJetStream(t *testing.T) {
	server := startIn(t, tempdir.InMemory(t)) // because the server does not die, it needs no real disk
	hammer.Run(t, hammer.Options{Crashes: true, Package: "./nats/embedded", Content: func(tb storetest.TB) hammer.Content {
		return hammered(tb, server)
	}})
}

// hammered returns the store content that the hammer uses.
func hammered(t storetest.TB, server *embedded.Server) hammer.Content {
	c := newStores(t, server)
	t.Cleanup(func() { // otherwise, the server would keep the streams of all runs
		js, err := c.admin.JetStream()
		if err == nil {
			err = js.DeleteStream("BGAGENT_" + c.name)
		}
		if err != nil {
			t.Errorf("%v", err)
		}
	})
	inner := contentOf(c, bgnats.StoreOptions{KeepFor: -1, KeepTasks: -1, KeepBytes: -1})
	losses := 0
	of := func(s bgagent.Store) *bgnats.Store { return s.(*hammeredStore).Store }
	return hammer.Content{
		Content: storetest.Content{
			Process: func() bgagent.Store {
				s := inner.Process().(*bgnats.Store)
				return &hammeredStore{Store: s, p: c.of(s)}
			},
			Crash: func(s bgagent.Store) { inner.Crash(of(s)) },
			CrashAt: func(s bgagent.Store, place int) {
				if place%4 == 3 { // the process dies in a large batch, which has more than 1,000 messages
					s.(*hammeredStore).large = true
					place *= 16
				}
				inner.CrashAt(of(s), place)
			},
			LoseAnswer: func(s bgagent.Store) {
				losses++
				h := s.(*hammeredStore)
				h.large = losses%4 == 0
				h.p.loseAnswer([]verdict{cutBefore, cutAfter}[losses%2], losses%7, losses%11) // the later cuts happen during Reopen
			},
		},
		Cut: func(s bgagent.Store) func() {
			p := s.(*hammeredStore).p
			heal := p.part()
			return func() {
				heal()
				p.settle()
			}
		},
	}
}

// hammeredStore is a store for a synctest bubble.
type hammeredStore struct {
	*bgnats.Store
	p     *process
	large bool // the next batch is made larger than an atomic batch can be
}

// Write returns only when the process is connected again, because the bubble's clock would otherwise run far
// ahead while the client connects.
func (s *hammeredStore) Write(ctx context.Context, b *bgagent.StoreBatch) error {
	defer s.p.settle()
	if s.large {
		s.large = false
		large := *b
		large.Records = append(slices.Clip(b.Records), padding...)
		b = &large
	}
	return s.Store.Write(ctx, b)
}

// padding contains records that neither Open nor History returns.
var padding = func() (all []bgagent.StoreRecord) {
	for i := range 1000 {
		all = append(all, bgagent.StoreRecord{Key: fmt.Sprint("padding:", i), Kind: bgagent.StoreSession})
	}
	return all
}()
