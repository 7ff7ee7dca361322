package storetest

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
)

// inMemory returns the content of an in-memory store, with all the functions that checks
// need.
func inMemory(m *Memory, process func() bgagent.Store, unwrap func(bgagent.Store) *Process) Content {
	once := func(kinds ...FaultKind) func(uint64, int) Fault {
		return func(uint64, int) (f Fault) {
			if len(kinds) > 0 {
				f.Kind, kinds = kinds[0], kinds[1:]
			}
			return f
		}
	}
	return Content{
		Process: process,
		Crash:   func(s bgagent.Store) { unwrap(s).Crash() },
		CrashAt: func(_ bgagent.Store, place int) {
			places := []FaultKind{CrashBefore, CrashAfter}
			m.SetFaults(once(places[min(place, 2):min(place+1, 2)]...))
		},
		LoseAnswer: func(bgagent.Store) {
			kind := LostWritten
			if m.Batch()%2 == 1 {
				kind = LostUnwritten
			}
			m.SetFaults(once(kind))
		},
		Damage:     m.Damage,
		DamageText: m.DamageText,
	}
}

func TestMemoryKeepsThePromisesOfAStore(t *testing.T) {
	Conformance(t, Harness{New: func(TB) Content {
		m := &Memory{}
		return inMemory(m, func() bgagent.Store { return m.Process() }, func(s bgagent.Store) *Process { return s.(*Process) })
	}})
}

func TestAStoreThatCanBeReopenedKeepsThePromisesOfAStore(t *testing.T) {
	Conformance(t, Harness{New: func(TB) (c Content) {
		reopening(func(*reopener) {})(&Memory{}, &c)
		return c
	}})
}

// The function "opened" returns a new in-memory store with the given faults, and a process that has
// opened it.
func opened(t *testing.T, faults func(batch uint64, try int) Fault) (*Memory, *Process) {
	t.Helper()
	m := &Memory{}
	m.SetFaults(faults)
	p := m.Process()
	if _, err := p.Open(t.Context(), bgagent.StoreOwner{}); err != nil {
		t.Fatal(err)
	}
	return m, p
}

func batch(n uint64) *bgagent.StoreBatch {
	return &bgagent.StoreBatch{Number: n, Records: []bgagent.StoreRecord{live("a"), live("b")}}
}

func TestEachFaultLeavesWhatItSays(t *testing.T) {
	for _, c := range []struct {
		name    string
		kind    FaultKind
		err     error
		there   int // number of records in the store after the Write
		dies    bool
		reopens bool // the store must be opened again before the next Write
	}{
		{name: "no fault", kind: NoFault, there: 2},
		{name: "crash before", kind: CrashBefore, err: ErrDead, dies: true},
		{name: "crash after", kind: CrashAfter, err: ErrDead, there: 2, dies: true},
		{name: "crash with half of it", kind: CrashTorn, err: ErrDead, there: 1, dies: true},
		{name: "refused", kind: Refused, err: ErrRefused},
		{name: "full", kind: Full, err: syscall.ENOSPC},
		{name: "answer lost, written", kind: LostWritten, err: bgagent.ErrUncertain, there: 2, reopens: true},
		{name: "answer lost, not written", kind: LostUnwritten, err: bgagent.ErrUncertain, reopens: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, p := opened(t, func(batch uint64, try int) (f Fault) {
				if batch == 1 && try == 0 {
					f.Kind = c.kind
				}
				return f
			})
			if err := p.Write(t.Context(), batch(1)); !errors.Is(err, c.err) {
				t.Fatalf("Write returned %v", err)
			}
			if n := len(m.Records()); n != c.there {
				t.Errorf("the store has %d records, want %d", n, c.there)
			}
			err := p.Write(t.Context(), batch(m.Batch()+1))
			if again := !c.dies && !c.reopens; again != (err == nil) {
				t.Errorf("the next Write returned %v", err)
			}
			if c.dies {
				p = m.Process()
			} else if err := p.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := p.Open(t.Context(), bgagent.StoreOwner{}); err != nil {
				t.Fatal(err)
			}
			if err := p.Write(t.Context(), batch(m.Batch()+1)); err != nil {
				t.Errorf("Write after Open returned %v", err)
			}
		})
	}
}

