package bgnats

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc64"
	"strconv"
	"strings"
	"time"
	"unique"

	"github.com/nats-io/nats.go"

	"github.com/bgagent/bgagent"
)

// These headers describe a store's messages. Strings in them are quoted as in Go, so that they can
// contain any bytes and still be read by people.
const (
	headRecord  = "Bgagent-Record"  // the fields of a record; see entry.header
	headSum     = "Bgagent-Sum"     // checksum of the header Bgagent-Record
	headPart    = "Bgagent-Part"    // the fields of a part; see part.header
	headDeleted = "Bgagent-Deleted" // key of a deleted record
)

// headTTL makes the servers delete a message after the given time.
const headTTL = "Nats-TTL"

// keepDeleted is how long the servers keep the message about a deleted record.
const keepDeleted = "168h"

// chunk is the maximum number of bytes in one message. A longer text is split into parts.
const chunk = 128 << 10

var sumTable = crc64.MakeTable(crc64.ECMA)

// sumOf returns a checksum of the strings and of their lengths.
func sumOf(all ...string) (sum uint64) {
	for _, s := range all {
		sum = crc64.Update(sum, sumTable, binary.AppendUvarint(nil, uint64(len(s))))
		sum = crc64.Update(sum, sumTable, []byte(s))
	}
	return sum
}

func sumText(sum uint64) string { return fmt.Sprintf("%016x", sum) }

// errDamaged means that data differs from the data that was written.
var errDamaged = errors.New("it is damaged")

// entry holds what a store keeps in memory about a record.
type entry struct {
	key                          string
	parent, root, session, agent string
	kind                         bgagent.StoreKind
	due                          bool
	status                       bgagent.Status
	launched, ended              time.Time

	version uint64 // number of the batch that wrote the record
	born    uint64 // number of the batch that created the record; later versions of the record keep it
	parts   int    // number of messages that contain the data; 0 if the record's own message contains it
	size    int    // number of bytes of the data
	data    uint64 // checksum of the key and the data

	// The following fields are not part of the header.
	seq     uint64 // sequence number of the message
	sum     uint64 // checksum of the header
	damaged bool   // the record cannot be read
}

// entryOf returns a record's entry, without the sequence number.
func entryOf(r *bgagent.StoreRecord, batch, born uint64) (*entry, error) {
	e := &entry{
		key: r.Key, parent: same(r.Parent), root: same(r.Root), session: r.Session, agent: same(r.Agent), kind: r.Kind, due: r.Due,
		status: r.Status, launched: r.Launched, ended: r.Ended,
		version: batch, born: born, size: len(r.Data), data: sumOf(r.Key, string(r.Data)),
	}
	if e.size > chunk {
		e.parts = partsOf(e.size)
	}
	for _, t := range []*time.Time{&e.launched, &e.ended} {
		if *t = t.UTC().Round(0); t.Year() < 0 || t.Year() > 9999 {
			return nil, fmt.Errorf("the record %q has the year %d, which cannot be stored", r.Key, t.Year())
		}
	}
	h := e.header()
	if len(h) > maxHeader {
		return nil, fmt.Errorf("the fields of the record %q have %d bytes; at most %d can be stored", r.Key, len(h), maxHeader)
	}
	e.sum = sumOf(h)
	return e, nil
}

// maxHeader is the maximum length of one of our headers. The servers allow 65,535 bytes for all
// headers of a message.
const maxHeader = 60_000

// same returns a string that is equal to s. All equal strings that it returns share their memory.
func same(s string) string { return unique.Make(s).Value() }

// header returns the header of the record's message.
func (e *entry) header() string {
	var b strings.Builder
	due := "-"
	if e.due {
		due = "due"
	}
	fmt.Fprintf(&b, "1 %d %s %d %d %d %d %016x %s %s", e.kind, due, e.version, e.born, e.parts, e.size, e.data,
		e.launched.Format(time.RFC3339Nano), e.ended.Format(time.RFC3339Nano))
	for _, s := range [...]string{e.key, e.parent, e.root, e.session, e.agent, e.status.String()} {
		b.WriteByte(' ')
		b.WriteString(strconv.QuoteToASCII(s))
	}
	return b.String()
}

// The method "message" returns the record's message. If the data is long, the message does not
// contain it; see part.
func (e *entry) message(n names, data []byte) message {
	m := message{subject: n.record(e.key), header: nats.Header{headRecord: {e.header()}, headSum: {sumText(e.sum)}}}
	if e.parts == 0 {
		m.data = data
	}
	return m
}

