package bgnats

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/bgagent/bgagent"
)

// StoreOptions contains the settings of a store. The zero value selects the defaults.
type StoreOptions struct {
	// Replicas is the number of servers that keep a copy of the stream, if Open creates the stream. It
	// is 1, 3 or 5. Zero means 1. Open does not change the number of an existing stream.
	Replicas int

	// Grace is the time that Open waits for an owner of the store whose connection to the servers is gone. If
	// the owner has only lost its connection, it reconnects within this time and keeps the store. Zero means
	// 10 seconds. A negative value means that Open does not wait. This is correct only if the owner's
	// connection cannot be interrupted while the owner lives, for example because the server runs in the
	// owner's process.
	Grace time.Duration

	// KeepFor is the time for which a task is kept after its end. A task whose end has not been reported is
	// kept longer. KeepTasks is the maximum number of ended tasks that are kept, not counting those whose
	// end has not been reported. The store deletes tasks when it is opened and when other tasks end. It
	// begins with the tasks that ended first. Zero means the default, and a negative value means no limit.
	KeepFor   time.Duration // 7 days by default
	KeepTasks int           // 100,000 by default

	// KeepBytes is the maximum size of the stream. If the stream is larger, the store deletes the tasks that
	// ended first. Zero means 1 GiB, and a negative value means no limit. Live tasks, and ended tasks whose
	// end has not been reported, are always kept.
	KeepBytes int64

	// Warn is called for errors that occur outside of the manager's calls, while the store deletes
	// ended tasks and their texts. It is called on a goroutine of the store and must not call the
	// store. If Warn is nil, such errors are dropped. The store retries later.
	Warn func(error)
}

func (o StoreOptions) withDefaults() StoreOptions {
	if o.Replicas == 0 {
		o.Replicas = 1
	}
	if o.Grace == 0 {
		o.Grace = 10 * time.Second
	}
	if o.KeepFor == 0 {
		o.KeepFor = 7 * 24 * time.Hour
	}
	if o.KeepTasks == 0 {
		o.KeepTasks = 100_000
	}
	if o.KeepBytes == 0 {
		o.KeepBytes = 1 << 30
	}
	if o.Warn == nil {
		o.Warn = func(error) {}
	}
	return o
}

// Store is a [bgagent.Store] in a JetStream stream. Its methods are safe for concurrent use. Call
// [NewStore] to make a Store.
type Store struct {
	w        wire
	bad      error         // error in the arguments of NewStore
	home     string        // ClusterOptions.Home
	patience time.Duration // ClusterOptions.TakeOverSuspended
	adopts   *adoption     // nil unless the store belongs to another process
	options  StoreOptions

	life sync.Mutex   // held during Open, Reopen and Close
	use  sync.RWMutex // read-locked during Text and History, and locked to close the store

	mu        sync.Mutex // guards the following fields, and is held during Write
	open      bool       // the store can be used
	held      bool       // this process owns the store, even if Reopen has failed
	doubt     bool       // it is unknown whether the last batch is in the stream
	lost      *bgagent.StoreOwnedError
	meta      meta
	answering *nats.Subscription
	ctx       context.Context // ends when the store is closed
	end       context.CancelFunc
	upkeep    *upkeep
	graves    []grave // deleted records whose texts might still be in the stream, in the order of their deletion

	index index
}

var (
	_ bgagent.Store         = (*Store)(nil)
	_ bgagent.StoreReopener = (*Store)(nil)
)

var errClosed = errors.New("bgnats: the store is not open")

// NewStore returns a store with the given name on the servers to which nc is connected. It does not
// use the connection yet. Open creates the stream BGAGENT_name if it does not exist. The name
// consists of up to 64 letters, digits, hyphens and underscores.
//
// The connection belongs to the caller; the store does not close it. The connection should keep trying to
// reconnect indefinitely ([nats.MaxReconnects] with -1), because a store on a closed connection cannot be
// opened again.
func NewStore(nc *nats.Conn, name string, o StoreOptions) *Store {
	n, err := namesOf(name)
	if nc == nil && err == nil {
		err = errors.New("bgnats: NewStore needs a connection")
	}
	return &Store{w: wire{nc: nc, names: n}, bad: err, options: o.withDefaults()}
}