func TestASlowWriteEndsWithItsContextOrItsProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, p := opened(t, func(uint64, int) Fault { return Fault{Delay: time.Minute} })
		began := time.Now()
		if err := p.Write(t.Context(), batch(1)); err != nil || time.Since(began) != time.Minute {
			t.Errorf("Write took %v and returned %v", time.Since(began), err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := p.Write(ctx, batch(2)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Write returned %v", err)
		}
		time.AfterFunc(time.Second, p.Crash)
		if err := p.Write(t.Context(), batch(2)); !errors.Is(err, ErrDead) {
			t.Errorf("Write of a dead process returned %v", err)
		}
		if m.Batch() != 1 {
			t.Errorf("batch %d is in the store", m.Batch())
		}
	})
}

func TestCloseWaitsForAWriteThatHasBegun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, p := opened(t, func(uint64, int) Fault { return Fault{Delay: time.Minute} })
		written := make(chan error, 1)
		go func() { written <- p.Write(t.Context(), batch(1)) }()
		synctest.Wait()
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		if err := <-written; err != nil || m.Batch() != 1 {
			t.Errorf("Write returned %v, and batch %d is in the store", err, m.Batch())
		}
	})
}

func TestOutdatedIsSaidUntilABatchIsWritten(t *testing.T) {
	m, p := opened(t, nil)
	m.SetOutdated("it is a copy")
	open := func() string {
		t.Helper()
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		c, err := p.Open(t.Context(), bgagent.StoreOwner{})
		if err != nil {
			t.Fatal(err)
		}
		return c.Outdated
	}
	if a, b := open(), open(); a != "it is a copy" || b != a {
		t.Errorf("Open reported %q and %q", a, b)
	}
	if err := p.Write(t.Context(), batch(1)); err != nil {
		t.Fatal(err)
	}
	if s := open(); s != "" {
		t.Errorf("after a batch, Open reported %q", s)
	}
}

func TestAScriptFindsWhatIsMissingOrChanged(t *testing.T) {
	const n = 40
	script := NewScript(1, n, start)
	m, p := opened(t, nil)
	for i := range n {
		if err := p.Write(t.Context(), script.Batch(i+1)); err != nil {
			t.Fatal(err)
		}
	}
	check := func(acked, tried int, change func(c *bgagent.StoreContents)) string {
		t.Helper()
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		c, err := p.Open(t.Context(), bgagent.StoreOwner{})
		if err != nil {
			t.Fatal(err)
		}
		change(&c)
		if err := script.Check(t.Context(), p, c, acked, tried); err != nil {
			return err.Error()
		}
		return ""
	}
	for _, c := range []struct {
		want         string
		acked, tried int
		change       func(c *bgagent.StoreContents)
	}{
		{"", n, n, func(*bgagent.StoreContents) {}},
		{"", n - 1, n, func(*bgagent.StoreContents) {}},
		{"was acknowledged", n, n, func(c *bgagent.StoreContents) { c.Batch-- }},
		{"had not been written", n - 2, n - 1, func(*bgagent.StoreContents) {}},
		{"instead of", n - 1, n, func(c *bgagent.StoreContents) { c.Batch-- }},
		{"instead of", n, n, func(c *bgagent.StoreContents) { c.Records = c.Records[1:] }},
		{"the data of", n, n, func(c *bgagent.StoreContents) { c.Records[0].Data[0]++ }},
		{"the times of", n, n, func(c *bgagent.StoreContents) { c.Records[0].Launched = c.Records[0].Launched.Add(1) }},
		{"cannot be read", n, n, func(c *bgagent.StoreContents) { c.Damage = append(c.Damage, bgagent.StoreDamage{Key: "x"}) }},
		{"result.1", n, n, func(*bgagent.StoreContents) { m.changeText("result.1", "another") }},
	} {
		if got := check(c.acked, c.tried, c.change); !strings.Contains(got, c.want) || c.want == "" && got != "" {
			t.Errorf("the script reports %q, want %q", got, c.want)
		}
	}
}

// changeText changes every text with the given name.
func (m *Memory) changeText(name, text string) {
	for _, texts := range m.texts {
		if _, is := texts[name]; is {
			texts[name] = text
		}
	}
}
