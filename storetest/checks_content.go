package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bgagent/bgagent"
)

// contentChecks are the checks of the contents that a store returns.
var contentChecks = []check{
	{name: "new store", why: "tasks that do not exist would be continued", run: checkNewStore},
	{name: "fields", why: "people and the indexes rely on the fields", run: checkFields},
	{name: "data byte for byte", why: "a changed record describes a different task", run: checkData},
	{name: "odd keys", why: "keys can be session ids, which come from other programs", run: checkOddKeys},
	{name: "texts byte for byte", why: "the result is the purpose of the task", run: checkTexts},
	{name: "texts of their own records", why: "a task would show the answer of another task", run: checkTextsApart},
	{name: "no text", why: "a missing text is not an empty text", run: checkNoText},
	{name: "replaced", why: "a later record replaces the earlier one, and the task's texts remain", run: checkReplaced},
	{name: "texts once", why: "a result that was shown must not change", run: checkTextsOnce},
	{name: "deleted with its texts", why: "a user who deletes a task expects its texts to be deleted", run: checkDeleted},
	{name: "only what is due", why: "the time of Open must depend only on the live tasks", run: checkOnlyDue},
	{name: "order of keys", why: "recovery processes the records in a fixed order", run: checkOrder},
	{name: "many", why: "a limit on the number of records read would lose tasks", run: checkMany},
	{name: "the batch is the manager's", why: "the manager reuses its slices", run: checkCopies},
	{name: "damage", why: "a damaged record must neither count as intact nor block the others", needs: []need{aDamage}, run: checkDamage},
	{name: "damaged text", why: "a result that has changed must not be shown", needs: []need{aBadText}, run: checkDamagedText},
}

func checkNewStore(c *checkContext) {
	_, contents := c.open()
	c.due(contents)
	if contents.Outdated != "" {
		c.failf("a new store is reported as outdated: %s", contents.Outdated)
	}
}

func checkFields(c *checkContext) {
	s, _ := c.open()
	zone := time.FixedZone("elsewhere", 5*3600+30*60)
	all := []bgagent.StoreRecord{
		{Key: "a", Kind: bgagent.StoreTask, Due: true, Data: []byte("1"), Parent: "p", Root: "r", Session: "s", Agent: "ag", Status: bgagent.Failed,
			Launched: time.Date(2026, 2, 3, 4, 5, 6, 123456789, zone), Ended: time.Date(2026, 12, 31, 23, 59, 59, 999999999, time.UTC)},
		{Key: "b", Kind: bgagent.StoreSession, Due: true, Data: []byte("2")},
		{Key: "c", Kind: bgagent.StoreManager, Due: true, Data: []byte("3")},
		{Key: "d", Kind: bgagent.StoreTask, Due: true, Data: []byte("4"), Launched: time.Date(2200, 1, 1, 0, 0, 0, 1, time.UTC)},
		{Key: "e", Kind: bgagent.StoreTask, Due: true, Launched: time.Now()}, // the time has a monotonic clock reading
	}
	c.write(s, c.next(all...))
	_, contents := c.reopen(s)
	c.due(contents, all...)
	if !contents.Records[1].Launched.IsZero() || !contents.Records[0].Ended.Equal(all[0].Ended) {
		c.failf("a time that was zero is %v", contents.Records[1].Launched)
	}
}

// The constant "odd" contains bytes that programs often change by mistake.
const odd = "nul \x00, not UTF-8 \xff\xfe\xc3\x28, CRLF \r\n, BOM \ufeff, quotes '\"`, % \\ \u2028 😀, trailing space and nul \x00 \x00"

func checkData(c *checkContext) {
	s, _ := c.open()
	var all []bgagent.StoreRecord
	for i, data := range []string{"", odd, strings.Repeat(odd, 1<<20/len(odd)), "\x00", strings.Repeat("\x00", 70_000)} {
		r := live(fmt.Sprintf("task_%d", i))
		r.Data = []byte(data)
		all = append(all, r)
	}
	c.write(s, c.next(all...))
	_, contents := c.reopen(s)
	c.due(contents, all...)
}

func checkOddKeys(c *checkContext) {
	s, _ := c.open()
	var all []bgagent.StoreRecord
	for _, key := range []string{"a", "a ", "A", "a\x00", "a\x00b", "\xff", "é", "e\u0301", "'; --", odd} {
		r := live(key)
		r.Parent, r.Session = key, key
		all = append(all, r)
	}
	b := c.next(all...)
	for _, r := range all {
		b.Texts = append(b.Texts, bgagent.StoreText{Record: r.Key, Name: r.Key, Text: "text of " + r.Key})
	}
	c.write(s, b)
	s, contents := c.reopen(s)
	slices.SortFunc(all, func(a, b bgagent.StoreRecord) int { return strings.Compare(a.Key, b.Key) })
	c.due(contents, all...)
	for _, r := range all {
		c.text(s, r.Key, r.Key, "text of "+r.Key)
	}
	c.write(s, &bgagent.StoreBatch{Number: c.batch + 1, Delete: []string{"a", "a\x00"}})
	_, contents = c.reopen(s)
	c.due(contents, slices.DeleteFunc(all, func(r bgagent.StoreRecord) bool { return r.Key == "a" || r.Key == "a\x00" })...)
}

