package bgagent_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

func requireInstanceRefused(t *testing.T, err error, problem string) {
	t.Helper()
	var input *bgagent.InputError
	require.ErrorAs(t, err, &input)
	require.Equal(t, "Config.Instance", input.Field)
	require.Contains(t, input.Problem, problem)
}

func TestAnInstanceThatTheEnvironmentCannotHoldIsRefused(t *testing.T) {
	for instance, problem := range map[string]string{"my service/1": "only letters", strings.Repeat("x", 129): "at most 128"} {
		_, err := bgagent.New(&life{}, bgagent.Config{Instance: instance})
		requireInstanceRefused(t, err, problem)
	}
}

func TestTheInstanceOfAnEarlierManagerIsRefused(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		again := func(instance string) error {
			cfg := w.cfg
			cfg.Store, cfg.Instance = w.memory.Process(), instance
			_, err := bgagent.New(&life{w: w}, cfg)
			return err
		}
		w.cfg.Instance = "one"
		launch(t, w.begin(), "explore")
		synctest.Wait()
		w.crash()
		requireInstanceRefused(t, again("one"), "new value at each start")

		w.cfg.Instance = "two"
		m := w.begin() // works only if the refused manager has closed the store
		m.Start()
		synctest.Wait()
		require.ErrorContains(t, m.Close(t.Context()), "not reported to any parent") // the task was interrupted
		requireInstanceRefused(t, again("two"), "new value at each start")

		w.cfg.Instance = "" // the manager makes a random id, which is always new
		w.begin()
	})
}

// If the process dies as soon as it has handed over a prompt, the next process must be able to find
// out which manager handed it over. Otherwise, it would search for the processes of another
// manager.
func TestTheNextManagerKnowsWhoHandedOverThePrompt(t *testing.T) {
	missing := func(w *world) { w.answer = bgagent.PromptMissing }
	for name, x := range map[string]struct {
		lives   int // number of later processes that die
		arrange func(w *world)
	}{
		"for the first time":                 {0, nil},
		"the same prompt again":              {1, missing},
		"the same prompt for the third time": {2, missing},
		"in a new session":                   {1, func(w *world) { clear(w.sessions) }},
		"by another attempt":                 {1, func(w *world) { w.answer = bgagent.PromptInterrupted }},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				dies := func(context.Context) { w.life.store.Crash() } // nothing is written after the prompt
				if x.lives == 0 {
					w.seen = dies
				}
				launch(t, w.begin(), "explore")
				synctest.Wait()
				w.crash()
				for range x.lives {
					w.seen = dies
					x.arrange(w)
					w.begin().Start()
					synctest.Wait()
					w.crash()
				}
				last := w.last
				require.NotEmpty(t, last.Instance)
				w.seen, w.answer = nil, bgagent.PromptAnswered
				w.begin().Start()
				synctest.Wait()
				r := w.restored[len(w.restored)-1]
				require.Equal(t, last.ID, r.Last.ID)
				require.Equal(t, last.Instance, r.Instance)
				require.Equal(t, last.Instance, r.Last.Instance)
			})
		})
	}
}
