package bgagent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"
)

// The code in this file writes to the store.

// The minimum and maximum pause after a failed write.
const (
	storePause    = 250 * time.Millisecond
	storePauseMax = 5 * time.Second
)

// storeRefusals is the number of refusals in a row after which the writer starts to look for the
// refused record.
const storeRefusals = 3

// errStoreClosing stops the writer when the manager is closing the store.
var errStoreClosing = errors.New("the manager closes the store")

// write writes the changes, batch by batch, until there is nothing left to write. At most one
// goroutine runs it.
func (m *BackgroundManager) write() {
	pause, refused := storePause, 0
	for {
		var b *StoreBatch
		m.update(func(st *state, now int64) { b = st.nextBatch(time.Now(), now) })
		if b == nil {
			return
		}
		err := m.commit(b, &pause)
		if err == nil {
			m.update(func(st *state, now int64) { st.committedTo(b.Number, now) })
			pause, refused = storePause, 0
			continue
		}
		if m.givesUp(err) {
			return
		}
		again := false
		m.update(func(st *state, _ int64) { again = st.stillRefused(b) })
		if again {
			continue
		}
		if refused++; refused >= storeRefusals && !errors.Is(err, syscall.ENOSPC) {
			last, bad, err := m.writeApart(b, &pause)
			if m.givesUp(err) {
				return
			}
			if err == nil {
				m.update(func(st *state, now int64) { st.writtenApart(b, last, bad, now) })
				pause, refused = storePause, 0
				continue
			}
			if last >= b.Number { // only parts of the batch are durable, so the whole batch is written again
				m.update(func(st *state, _ int64) { st.moveBatch(b, last+1) })
			}
		}
		detail := err.Error()
		m.update(func(st *state, now int64) { // a single update, so that the refused batch never counts as uncertain
			st.storeTrouble(b.Number, detail, now)
			st.writeFailed(b)
		})
		if !m.storePause(&pause) {
			return
		}
	}
}

// givesUp reports whether the writer must stop because of the error. If the store is lost, givesUp
// also records this in the state.
func (m *BackgroundManager) givesUp(err error) bool {
	var lost *lostError
	if errors.As(err, &lost) {
		m.update(func(st *state, now int64) { st.loseStore(lost, now) })
		return true
	}
	return errors.Is(err, errStoreClosing)
}

// commit writes the batch. If the result of a write is uncertain, the method "commit" finds out
// whether the store contains the batch. If the method "commit" returns an error after which the
// writer can continue, the store does not contain the batch.
func (m *BackgroundManager) commit(b *StoreBatch, pause *time.Duration) error {
	err := m.writeOnce(b)
	for errors.Is(err, ErrUncertain) {
		if err = m.reopenStore(b, err); !errors.Is(err, ErrUncertain) {
			break
		}
		detail := err.Error()
		m.update(func(st *state, now int64) { st.storeTrouble(b.Number, detail, now) })
		if !m.storePause(pause) {
			return errStoreClosing
		}
	}
	var owned *StoreOwnedError
	switch {
	case err == nil:
		m.store.named = m.store.named || b.names()
	case errors.As(err, &owned):
		return &lostError{err.Error(), owned}
	}
	return err
}

// The method "names" reports whether the batch contains the manager's own record.
func (b *StoreBatch) names() bool {
	return slices.ContainsFunc(b.Records, func(r StoreRecord) bool { return r.Kind == StoreManager })
}

// storePause waits before the next attempt to write, and doubles the pause. It returns false if the
// manager closes the store.
func (m *BackgroundManager) storePause(pause *time.Duration) bool {
	timer := time.NewTimer(*pause)
	defer timer.Stop()
	*pause = min(2**pause, storePauseMax)
	select {
	case <-timer.C:
		return true
	case <-m.store.ctx.Done():
		return false
	}
}

// writeOnce calls Write and waits until it returns, because a store writes one batch at a time. If
// Write panics, it is unknown whether the store contains the batch.
func (m *BackgroundManager) writeOnce(b *StoreBatch) error {
	_, err := storeCall(context.Background(), m, func() (struct{}, error) { return struct{}{}, m.cfg.Store.Write(m.store.ctx, b) }, nil)
	return err
}