func checkTexts(c *checkContext) {
	s, _ := c.open()
	texts := []string{"", "short", odd, "\x00", strings.Repeat("x", 3000), strings.Repeat(odd, 1<<20/len(odd)), strings.Repeat("\n", 1<<20)}
	b := c.next(live("task"))
	for i, text := range texts {
		b.Texts = append(b.Texts, bgagent.StoreText{Record: "task", Name: fmt.Sprint("text.", i), Text: text})
	}
	c.write(s, b)
	for range 2 { // first in the process that wrote the texts, then in the next process
		for i, text := range texts {
			c.text(s, "task", fmt.Sprint("text.", i), text)
		}
		s, _ = c.reopen(s)
	}
}

func checkTextsApart(c *checkContext) {
	s, _ := c.open()
	b := c.next(live("a"), live("a.b"), live("a/b"), live("ab"))
	pairs := [][2]string{{"a", "b.c"}, {"a.b", "c"}, {"a", "b/c"}, {"a/b", "c"}, {"a", "bc"}, {"ab", "c"}, {"a", "b\x00c"}, {"a", "B.c"}}
	for i, p := range pairs {
		b.Texts = append(b.Texts, bgagent.StoreText{Record: p[0], Name: p[1], Text: fmt.Sprint("text ", i)})
	}
	c.write(s, b)
	for i, p := range pairs {
		c.text(s, p[0], p[1], fmt.Sprint("text ", i))
	}
}

// noText fails the check if the store contains the text.
func (c *checkContext) noText(s bgagent.Store, record, name string) {
	c.Helper()
	if text, err := s.Text(c.Context(), record, name); !errors.Is(err, bgagent.ErrNoText) {
		c.failf("there is no text %q of %q; Text returned %q and %v instead of ErrNoText", name, record, short(text), err)
	}
}

func checkNoText(c *checkContext) {
	s, _ := c.open()
	b := c.next(live("a"), live("b"))
	b.Texts = []bgagent.StoreText{{Record: "a", Name: "prompt.1", Text: "x"}}
	c.write(s, b)
	c.noText(s, "a", "prompt.2")
	c.noText(s, "b", "prompt.1")
	c.noText(s, "nobody", "prompt.1")
}

func checkReplaced(c *checkContext) {
	s, _ := c.open()
	b := c.next(live("a"), live("b"))
	b.Texts = []bgagent.StoreText{{Record: "a", Name: "prompt.1", Text: "the prompt"}}
	c.write(s, b)
	again := live("a")
	again.Data, again.Status, again.Agent = []byte("later"), bgagent.Failed, "another"
	b = c.next(again)
	b.Texts = []bgagent.StoreText{{Record: "a", Name: "result.1", Text: "the result"}}
	c.write(s, b)
	s, contents := c.reopen(s)
	c.due(contents, again, live("b"))
	c.text(s, "a", "prompt.1", "the prompt")
	c.text(s, "a", "result.1", "the result")
}

func checkTextsOnce(c *checkContext) {
	s, _ := c.open()
	b := c.next(live("a"))
	b.Texts = []bgagent.StoreText{{Record: "a", Name: "result.1", Text: "the result"}}
	c.write(s, b)
	b.Number++ // write the same text again
	c.write(s, b)
	b = c.next(live("b"))
	b.Texts = []bgagent.StoreText{{Record: "a", Name: "result.1", Text: "another"}}
	if err := s.Write(c.Context(), b); err == nil {
		c.failf("the store accepted a different text under an existing name")
	}
	b = c.next(live("b"))
	b.Texts = []bgagent.StoreText{{Record: "nobody", Name: "result.1", Text: "of nobody"}}
	if err := s.Write(c.Context(), b); err == nil {
		c.failf("the store accepted a text for a record that does not exist")
	}
	s, contents := c.reopen(s)
	c.due(contents, live("a"))
	c.text(s, "a", "result.1", "the result")
}

func checkDeleted(c *checkContext) {
	s, _ := c.open()
	b := c.next(live("a"), live("b"), ended("old", 0))
	for _, key := range []string{"a", "b", "old"} {
		b.Texts = append(b.Texts, bgagent.StoreText{Record: key, Name: "prompt.1", Text: "prompt of " + key})
	}
	c.write(s, b)
	c.write(s, &bgagent.StoreBatch{Number: c.batch + 1, Delete: []string{"a", "old", "never there"}})
	c.noText(s, "a", "prompt.1")
	s, contents := c.reopen(s)
	c.due(contents, live("b"))
	c.noText(s, "old", "prompt.1")
	if page := c.history(s, bgagent.StoreQuery{}); len(page) != 0 {
		c.failf("a deleted task is in the history: %s", keysOf(page))
	}
	b = c.next(live("a")) // a new record with the key of a deleted record
	b.Texts = []bgagent.StoreText{{Record: "a", Name: "prompt.2", Text: "new"}}
	c.write(s, b)
	c.noText(s, "a", "prompt.1")
	c.text(s, "b", "prompt.1", "prompt of b")
}

