package bgnats

import (
	"context"
	"errors"
	"fmt"

	"github.com/bgagent/bgagent"
)

// These are the limits of one atomic batch. By default, the servers accept 1,000 messages; see
// max_batch_size in the documentation of nats-server. The limit on bytes keeps the servers' memory use
// small.
const (
	maxBatch      = 1000
	maxBatchBytes = 8 << 20
)

// Write writes the batch and implements [bgagent.Store]. If no space is left on the servers, the error
// matches [ErrFull].
func (s *Store) Write(ctx context.Context, b *bgagent.StoreBatch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !s.held:
		return errClosed
	case s.lost != nil:
		return s.lost
	case s.doubt || !s.open:
		return fmt.Errorf("bgnats: the result of an earlier write is unknown, and the store must be opened again: %w", bgagent.ErrUncertain)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.write(ctx, b); err != nil {
		s.failed(err)
		return fmt.Errorf("bgnats: write batch %d: %w", b.Number, err)
	}
	s.upkeep.wrote(b)
	return nil
}

// failed is called after a write error. It records whether the last batch might be in the stream, and
// whether the store has another owner.
func (s *Store) failed(err error) {
	s.doubt = s.doubt || errors.Is(err, bgagent.ErrUncertain)
	if owned := new(bgagent.StoreOwnedError); errors.As(err, &owned) {
		s.lost = owned
	}
}

func (s *Store) write(ctx context.Context, b *bgagent.StoreBatch) error {
	p, err := s.plan(b)
	if err != nil {
		return err
	}
	all, err := p.messages()
	if err != nil {
		return err
	}
	if len(all) >= maxBatch || bytesOf(all) > maxBatchBytes {
		if err := p.lookUp(ctx); err != nil {
			return err
		}
		return s.writeLarge(ctx, p)
	}
	for try := 0; ; try++ {
		next := p.next
		err := s.commit(ctx, all, &next)
		if err == nil {
			s.done(p, all, next)
			return nil
		}
		if !moved(err) {
			return err
		}
		if err := s.mine(ctx); err != nil {
			return err
		}
		if try > 0 || len(p.texts) == 0 {
			return fmt.Errorf("another program has changed the stream: %w", err)
		}
		// The servers refuse the batch if one of its texts is already in the stream, or if texts of a deleted
		// record with the same key are still there.
		if err := p.lookUp(ctx); err != nil {
			return err
		}
		if all, err = p.messages(); err != nil {
			return err
		}
	}
}

// commit writes the messages and the new version of the message about the store as one batch.
func (s *Store) commit(ctx context.Context, all []message, next *meta) error {
	msg, err := next.message(s.w.names)
	if err != nil {
		return err
	}
	last, err := s.w.publish(ctx, append(all[:len(all):len(all)], msg))
	if err != nil {
		return err
	}
	for i := range all {
		all[i].seq = last - uint64(len(all)-i)
	}
	next.seq = last
	return nil
}

// The method "mine" returns an error if another process owns the store, or if another program has changed the
// message about the store.
func (s *Store) mine(ctx context.Context) error {
	m, err := s.w.readMeta(ctx)
	switch {
	case err != nil:
		return err
	case m.Token != s.meta.Token:
		return &bgagent.StoreOwnedError{Owner: m.Owner}
	case m.seq != s.meta.seq:
		return fmt.Errorf("%w: another program has written to %s", bgagent.ErrUncertain, s.w.meta())
	}
	return nil
}

// The method "done" updates the state in memory after a batch is written.
func (s *Store) done(p *plan, all []message, next meta) {
	for i, e := range p.records {
		e.seq = all[i].seq
	}
	for i, key := range p.deletes {
		s.graves = append(s.graves, grave{key, all[len(p.records)+i].seq})
	}
	s.index.change(p.records, p.deletes)
	s.meta = next
}

// plan is a batch that is about to be written.
type plan struct {
	s       *Store
	b       *bgagent.StoreBatch // nil if the store itself deletes records
	records []*entry
	data    [][]byte // data of the records
	deletes []string // keys of records that exist
	texts   []plannedText
	next    meta
}

// plannedText is a text that is about to be written.
type plannedText struct {
	part
	base, text string
	there      bool   // the record already has this text; set by lookUp
	seq        uint64 // sequence number of the first part of another record's text; set by lookUp
}