// Open opens the store for the owner and implements [bgagent.Store].
//
// If another owner has the store, Open asks it whether it is alive. If the owner answers, the error is a
// [*bgagent.StoreOwnedError]. If its connection to the servers is gone, Open waits for [StoreOptions].Grace.
// If the owner is connected but does not answer, Open waits for 20 seconds, or for Grace if that is longer.
// After that, Open takes over the store, and the servers refuse all later writes by the earlier owner. If
// another process of a cluster has taken over the store (see [Cluster.TakeOver]), Open asks it to give the
// store back, and waits until it has done so.
//
// While the servers have no leader for the stream, Open retries until ctx ends.
func (s *Store) Open(ctx context.Context, owner bgagent.StoreOwner) (c bgagent.StoreContents, err error) {
	s.life.Lock()
	defer s.life.Unlock()
	if s.bad != nil {
		return c, s.bad
	}
	if err := ctx.Err(); err != nil {
		return c, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held {
		return c, errors.New("bgnats: the store is already open")
	}
	s.w.watch()
	if c, err = s.openFor(ctx, owner); err != nil {
		s.w.unwatch()
		return bgagent.StoreContents{}, fmt.Errorf("bgnats: open: %w", err)
	}
	return c, nil
}

// owner returns the token of this owner, or "" if the store is not open.
func (s *Store) owner() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.held {
		return ""
	}
	return s.meta.Token
}

// mayTake reports whether the store can be taken from its present owner. If so, it sets the fields of m that
// describe the process of the new owner.
func (s *Store) mayTake(ctx context.Context, m *meta) (bool, error) {
	if s.adopts != nil {
		return true, s.adopts.mayTake(ctx, &s.w, m)
	}
	if m.Token != "" {
		err := s.w.awaitDeath(ctx, *m, s.options.Grace)
		if owned := new(bgagent.StoreOwnedError); m.Adopter != "" && errors.As(err, &owned) {
			return false, s.w.reclaim(ctx, *m)
		}
		if err != nil {
			return false, err
		}
	}
	m.Home, m.Patience, m.Adopter, m.Left, m.Run = s.home, s.patience, "", leftBack, rand.Text()
	return true, nil
}

// minPayload is the size of the largest message that the store writes.
const minPayload = chunk + 64<<10

func (s *Store) openFor(ctx context.Context, owner bgagent.StoreOwner) (c bgagent.StoreContents, err error) {
	if err := s.w.ready(ctx); err != nil {
		return c, err
	}
	if most := s.w.nc.MaxPayload(); most < minPayload {
		return c, fmt.Errorf("the servers accept messages of %d bytes; the store needs max_payload to be at least %d", most, minPayload)
	}
	if err := s.w.ensure(ctx, s.w.config(s.options.Replicas)); err != nil {
		return c, err
	}
	if s.meta, s.answering, err = s.w.take(ctx, owner, s.mayTake); err != nil {
		return c, err
	}
	if c, err = s.load(ctx); err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeWithin) // ctx might have ended
		defer cancel()
		return c, errors.Join(err, s.release(ctx))
	}
	s.held = true
	s.begin()
	return c, nil
}

// The method "begin" makes the store usable after it has been loaded.
func (s *Store) begin() {
	s.open, s.doubt, s.lost = true, false, nil
	s.ctx, s.end = context.WithCancel(context.Background())
	s.use.Lock()
	s.index.life = s.ctx
	s.use.Unlock()
	s.upkeep = newUpkeep(s)
	go s.upkeep.run()
}

// Reopen opens the store again after a Write whose result is uncertain, and implements
// [bgagent.StoreReopener]. If the servers have not stored the batch before Reopen returns, they refuse it
// later.
func (s *Store) Reopen(ctx context.Context) (c bgagent.StoreContents, err error) {
	s.life.Lock()
	defer s.life.Unlock()
	if err := ctx.Err(); err != nil {
		return c, err
	}
	s.halt()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.held {
		return c, errClosed
	}
	s.doubt = true
	if c, err = s.retake(ctx); err != nil {
		return bgagent.StoreContents{}, fmt.Errorf("bgnats: reopen: %w", err)
	}
	s.begin()
	return c, nil
}

