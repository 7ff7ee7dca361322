package bgagent_test

import (
	"flag"
	"testing"
	"time"

	"github.com/bgagent/bgagent/internal/hammer"
	"github.com/bgagent/bgagent/internal/inside"
)

// With the flag -hammer.crashes, the hammer ends the manager's process at random moments.
var crashes = flag.Bool("hammer.crashes", false, "give the managers of the hammer a store, and end their processes")

func TestHammer(t *testing.T) {
	if *withStore {
		was := inside.Store
		inside.Store = func() any { return &blankStore{takes: time.Millisecond} }
		defer func() { inside.Store = was }()
	}
	hammer.Run(t, hammer.Options{Crashes: *crashes})
}