// plan returns the plan for a batch, or an error if the batch breaks a rule of [bgagent.StoreBatch].
func (s *Store) plan(b *bgagent.StoreBatch) (*plan, error) {
	p := &plan{s: s, b: b, next: s.meta}
	if b.Number != s.meta.Batch+1 {
		return nil, fmt.Errorf("the next batch has the number %d", s.meta.Batch+1)
	}
	p.next.Batch = b.Number
	born := make(map[string]uint64, len(b.Records))
	for i := range b.Records {
		r := &b.Records[i]
		if _, twice := born[r.Key]; twice {
			return nil, fmt.Errorf("the batch contains the record %q twice", r.Key)
		}
		born[r.Key] = b.Number
		old := s.index.get(r.Key)
		if old != nil {
			born[r.Key] = old.born
			p.next.count(old, -1)
		}
		e, err := entryOf(r, b.Number, born[r.Key])
		if err != nil {
			return nil, err
		}
		p.next.count(e, 1)
		p.records, p.data = append(p.records, e), append(p.data, r.Data)
	}
	gone := make(map[string]bool, len(b.Delete))
	for _, key := range b.Delete {
		if _, is := born[key]; is {
			return nil, fmt.Errorf("the batch both writes and deletes the record %q", key)
		}
		if !gone[key] {
			p.remove(key)
		}
		gone[key] = true
	}
	type name struct{ record, text string }
	seen := map[name]string{}
	for _, t := range b.Texts {
		of, is := born[t.Record]
		if old := s.index.get(t.Record); !is && old != nil && !gone[t.Record] {
			of, is = old.born, true
		}
		if !is {
			return nil, fmt.Errorf("the text %q belongs to the record %q, which does not exist", t.Name, t.Record)
		}
		if text, twice := seen[name{t.Record, t.Name}]; twice {
			if text != t.Text {
				return nil, otherText(t.Record, t.Name)
			}
			continue
		}
		seen[name{t.Record, t.Name}] = t.Text
		p.texts = append(p.texts, plannedText{
			part: partOf(t.Record, t.Name, of, t.Text), base: s.w.parts(t.Record, textName+token(t.Name)), text: t.Text,
		})
	}
	return p, nil
}

func otherText(record, name string) error {
	return fmt.Errorf("the record %q already has another text %q", record, name)
}

// remove plans the deletion of the record, if it exists.
func (p *plan) remove(key string) {
	if old := p.s.index.get(key); old != nil {
		p.next.count(old, -1)
		p.deletes = append(p.deletes, key)
	}
}

// count adds the record to the tally of due records if "by" is 1, and subtracts it if "by" is -1. It
// ignores a record that is not due.
func (m *meta) count(e *entry, by int) {
	if e.due {
		m.Due += by
		m.DueSum += e.sum * uint64(by)
	}
}

// messages returns the messages of the batch: first one for each record, then one for each deleted
// record, then the parts of data and texts. The message about the store follows them.
func (p *plan) messages() (all []message, err error) {
	w := &p.s.w
	for i, e := range p.records {
		m := e.message(w.names, p.data[i])
		p.expectOld(&m, e.key)
		all = append(all, m)
	}
	for _, key := range p.deletes {
		m := deleted(w.names, key)
		p.expectOld(&m, key)
		all = append(all, m)
	}
	for i, e := range p.records {
		if e.parts == 0 {
			continue
		}
		data := string(p.data[i])
		parts, err := partOf(e.key, "", e.version, data).messages(w.parts(e.key, dataName), data)
		if err != nil {
			return nil, err
		}
		all = append(all, parts...)
	}
	for _, t := range p.texts {
		if t.there {
			continue
		}
		parts, err := t.messages(t.base, t.text)
		if err != nil {
			return nil, err
		}
		parts[0].expect(t.seq)
		all = append(all, parts...)
	}
	return all, nil
}

// expectOld makes the servers refuse the message if another program has changed the record. It does
// nothing for a record that does not exist, because the stream might still contain the message that
// marks this record as deleted.
func (p *plan) expectOld(m *message, key string) {
	if old := p.s.index.get(key); old != nil {
		m.expect(old.seq)
	}
}

// lookUp finds out which of the texts are already in the stream, and sets the fields "there" and "seq" of the
// texts accordingly. It returns an error if a record has another text with the same name.
func (p *plan) lookUp(ctx context.Context) error {
	for i := range p.texts {
		t := &p.texts[i]
		m, found, err := p.s.w.last(ctx, t.base+"0")
		if err != nil {
			return err
		}
		if !found {
			continue
		}
		t.seq = m.seq
		there, _, err := readPart(m.header)
		if err == nil && there.of == t.of {
			if t.there = there == t.part; !t.there {
				return otherText(t.key, t.name)
			}
		}
	}
	return nil
}

func bytesOf(all []message) (n int) {
	for i := range all {
		n += all[i].bytes()
	}
	return n
}
