package bgagent

import (
	"testing"
	"time"
)

// BenchmarkUpdate measures an update that does not change anything. The benchmark "clock" is the
// reference: it reads the clock once, as each update must.
func BenchmarkUpdate(b *testing.B) {
	m, err := New(silent{}, Config{})
	if err != nil {
		b.Fatal(err)
	}
	m.check = nil // only tests check the invariants
	b.Run("clock", func(b *testing.B) {
		var sum time.Duration
		for b.Loop() {
			sum += time.Since(m.epoch)
		}
	})
	b.Run("update", func(b *testing.B) {
		for b.Loop() {
			m.update(func(*state, int64) {})
		}
	})
	if err := m.Close(b.Context()); err != nil {
		b.Fatal(err)
	}
}
