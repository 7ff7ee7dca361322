package bgnats

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/gob"
	"errors"
	"fmt"
	"hash/crc64"
	"slices"
	"strconv"

	"github.com/nats-io/nats.go"

	"github.com/bgagent/bgagent"
)

// The servers limit the size of an atomic batch. A larger batch is written in three steps:
//
//  1. All its messages are written to a journal, under subjects that nobody reads.
//  2. One message about the store names the journal and the number of the batch. When this
//     message has been stored, the store contains the batch.
//  3. The messages are written under their own subjects, and another message about the store
//     completes the batch. If the process dies in this step, the next Open repeats the step.
//
// If the process dies before step 2 is complete, nobody reads the journal, and the next Open
// deletes it.

// journal describes the journal of a batch that is being applied.
type journal struct {
	ID    string `json:"id"`
	Parts int    `json:"parts"`
	Bytes int    `json:"bytes"`
	Sum   uint64 `json:"sum"`
}

// entryOfJournal is a message in a journal.
type entryOfJournal struct {
	Subject string
	Header  map[string][]string
	Data    []byte
}

// writeLarge writes a batch that is larger than the servers accept.
func (s *Store) writeLarge(ctx context.Context, p *plan) error {
	all, err := p.messages()
	if err != nil {
		return err
	}
	for i := range all {
		all[i].header.Del(headExpected) // the messages might be written twice, so the servers must not compare sequence numbers
	}
	text, err := encodeJournal(all)
	if err != nil {
		return err
	}
	j := &journal{ID: rand.Text(), Bytes: len(text), Sum: crc64.Checksum(text, sumTable)}
	var parts []message
	for piece := range slices.Chunk(text, chunk) {
		parts = append(parts, message{subject: s.w.journal(j.ID, j.Parts), header: nats.Header{}, data: piece})
		j.Parts++
	}
	if err := s.inGroups(parts, func(group []message, _ bool) error {
		s.onlyMine(&group[0])
		_, err := s.w.publish(ctx, group)
		return err
	}); err != nil {
		if moved(err) {
			if err := s.mine(ctx); err != nil {
				return err
			}
		}
		// The error is not wrapped, because it must not match ErrUncertain: no message names the journal yet,
		// so the stream certainly does not contain the batch.
		return fmt.Errorf("a part of a large batch cannot be written: %v", err)
	}
	next := p.next
	next.Journal = j
	if err := s.commit(ctx, nil, &next); err != nil {
		if moved(err) {
			if err := s.mine(ctx); err != nil {
				return err
			}
		}
		return err
	}
	s.meta = next
	if err := s.apply(ctx, all); err != nil {
		return fmt.Errorf("%w: a large batch was written but is not applied yet: %v", bgagent.ErrUncertain, err)
	}
	s.done(p, all, s.meta)
	return nil
}

// onlyMine makes the servers refuse the batch that begins with m if the store has another owner by the time
// the batch arrives.
func (s *Store) onlyMine(m *message) {
	m.header.Set(headExpected, strconv.FormatUint(s.meta.seq, 10))
	m.header.Set(headOf, s.w.meta())
}

// inGroups calls f for groups of messages. Each group fits into an atomic batch with one further
// message. For the last group, last is true.
func (s *Store) inGroups(all []message, f func(group []message, last bool) error) error {
	for from := 0; from < len(all); {
		to, size := from, 0
		for to < len(all) && to-from < maxBatch-1 && (to == from || size+all[to].bytes() <= maxBatchBytes) {
			size += all[to].bytes()
			to++
		}
		if err := f(all[from:to:to], to == len(all)); err != nil {
			return err
		}
		from = to
	}
	return nil
}

// apply writes the messages of the journal under their own subjects.
func (s *Store) apply(ctx context.Context, all []message) error {
	return s.inGroups(all, func(group []message, last bool) error {
		if last {
			next := s.meta
			next.Journal = nil
			err := s.commit(ctx, group, &next)
			if err == nil {
				s.meta = next
			}
			return err
		}
		s.onlyMine(&group[0])
		end, err := s.w.publish(ctx, group)
		for i := range group {
			group[i].seq = end - uint64(len(group)-1-i)
		}
		return err
	})
}

// finish applies a journal that was left behind by an earlier owner, or by this owner when the result of a
// write was uncertain.
func (s *Store) finish(ctx context.Context) error {
	j := s.meta.Journal
	var text []byte
	for i := range j.Parts {
		m, found, err := s.w.last(ctx, s.w.journal(j.ID, i))
		if err != nil {
			return err
		}
		if !found {
			return fmt.Errorf("%w: part %d of %d of the journal is missing", errDamaged, i+1, j.Parts)
		}
		text = append(text, m.data...)
	}
	if len(text) != j.Bytes || crc64.Checksum(text, sumTable) != j.Sum {
		return fmt.Errorf("%w: the checksum of the journal is wrong", errDamaged)
	}
	all, err := decodeJournal(text)
	if err != nil {
		return err
	}
	if err = s.apply(ctx, all); moved(err) {
		err = errors.Join(s.mine(ctx), err)
	}
	return err
}

func encodeJournal(all []message) ([]byte, error) {
	list := make([]entryOfJournal, len(all))
	for i, m := range all {
		list[i] = entryOfJournal{m.subject, m.header, m.data}
	}
	var b bytes.Buffer
	err := gob.NewEncoder(&b).Encode(list)
	return b.Bytes(), err
}

func decodeJournal(text []byte) (all []message, err error) {
	var list []entryOfJournal
	if err := gob.NewDecoder(bytes.NewReader(text)).Decode(&list); err != nil {
		return nil, fmt.Errorf("%w: the journal cannot be read: %w", errDamaged, err)
	}
	for _, e := range list {
		if e.Header == nil {
			e.Header = nats.Header{}
		}
		all = append(all, message{subject: e.Subject, header: e.Header, data: e.Data})
	}
	return all, nil
}
