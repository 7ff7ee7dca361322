package bgagent_test

import (
	"flag"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/inside"
	"github.com/stretchr/testify/require"
)

// If withSlots is set, every manager that is configured only with limits gets a source of slots
// that answers late.
var withSlots = flag.Bool("slots", false, "give every manager a source of slots that is not a ConcurrencyManager")

// lateSource is a source of slots that grants each slot on another goroutine.
type lateSource struct{ *bgagent.ConcurrencyManager }

func (s *lateSource) Request(r bgagent.SlotRequest, h bgagent.SlotHolder) bgagent.SlotClaim {
	return s.ConcurrencyManager.Request(r, lateHolder{h})
}

// lateHolder forwards each grant on another goroutine.
type lateHolder struct{ bgagent.SlotHolder }

func (h lateHolder) SlotGranted() { go h.SlotHolder.SlotGranted() }

// unlikeSlots lists the tests that fail with a source of slots, each with the reason.
var unlikeSlots = map[string]string{
	"TestQueueNamesTheCapThatATaskWaitsFor":                      "a source does not say which cap a request waits for",
	"TestOneRootDoesNotHoldUpAnotherWithFairLimits":              "a source does not say which place a request has",
	"TestDelegateAnswersAtOnceWithAPendingTaskAndItsPlaceInLine": "a source does not say which place a request has",
}

// useSlots gives the tests' managers a source of slots, and leaves out the tests in unlikeSlots.
func useSlots() {
	inside.Slots = func(own any) any { return &lateSource{own.(*bgagent.ConcurrencyManager)} }
	skip := "^(" + strings.Join(slices.Sorted(maps.Keys(unlikeSlots)), "|") + ")$"
	if given := flag.Lookup("test.skip").Value.String(); given != "" {
		skip += "|" + given
	}
	if err := flag.Set("test.skip", skip); err != nil {
		panic(err)
	}
}

// With -slots, sourceAnswers waits until the source of slots has answered all requests. Without
// -slots, it does not wait, because a task has its slot when Launch returns. sourceAnswers is for
// tests in a bubble that check a task right after its launch.
func sourceAnswers() {
	if *withSlots {
		synctest.Wait()
	}
}

// The function "late" returns a source of slots that grants each slot on another goroutine.
func late(t *testing.T, l bgagent.Limits) bgagent.SlotSource {
	t.Helper()
	own, err := bgagent.NewConcurrencyManager(l)
	require.NoError(t, err)
	return &lateSource{own}
}
