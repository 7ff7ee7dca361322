package sqlite

import (
	"encoding/binary"
	"fmt"
	"hash/crc64"
	"time"

	"github.com/bgagent/bgagent"
)

var sumTable = crc64.MakeTable(crc64.ECMA)

// sumOf returns a checksum of the parts and of their lengths.
func sumOf(parts ...string) int64 {
	var sum uint64
	for _, p := range parts {
		sum = crc64.Update(sum, sumTable, binary.AppendUvarint(nil, uint64(len(p))))
		sum = crc64.Update(sum, sumTable, []byte(p))
	}
	return int64(sum)
}

// row is a record as it is stored in the table.
type row struct {
	key string
	due bool
	header
	status string
	data   string
}

// header contains the columns of a row that rarely change.
type header struct{ kind, agent, parent, root, session, launched, ended string }

func (r *row) sum() int64 {
	due := "0"
	if r.due {
		due = "1"
	}
	return sumOf(r.key, r.kind, due, r.status, r.agent, r.parent, r.root, r.session, r.launched, r.ended, r.data)
}

var kinds = [...]string{bgagent.StoreManager: "manager", bgagent.StoreTask: "task", bgagent.StoreSession: "session"}

// timeForm is a time format that sorts correctly as a string and that people
// can read.
const timeForm = "2006-01-02T15:04:05.000000000Z"

func timeText(t time.Time) (string, error) {
	if t.IsZero() {
		return "", nil
	}
	if t = t.UTC(); t.Year() < 0 || t.Year() > 9999 {
		return "", fmt.Errorf("the year %d cannot be stored", t.Year())
	}
	return t.Format(timeForm), nil
}

func textTime(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	return time.Parse(timeForm, s)
}

// toRow converts a record to a row.
func toRow(r *bgagent.StoreRecord) (out row, err error) {
	if int(r.Kind) >= len(kinds) {
		return out, fmt.Errorf("the record %q has the unknown kind %d", r.Key, r.Kind)
	}
	out = row{
		key: r.Key, due: r.Due, status: r.Status.String(), data: string(r.Data),
		header: header{kind: kinds[r.Kind], agent: r.Agent, parent: r.Parent, root: r.Root, session: r.Session},
	}
	if out.launched, err = timeText(r.Launched); err == nil {
		out.ended, err = timeText(r.Ended)
	}
	if err != nil {
		return out, fmt.Errorf("the record %q: %w", r.Key, err)
	}
	return out, nil
}

// record converts a row to a record.
func (r *row) record() (out bgagent.StoreRecord, err error) {
	out = bgagent.StoreRecord{
		Key: r.key, Due: r.due, Data: []byte(r.data), Parent: r.parent, Root: r.root, Session: r.session, Agent: r.agent,
	}
	known := false
	for k, name := range kinds {
		if name == r.kind {
			out.Kind, known = bgagent.StoreKind(k), true
		}
	}
	if !known {
		return out, fmt.Errorf("its kind is %q, which this version does not know", r.kind)
	}
	if err = out.Status.UnmarshalText([]byte(r.status)); err != nil {
		return out, err
	}
	if out.Launched, err = textTime(r.launched); err == nil {
		out.Ended, err = textTime(r.ended)
	}
	return out, err
}
