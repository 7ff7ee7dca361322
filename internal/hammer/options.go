package hammer

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/storetest"
)

// Options are the options of [Run].
type Options struct {
	// With Crashes, every manager has a store, and the hammer ends the simulated process of the
	// manager from time to time.
	Crashes bool

	// Content returns the content of a new store for a run with Crashes. The hammer calls Content and the
	// stores outside of the bubble of the run. The stores must not delete old tasks: the simulated time of a
	// run starts in the year 2000, so by the real clock, every task is old. If Content is nil, the store is a
	// [storetest.Memory].
	Content func(t storetest.TB) Content

	// Package is the folder of the test, such as ./sqlite. It is part of failure messages. If it is empty, the
	// test is in the root.
	Package string
}

// Content is the content of a store that outlives the simulated processes.
type Content struct {
	// The functions Process, Crash, CrashAt and LoseAnswer are required. The stores implement
	// [bgagent.StoreReopener]. CrashAt also applies to Open.
	storetest.Content

	// Cut makes the store unreachable for the process of s, without killing the process. Another process can
	// then open the store. The returned function makes the store reachable again. Cut may be nil.
	Cut func(s bgagent.Store) (heal func())
}

// repeat returns the command that repeats the run of a test.
func (o *Options) repeat(test string, seed uint64) string {
	test, _, _ = strings.Cut(test, "/")
	flags := ""
	if o.Package == "" {
		flags = fmt.Sprintf(" -hammer.crashes=%v", o.Crashes)
	}
	return fmt.Sprintf("go test -run '^%s$' %s -args%s -hammer.seed %d", test, cmp.Or(o.Package, "."), flags, seed)
}
