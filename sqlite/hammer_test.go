package sqlite

import (
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/bgagent/bgagent/internal/hammer"
	"github.com/bgagent/bgagent/internal/tempdir"
	"github.com/bgagent/bgagent/storetest"
)

func TestHammerOnSQLite(t *testing.T) {
	dir := tempdir.InMemory(t) // because the machine does not crash, the stores need no real disk
	keepAll := Options{KeepFor: -1, KeepTasks: -1, KeepBytes: -1}
	var runs atomic.Int64
	hammer.Run(t, hammer.Options{Crashes: true, Package: "./sqlite", Content: func(tb storetest.TB) hammer.Content {
		folder := filepath.Join(dir, fmt.Sprint(runs.Add(1)))
		tb.Cleanup(func() { // otherwise, the memory would fill up
			if err := tempdir.Remove(folder); err != nil {
				tb.Errorf("%v", err)
			}
		})
		return hammer.Content{Content: contentOf(tb, folder, keepAll)}
	}})
}