// readEntry decodes the headers of a record's message.
func readEntry(h nats.Header) (*entry, error) {
	text := h.Get(headRecord)
	e := &entry{sum: sumOf(text)}
	if h.Get(headSum) != sumText(e.sum) {
		return nil, fmt.Errorf("%w: the checksum of its header is wrong", errDamaged)
	}
	f := fields{rest: text}
	if v := f.number(10); f.err == nil && v != 1 {
		return nil, fmt.Errorf("its format %d is not known: a newer version of bgagent wrote it", v)
	}
	e.kind = bgagent.StoreKind(f.number(10))
	e.due = f.word() == "due"
	e.version, e.born = f.number(10), f.number(10)
	e.parts, e.size = int(f.number(10)), int(f.number(10))
	e.data = f.number(16)
	e.launched, e.ended = f.time(), f.time()
	e.key, e.parent, e.root, e.session = f.quoted(), same(f.quoted()), same(f.quoted()), f.quoted()
	e.agent = same(f.quoted())
	f.fail(e.status.UnmarshalText([]byte(f.quoted())))
	if f.err == nil && f.rest != "" {
		f.err = errors.New("more follows")
	}
	if f.err != nil {
		return nil, fmt.Errorf("%w: its header cannot be read: %w", errDamaged, f.err)
	}
	return e, nil
}

// record returns the record, or an error if the data differs from the data that was written.
func (e *entry) record(data []byte) (bgagent.StoreRecord, error) {
	if len(data) != e.size || sumOf(e.key, string(data)) != e.data {
		return bgagent.StoreRecord{}, fmt.Errorf("%w: the checksum of its data is wrong", errDamaged)
	}
	return bgagent.StoreRecord{
		Key: e.key, Kind: e.kind, Due: e.due, Data: data, Parent: e.parent, Root: e.root, Session: e.session, Agent: e.agent,
		Status: e.status, Launched: e.launched, Ended: e.ended,
	}, nil
}

// isEnded reports whether the record belongs to the history.
func (e *entry) isEnded() bool { return e.kind == bgagent.StoreTask && !e.ended.IsZero() }

// part describes a text, or the data of a record, that is stored in one or more messages.
type part struct {
	key, name string // name of the text; empty for data
	of        uint64 // for a text, entry.born of its record; for data, entry.version
	count     int    // number of parts
	size      int    // number of bytes of the whole text or data
	sum       uint64 // checksum of the key, the name, and the whole text or data
}

// partsOf returns the number of parts of a text.
func partsOf(size int) int { return max(1, (size-1)/chunk+1) }

func partOf(key, name string, of uint64, whole string) part {
	return part{key: key, name: name, of: of, count: partsOf(len(whole)), size: len(whole), sum: sumOf(key, name, whole)}
}

// header returns the header of part i.
func (p part) header(i int) string {
	return fmt.Sprintf("1 %d %d %d %d %016x %s %s", p.of, i, p.count, p.size, p.sum, strconv.QuoteToASCII(p.key), strconv.QuoteToASCII(p.name))
}

// messages returns the messages of all parts. The subject of each part begins with base.
func (p part) messages(base, whole string) (all []message, err error) {
	for i := range p.count {
		h := p.header(i)
		if len(h) > maxHeader {
			return nil, fmt.Errorf("the name of a text of the record %q has %d bytes, which is too many", p.key, len(p.name))
		}
		piece := whole[i*chunk : min(len(whole), (i+1)*chunk)]
		all = append(all, message{subject: base + strconv.Itoa(i), header: nats.Header{headPart: {h}}, data: []byte(piece)})
	}
	return all, nil
}

// readPart decodes the header of a part, and returns the number of the part.
func readPart(h nats.Header) (p part, i int, err error) {
	f := fields{rest: h.Get(headPart)}
	if v := f.number(10); f.err == nil && v != 1 {
		return p, 0, fmt.Errorf("its format %d is not known: a newer version of bgagent wrote it", v)
	}
	p.of, i = f.number(10), int(f.number(10))
	p.count, p.size, p.sum = int(f.number(10)), int(f.number(10)), f.number(16)
	p.key, p.name = f.quoted(), f.quoted()
	if f.err == nil && (p.size < 0 || p.count != partsOf(p.size)) {
		f.err = fmt.Errorf("%d bytes do not make %d parts", p.size, p.count)
	}
	if f.err != nil {
		return p, 0, fmt.Errorf("%w: its header cannot be read: %w", errDamaged, f.err)
	}
	return p, i, nil
}

// The function "deleted" returns the message that marks the record with the given key as deleted.
func deleted(n names, key string) message {
	return message{subject: n.record(key), header: nats.Header{headDeleted: {strconv.QuoteToASCII(key)}, headTTL: {keepDeleted}}}
}

// fields parses a header's fields. After an error, it returns zero values.
type fields struct {
	rest string
	err  error
}

func (f *fields) word() string {
	w, rest, _ := strings.Cut(f.rest, " ")
	f.rest = rest
	return w
}

func (f *fields) number(base int) uint64 {
	n, err := strconv.ParseUint(f.word(), base, 64)
	f.fail(err)
	return n
}

func (f *fields) time() time.Time {
	t, err := time.Parse(time.RFC3339Nano, f.word())
	f.fail(err)
	return t.UTC()
}

func (f *fields) quoted() string {
	q, err := strconv.QuotedPrefix(f.rest)
	f.fail(err)
	f.rest = strings.TrimPrefix(f.rest[len(q):], " ")
	s, err := strconv.Unquote(q)
	f.fail(err)
	return s
}

func (f *fields) fail(err error) {
	if f.err == nil {
		f.err = err
	}
}
