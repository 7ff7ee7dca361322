package bgnats

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/bgagent/bgagent"
)

// load reads the headers of all records, and the data of the records that are due. The store belongs to this
// owner, so no other process changes it.
func (s *Store) load(ctx context.Context) (c bgagent.StoreContents, err error) {
	if s.meta.Journal != nil {
		if err := s.finish(ctx); err != nil {
			return c, fmt.Errorf("a large batch cannot be applied: %w", err)
		}
		s.meta.before = s.meta.seq
	}
	if err := s.w.patiently(ctx, func(ctx context.Context) error { return s.w.purge(ctx, s.w.root+".j.>", 0) }); err != nil {
		return c, err
	}
	found, err := s.scan(ctx)
	if err != nil {
		return c, fmt.Errorf("the records cannot be listed: %w", err)
	}
	c.Batch, c.Damage = s.meta.Batch, found.damage
	if found.due != s.meta.Due || found.dueSum != s.meta.DueSum {
		c.Damage = append(c.Damage, bgagent.StoreDamage{
			Problem: fmt.Sprintf("the stream has %d records of live or owed tasks, but %d were written: some were lost or changed", found.due, s.meta.Due),
		})
		s.meta.Due, s.meta.DueSum = found.due, found.dueSum
	}
	var due []*entry
	for _, e := range found.entries {
		if e.due && !e.damaged {
			due = append(due, e)
		}
	}
	slices.SortFunc(due, func(a, b *entry) int { return cmp.Compare(a.key, b.key) })
	var read []reading
	if err := s.w.connected(ctx, func() (err error) { read, err = s.records(ctx, due); return err }); err != nil {
		return c, err
	}
	for i, r := range read {
		if r.err == nil {
			c.Records = append(c.Records, r.record)
			continue
		}
		bad := *due[i]
		bad.damaged = true
		found.entries[bad.key] = &bad
		c.Damage = append(c.Damage, bgagent.StoreDamage{Key: bad.key, Problem: r.err.Error()})
	}
	s.index.install(found.entries)
	s.graves = found.graves
	return c, nil
}

// contents is the information in the headers of the messages.
type contents struct {
	entries map[string]*entry
	graves  []grave // records whose texts might still be in the stream
	damage  []bgagent.StoreDamage
	due     int
	dueSum  uint64
}

// scan reads the headers of all records. It stops at the message about the store itself whose sequence number
// is in s.meta. It has then read all earlier messages, no matter which server answered. If that message has
// been replaced, the error is a [*bgagent.StoreOwnedError].
func (s *Store) scan(ctx context.Context) (*contents, error) {
	js, err := jetstream.New(s.w.nc)
	if err != nil {
		return nil, err
	}
	from, err := s.consumer(ctx, js)
	if err != nil {
		return nil, err
	}
	messages, err := from.Messages()
	if err != nil {
		return nil, err
	}
	defer messages.Stop()
	all := &contents{entries: map[string]*entry{}}
	for {
		m, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return nil, err
		}
		at, err := m.Metadata()
		if err != nil {
			return nil, err
		}
		seq := at.Sequence.Stream
		if m.Subject() != s.w.meta() {
			all.add(s, m, seq)
			continue
		}
		switch {
		case seq == s.meta.seq:
			return all, nil
		case seq > s.meta.seq:
			now, err := s.w.readMeta(ctx)
			if err != nil {
				return nil, err
			}
			return nil, &bgagent.StoreOwnedError{Owner: now.Owner}
		}
	}
}

// The method "consumer" returns a consumer that delivers the headers of all records. The servers can assign
// the consumer to a server that has just died. In that case, no server answers, so the method asks again. The
// servers delete the consumer of an unanswered call, because nothing uses it.
func (s *Store) consumer(ctx context.Context, js jetstream.JetStream) (jetstream.Consumer, error) {
	for wait := askAgain; ; wait *= 2 {
		asking, cancel := context.WithTimeout(ctx, wait)
		from, err := js.OrderedConsumer(asking, s.w.stream, jetstream.OrderedConsumerConfig{
			FilterSubjects: []string{s.w.meta(), s.w.root + ".r.*"}, HeadersOnly: true,
		})
		silent := asking.Err() != nil
		cancel()
		if err == nil || ctx.Err() != nil || !silent || wait >= answerWithin {
			return from, err
		}
	}
}