// retake writes the message about the store again, and loads the store. Batches that this owner sent earlier
// expect the previous version of that message, so the servers refuse those that have not arrived yet.
func (s *Store) retake(ctx context.Context) (c bgagent.StoreContents, err error) {
	if err := s.w.ready(ctx); err != nil {
		return c, err
	}
	for {
		m, err := s.w.readMeta(ctx)
		if err != nil {
			return c, err
		}
		if m.Token != s.meta.Token {
			return c, &bgagent.StoreOwnedError{Owner: m.Owner}
		}
		m.Epoch++
		m.before = m.seq
		if err = s.w.writeMeta(ctx, &m); err == nil {
			s.meta = m
			return s.load(ctx)
		}
		if !again(err) {
			return c, err
		}
		if err := pause(ctx, retryEvery); err != nil {
			return c, err
		}
	}
}

// Text returns one of a record's texts and implements [bgagent.Store].
func (s *Store) Text(ctx context.Context, record, name string) (string, error) {
	ctx, done, err := s.reading(ctx)
	if err != nil {
		return "", err
	}
	defer done()
	text, err := s.text(ctx, record, name)
	if err != nil {
		return "", fmt.Errorf("bgnats: the text %q of %q: %w", name, record, err)
	}
	return text, nil
}

// History returns a page of ended tasks and implements [bgagent.Store].
func (s *Store) History(ctx context.Context, q bgagent.StoreQuery) ([]bgagent.StoreRecord, error) {
	ctx, done, err := s.reading(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	page, err := s.history(ctx, q)
	if err != nil {
		return nil, fmt.Errorf("bgnats: history: %w", err)
	}
	return page, nil
}

// The method "reading" begins a call that reads. The returned context also ends when the store is closed.
func (s *Store) reading(ctx context.Context) (context.Context, func(), error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	s.use.RLock()
	life := s.index.life
	if life == nil {
		s.use.RUnlock()
		return nil, nil, errClosed
	}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(life, cancel)
	return ctx, func() { stop(); cancel(); s.use.RUnlock() }, nil
}

// closeWithin is the time limit for the write that removes the owner from a store, or the holder from the
// slots key.
const closeWithin = 5 * time.Second

// Close closes the store and implements [bgagent.Store]. If Close returns an error, the servers
// might not know that the store was closed, and the next Open waits as it would for a dead owner.
func (s *Store) Close() error {
	s.life.Lock()
	defer s.life.Unlock()
	s.halt()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.held {
		return nil
	}
	s.held = false
	ctx, cancel := context.WithTimeout(context.Background(), closeWithin)
	defer cancel()
	err := s.release(ctx)
	s.w.unwatch()
	if err != nil {
		return fmt.Errorf("bgnats: close: %w", err)
	}
	return nil
}

// halt makes all later calls fail, and waits for calls in progress.
func (s *Store) halt() {
	s.mu.Lock()
	was, up := s.open, s.upkeep
	s.open, s.upkeep = false, nil
	if was {
		s.end()
	}
	s.mu.Unlock()
	if !was {
		return
	}
	<-up.gone
	s.use.Lock()
	s.index.life = nil
	s.index.install(nil)
	s.use.Unlock()
}

// release removes the owner from the store, unless the store belongs to another owner.
func (s *Store) release(ctx context.Context) error {
	err := s.w.ready(ctx)
	for err == nil {
		var m meta
		if m, err = s.w.readMeta(ctx); err != nil || m.Token != s.meta.Token {
			break
		}
		m.Token, m.Adopter = "", ""
		if s.adopts != nil {
			m.Left = s.adopts.left
		}
		if err = s.w.writeMeta(ctx, &m); err == nil {
			break
		}
		if again(err) && pause(ctx, retryEvery) == nil {
			err = s.w.ready(ctx)
		}
	}
	_ = s.answering.Unsubscribe() // fails only if the connection was closed, which ends its subscriptions
	return err
}