// storeCall calls a method of the store on a separate goroutine, so that a panic or a
// runtime.Goexit in the store does no harm. An error's methods may be implemented by the store, so
// storeCall also copies the error on that goroutine. If ctx ends first, storeCall returns the
// context's error. If the call succeeds after that, storeCall passes the result to the function
// "late".
func storeCall[T any](ctx context.Context, m *BackgroundManager, f func() (T, error), late func(T)) (value T, err error) {
	type answer struct {
		value T
		err   error
	}
	done := make(chan answer, 1)
	m.spawn(goStore, func() {
		a := answer{err: fmt.Errorf("%w: %w", ErrUncertain, errGoexit)}
		defer func() {
			if v := recover(); v != nil {
				a.err = fmt.Errorf("%w: %w", ErrUncertain, panicked(v))
			}
			done <- a
		}()
		value, err := f()
		a = answer{value, storeError(err)}
		if a.err == nil && ctx.Err() != nil && late != nil {
			late(value)
			a.err = ctx.Err()
		}
	})
	select {
	case a := <-done:
		return a.value, a.err
	case <-ctx.Done():
		return value, ctx.Err()
	}
}

// storeError copies the parts of a store's error that the manager needs.
func storeError(err error) error {
	if err == nil {
		return nil
	}
	e := &hostError{text: err.Error(), from: err}
	for _, known := range [...]error{ErrUncertain, ErrNoText, ErrNoRecord, syscall.ENOSPC} {
		if errors.Is(err, known) {
			e.is = append(e.is, known)
		}
	}
	var owned *StoreOwnedError
	if errors.As(err, &owned) && owned != nil {
		e.is = append(e.is, &StoreOwnedError{owned.Owner})
	}
	return e
}

// reopenStore opens the store again and finds out whether it contains the batch. If it does,
// reopenStore returns nil. Otherwise, it returns an error. The error matches [ErrUncertain] if it
// is still unknown whether the store contains the batch, and is a [*lostError] if the store belongs
// to another manager or has other batches.
func (m *BackgroundManager) reopenStore(b *StoreBatch, cause error) error {
	if m.store.ctx.Err() != nil { // the manager is closing the store, so the store must not be opened again
		return cause
	}
	closeIt := func(StoreContents) { _ = m.cfg.Store.Close() } // closes a store that opens after the manager has stopped waiting
	open := func() (StoreContents, error) { return m.cfg.Store.Open(m.store.ctx, m.owner) }
	if r, ok := m.cfg.Store.(StoreReopener); ok {
		open = func() (StoreContents, error) { return r.Reopen(m.store.ctx) }
	} else if _, err := storeCall(m.store.ctx, m, func() (struct{}, error) { return struct{}{}, m.cfg.Store.Close() }, nil); err != nil {
		return fmt.Errorf("%w; closing the store: %w", cause, err)
	}
	c, err := storeCall(m.store.ctx, m, open, closeIt)
	var owned *StoreOwnedError
	switch {
	case errors.As(err, &owned) && owned.Owner.Instance != m.owner.Instance:
		return &lostError{err.Error(), owned}
	case err != nil:
		return fmt.Errorf("%w; opening the store again: %w", cause, err)
	}
	if why := m.changedBy(c, b); why != "" {
		return &lostError{why: why}
	}
	if c.Batch == b.Number {
		return nil
	}
	missing := &hostError{text: cause.Error() + "; the batch is not there after the store was opened again", from: cause}
	if errors.Is(cause, syscall.ENOSPC) { // a full store refuses all records, so none of them is to blame
		missing.is = append(missing.is, syscall.ENOSPC)
	}
	return missing
}

// changedBy compares the contents of the store with the batches that this manager wrote. It returns
// "" if they match, or if only the last batch is missing. Otherwise, it returns a description of
// the difference.
func (m *BackgroundManager) changedBy(c StoreContents, last *StoreBatch) string {
	if c.Batch != last.Number && c.Batch != last.Number-1 {
		return fmt.Sprintf("its last batch has the number %d; the last batch of this manager has the number %d", c.Batch, last.Number)
	}
	if !m.store.named && !(c.Batch == last.Number && last.names()) { // no batch with this manager's record is known to be in the store, so there is nothing to compare
		return ""
	}
	if c.Outdated != "" {
		return c.Outdated
	}
	var x managerRecord
	for i := range c.Records {
		if r := &c.Records[i]; r.Kind == StoreManager && decodeRecord(r.Data, &x) == nil && x.Instance != m.owner.Instance {
			return fmt.Sprintf("the manager %q has written to it", x.Instance)
		}
	}
	return ""
}