// The method "add" adds a message's header to the contents.
func (c *contents) add(s *Store, m jetstream.Msg, seq uint64) {
	h := m.Headers()
	if quoted := h.Get(headDeleted); quoted != "" {
		key, err := strconv.Unquote(quoted)
		if err == nil && seq > s.meta.Swept {
			c.graves = append(c.graves, grave{key, seq})
		}
		return
	}
	key, _ := untoken(m.Subject()[strings.LastIndexByte(m.Subject(), '.')+1:])
	e, err := readEntry(h)
	if err == nil && s.w.record(e.key) != m.Subject() {
		err = fmt.Errorf("%w: it has the subject of another record", errDamaged)
	}
	if err != nil {
		c.damage = append(c.damage, bgagent.StoreDamage{Key: key, Problem: fmt.Sprintf("the message %d on %s: %v", seq, m.Subject(), err)})
		return
	}
	e.seq = seq
	if seq > s.meta.before {
		// Each batch ends with a message about the store. The message m comes after the last of them, so it
		// does not belong to a complete batch.
		e.damaged = true
		c.damage = append(c.damage, bgagent.StoreDamage{Key: e.key, Problem: "its batch is incomplete, or another program has written it"})
	}
	c.entries[e.key] = e
	if e.due {
		c.due, c.dueSum = c.due+1, c.dueSum+e.sum
	}
}

// reading is the result of reading one record.
type reading struct {
	record bgagent.StoreRecord
	err    error // matches errDamaged or errGone, if the record cannot be read
}

// errGone is the error for a record whose message is no longer in the stream.
var errGone = errors.New("its message is gone")

// records reads the records of the entries from the stream.
func (s *Store) records(ctx context.Context, all []*entry) (out []reading, err error) {
	for group := range slices.Chunk(all, maxGet) {
		subjects := make([]string, len(group))
		for i, e := range group {
			subjects[i] = s.w.record(e.key)
		}
		found, err := s.w.latest(ctx, subjects)
		if err != nil {
			return nil, err
		}
		for i, e := range group {
			m, is := found[subjects[i]]
			if !is || m.seq != e.seq { // the server that answered might lag behind the leader
				if m, is, err = s.w.at(ctx, e.seq); err != nil {
					return nil, err
				}
				if !is || m.subject != subjects[i] {
					out = append(out, reading{err: errGone})
					continue
				}
			}
			r, err := s.record(ctx, e, m.data)
			if err != nil && !errors.Is(err, errDamaged) && !errors.Is(err, errGone) {
				return nil, err
			}
			out = append(out, reading{r, err})
		}
	}
	return out, nil
}

// record returns the record of the entry. data is the body of the record's message.
func (s *Store) record(ctx context.Context, e *entry, data []byte) (bgagent.StoreRecord, error) {
	if e.parts > 0 {
		whole, found, err := s.w.whole(ctx, s.w.parts(e.key, dataName), part{key: e.key, of: e.version})
		if err != nil {
			return bgagent.StoreRecord{}, err
		}
		if !found {
			return bgagent.StoreRecord{}, errGone
		}
		data = []byte(whole)
	}
	return e.record(data)
}

// whole returns a text, or data, that was written in parts. It is identified by the fields "key", "name" and
// "of" in want. If the stream does not contain it, whole returns false.
func (w *wire) whole(ctx context.Context, base string, want part) (text string, found bool, err error) {
	if text, found, err = w.assemble(base, want, func(subjects []string) (map[string]message, error) {
		return w.latest(ctx, subjects)
	}); found && err == nil || err != nil && !errors.Is(err, errDamaged) {
		return text, found, err
	}
	return w.assemble(base, want, func(subjects []string) (map[string]message, error) { // asks the leader, because the server that answered might lag behind
		all := map[string]message{}
		for _, subject := range subjects {
			m, is, err := w.last(ctx, subject)
			if err != nil {
				return nil, err
			}
			if is {
				all[subject] = m
			}
		}
		return all, nil
	})
}

// assemble joins the parts that the function "get" returns.
func (w *wire) assemble(base string, want part, get func(subjects []string) (map[string]message, error)) (text string, found bool, err error) {
	all, err := get([]string{base + "0"})
	if err != nil || len(all) == 0 {
		return "", false, err
	}
	first, _, err := readPart(all[base+"0"].header)
	if err != nil {
		return "", false, err
	}
	if first.of != want.of || first.key != want.key || first.name != want.name {
		return "", false, nil // the part belongs to an earlier record with the same key
	}
	var b strings.Builder
	for done := 0; done < first.count; {
		var subjects []string
		for i := done; i < min(done+maxGet, first.count); i++ {
			subjects = append(subjects, base+strconv.Itoa(i))
		}
		if first.count > 1 {
			if all, err = get(subjects); err != nil {
				return "", false, err
			}
		}
		for _, subject := range subjects {
			p, i, err := readPart(all[subject].header)
			if done++; err != nil || p != first || i != done-1 {
				return "", false, fmt.Errorf("%w: part %d of %d is missing or belongs to another text", errDamaged, done, first.count)
			}
			b.Write(all[subject].data)
		}
	}
	if text = b.String(); len(text) != first.size || sumOf(first.key, first.name, text) != first.sum {
		return "", false, fmt.Errorf("%w: its checksum is wrong", errDamaged)
	}
	return text, true, nil
}

// intact returns the entries of records that are not damaged.
func intact(all map[string]*entry) func(func(*entry) bool) {
	return func(yield func(*entry) bool) {
		for e := range maps.Values(all) {
			if !e.damaged && !yield(e) {
				return
			}
		}
	}
}