func checkOnlyDue(c *checkContext) {
	s, _ := c.open()
	owed, told := ended("owed", 0), ended("told", 0)
	owed.Due = true
	c.write(s, c.next(live("a"), owed, told, live("b"), live("later told")))
	b := live("b")
	b.Due = false
	later := owed
	later.Key, later.Due = "later told", false
	again := told
	again.Due = true
	c.write(s, c.next(b, later, again))
	_, contents := c.reopen(s)
	c.due(contents, live("a"), owed, again)
}

func checkOrder(c *checkContext) {
	s, _ := c.open()
	for _, key := range []string{"m", "z", "a", "B", "aa", "b", "10", "9"} {
		c.write(s, c.next(live(key)))
	}
	_, contents := c.reopen(s)
	c.due(contents, live("10"), live("9"), live("B"), live("a"), live("aa"), live("b"), live("m"), live("z"))
}

func checkMany(c *checkContext) {
	s, _ := c.open()
	var all []bgagent.StoreRecord
	for i := range 10_000 {
		all = append(all, live(fmt.Sprintf("task_%05d", i)))
	}
	c.write(s, c.next(all[:7000]...))
	for part := range slices.Chunk(all[7000:], 300) {
		c.write(s, c.next(part...))
	}
	_, contents := c.reopen(s)
	c.due(contents, all...)
}

func checkCopies(c *checkContext) {
	s, _ := c.open()
	want := ended("a", 0)
	want.Due = true
	b := c.next(want)
	b.Records[0].Data = bytes.Clone(want.Data)
	c.write(s, b)
	b.Records[0].Data[0] ^= 0xff
	b.Records[0].Key = "changed"
	page := c.history(s, bgagent.StoreQuery{})
	if err := sameRecords("History", []bgagent.StoreRecord{want}, page); err != nil {
		c.failf("after a change to the batch: %v", err)
	}
	page[0].Data[0] ^= 0xff
	s, contents := c.reopen(s)
	c.due(contents, want)
	contents.Records[0].Data[0] ^= 0xff
	if err := sameRecords("History", []bgagent.StoreRecord{want}, c.history(s, bgagent.StoreQuery{})); err != nil {
		c.failf("after a change to the result of Open: %v", err)
	}
}

func checkDamage(c *checkContext) {
	s, _ := c.open()
	b := c.next(live("a"), live("bad"), live("c"), ended("old", 0), ended("bad old", time.Second))
	b.Texts = []bgagent.StoreText{{Record: "c", Name: "prompt.1", Text: "fine"}}
	c.write(s, b)
	if err := s.Close(); err != nil {
		c.failf("Close failed: %v", err)
	}
	c.content.Damage("bad")
	c.content.Damage("bad old")
	s, contents := c.open()
	if err := sameRecords("Open", []bgagent.StoreRecord{live("a"), live("c")}, contents.Records); err != nil {
		c.failf("next to a damaged record: %v", err)
	}
	if !slices.ContainsFunc(contents.Damage, func(d bgagent.StoreDamage) bool { return d.Key == "bad" && d.Problem != "" }) {
		c.failf("the record %q is damaged; Open reports %v", "bad", contents.Damage)
	}
	if err := sameRecords("History", []bgagent.StoreRecord{ended("old", 0)}, c.history(s, bgagent.StoreQuery{})); err != nil {
		c.failf("next to a damaged record: %v", err)
	}
	c.text(s, "c", "prompt.1", "fine")
	c.write(s, c.next(live("bad"))) // writing the record again repairs it
	_, contents = c.reopen(s)
	contents.Damage = slices.DeleteFunc(contents.Damage, func(d bgagent.StoreDamage) bool { return d.Key == "bad old" })
	c.due(contents, live("a"), live("bad"), live("c"))
}

func checkDamagedText(c *checkContext) {
	s, _ := c.open()
	b := c.next(live("a"))
	for _, name := range []string{"prompt.1", "result.1"} {
		b.Texts = append(b.Texts, bgagent.StoreText{Record: "a", Name: name, Text: strings.Repeat("the text of "+name+" ", 500)})
	}
	c.write(s, b)
	if err := s.Close(); err != nil {
		c.failf("Close failed: %v", err)
	}
	c.content.DamageText("a", "result.1")
	s, contents := c.open()
	c.due(contents, live("a"))
	c.text(s, "a", "prompt.1", b.Texts[0].Text)
	if text, err := s.Text(c.Context(), "a", "result.1"); err == nil || errors.Is(err, bgagent.ErrNoText) {
		c.failf("a text has changed on the disk; Text returned %q and the error %v", short(text), err)
	}
}
