package bgnats

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
)

func TestTokensAreDifferentAndValidInSubjects(t *testing.T) {
	seen := map[string]string{}
	for _, key := range []string{"", "a", "A", "a.b", "a>", "*", " ", "\x00", "\xff", "é", strings.Repeat("x", longToken-1), strings.Repeat("x", longToken), strings.Repeat("x", longToken+1)} {
		tok := token(key)
		require.NotContains(t, seen, tok)
		seen[tok] = key
		require.Regexp(t, `^[kh][A-Za-z0-9_-]*$`, tok)
		require.Less(t, len(tok), 1000)
		back, known := untoken(tok)
		require.Equal(t, len(key) < longToken, known)
		if known {
			require.Equal(t, key, back)
		}
	}
}

func TestRecordsThatCannotBeStoredAreRefused(t *testing.T) {
	for want, r := range map[string]bgagent.StoreRecord{
		"the year 10000, which cannot be stored": {Key: "a", Launched: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)},
		"at most 60000 can be stored":            {Key: "a", Parent: strings.Repeat("x", maxHeader)},
	} {
		_, err := entryOf(&r, 1, 1)
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, `the record "a"`)
	}
	_, err := partOf("a", strings.Repeat("x", maxHeader), 1, "text").messages("x", "text")
	require.ErrorContains(t, err, "the name of a text of the record \"a\" has 60000 bytes")
}

func TestANewerFormatIsNotTakenForDamage(t *testing.T) {
	text := "2 and whatever follows"
	h := nats.Header{headRecord: {text}, headSum: {sumText(sumOf(text))}}
	_, err := readEntry(h)
	require.ErrorContains(t, err, "its format 2 is not known: a newer version of bgagent wrote it")
	require.NotErrorIs(t, err, errDamaged)
}

func FuzzARecordIsReadBackOrRefused(f *testing.F) {
	e, err := entryOf(&bgagent.StoreRecord{Key: "k\x00\xff \"", Parent: "p", Agent: "", Due: true, Data: []byte("d"), Launched: time.Unix(1, 2)}, 7, 3)
	require.NoError(f, err)
	f.Add(e.header())
	f.Add("1 1 due 1 1 0 0 0 0001-01-01T00:00:00Z 0001-01-01T00:00:00Z \"\" \"\" \"\" \"\" \"\" \"pending\"")
	f.Add("1 1")
	f.Fuzz(func(t *testing.T, text string) {
		e, err := readEntry(nats.Header{headRecord: {text}, headSum: {sumText(sumOf(text))}})
		if err != nil {
			return
		}
		e.sum = sumOf(e.header())
		again, err := readEntry(e.message(names{}, nil).header)
		require.NoError(t, err)
		require.Equal(t, e, again)
	})
}

func FuzzAPartIsReadBackOrRefused(f *testing.F) {
	f.Add(partOf("key", "na\nme", 3, "text").header(0))
	f.Add("1 2 3 4 5 6 \"a\" \"b\"")
	f.Fuzz(func(t *testing.T, text string) {
		p, i, err := readPart(nats.Header{headPart: {text}})
		if err != nil {
			return
		}
		again, j, err := readPart(nats.Header{headPart: {p.header(i)}})
		require.NoError(t, err)
		require.Equal(t, p, again)
		require.Equal(t, i, j)
	})
}

func FuzzAJournalIsReadBackOrRefused(f *testing.F) {
	text, err := encodeJournal([]message{{subject: "a", header: nats.Header{"x": {"y"}}, data: []byte("z")}, {subject: "b"}})
	require.NoError(f, err)
	f.Add(text)
	f.Add([]byte("nothing"))
	f.Fuzz(func(t *testing.T, text []byte) {
		all, err := decodeJournal(text)
		if err != nil {
			require.ErrorIs(t, err, errDamaged)
			return
		}
		for _, m := range all {
			m.expect(1) // adds a header
		}
	})
}