// writeApart divides a batch that the store refused, and writes the parts as separate batches. It
// returns the records that the store refuses even on their own, and the number of the last batch
// that is durable. Before and after the parts, it writes the manager's own record. If that write
// fails, a single record is not the problem, and writeApart returns an error.
func (m *BackgroundManager) writeApart(b *StoreBatch, pause *time.Duration) (last uint64, bad []refusal, err error) {
	last = b.Number - 1
	write := func(part StoreBatch) error {
		part.Number = last + 1
		err := m.commit(&part, pause)
		if err == nil {
			last++
		}
		return err
	}
	healthy := func() error {
		part := StoreBatch{}
		m.update(func(st *state, _ int64) { part.Records = []StoreRecord{st.recordManager(time.Now())} })
		return write(part)
	}
	if err := healthy(); err != nil {
		return last, nil, err
	}
	var heirs map[string]string
	m.update(func(st *state, _ int64) { heirs = st.heirs() })
	var divide func(parts []StoreBatch) error
	divide = func(parts []StoreBatch) error {
		err := write(together(parts))
		switch {
		case err == nil:
			return nil
		case m.isFinal(err) || errors.Is(err, syscall.ENOSPC):
			return err
		case len(parts) == 1 && len(parts[0].Records) > 0 && len(parts[0].Delete) > 0:
			// The record may be written without the deletion, but the deletion needs the record.
			bad = append(bad, refusal{parts[0].Delete[0], err.Error(), true})
			parts[0].Delete = nil
			return divide(parts)
		case len(parts) == 1:
			bad = append(bad, refusal{parts[0].key(), err.Error(), len(parts[0].Delete) > 0})
			return nil
		}
		half := len(parts) / 2
		if err := divide(parts[:half]); err != nil {
			return err
		}
		return divide(parts[half:])
	}
	if parts := b.parts(heirs); len(parts) > 0 {
		if err := divide(parts); err != nil {
			return last, nil, err
		}
	}
	err = healthy() // write the manager's own record after the parts
	return last, bad, err
}

// isFinal reports whether the writer must stop because of the error.
func (m *BackgroundManager) isFinal(err error) bool {
	var lost *lostError
	return errors.As(err, &lost) || errors.Is(err, errStoreClosing)
}

// The method "parts" divides the batch into parts that do not depend on each other: one part for
// each key, in the order of the keys. The record of the manager is left out. If a record must be
// durable before another record is deleted, both belong to the same part. heirs holds the result
// of [state.heirs].
func (b *StoreBatch) parts(heirs map[string]string) (all []StoreBatch) {
	at := map[string]*StoreBatch{}
	part := func(key string) *StoreBatch {
		if at[key] == nil {
			at[key] = &StoreBatch{}
		}
		return at[key]
	}
	for _, r := range b.Records {
		if r.Kind != StoreManager {
			part(r.Key).Records = []StoreRecord{r}
		}
	}
	for _, t := range b.Texts {
		p := part(t.Record)
		p.Texts = append(p.Texts, t)
	}
	for _, key := range b.Delete {
		p := at[heirs[key]]
		if p == nil {
			p = part(key)
		}
		p.Delete = []string{key}
	}
	for _, p := range at {
		all = append(all, *p)
	}
	slices.SortFunc(all, func(x, y StoreBatch) int { return strings.Compare(x.key(), y.key()) })
	return all
}

// key returns the key of a part. If the part contains a record and a deletion, the result is the
// record's key.
func (b *StoreBatch) key() string {
	switch {
	case len(b.Records) > 0:
		return b.Records[0].Key
	case len(b.Texts) > 0:
		return b.Texts[0].Record
	}
	return b.Delete[0]
}

// The function "together" joins the parts into one batch.
func together(parts []StoreBatch) (b StoreBatch) {
	for _, p := range parts {
		b.Records, b.Texts, b.Delete = append(b.Records, p.Records...), append(b.Texts, p.Texts...), append(b.Delete, p.Delete...)
	}
	return b
}
