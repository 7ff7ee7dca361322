package bgagent

import (
	"context"
	"fmt"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

// If a panic in an update left the lock locked, the test's cleanup would hang, and the panic would
// never be reported.
func TestAfterAPanicInAnUpdateEveryCallPanicsWithItsReason(t *testing.T) {
	for name, test := range map[string]struct {
		end  func()
		want string
	}{
		"a panic":        {func() { panic("boom") }, "boom"},
		"runtime.Goexit": {runtime.Goexit, "the goroutine was ended by runtime.Goexit"},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := New(sleeper{}, Config{})
			require.NoError(t, err)
			ended := make(chan any)
			go func() {
				defer func() { ended <- recover() }()
				m.update(func(*state, int64) { test.end() })
			}()
			if v := <-ended; v != nil {
				require.Equal(t, test.want, v)
			}
			require.True(t, m.mu.TryLock(), "every later call would hang")
			m.mu.Unlock()
			for name, call := range map[string]func(){
				"Get":    func() { _, _ = m.Get("bg_0000000000000000") },
				"Launch": func() { _, _ = m.Launch(t.Context(), Caller{Session: "s"}, LaunchInput{Agent: "a", Prompt: "p"}) },
				"Close":  func() { _ = m.Close(context.Background()) },
			} {
				said := func() (said string) {
					defer func() { said = fmt.Sprint(recover()) }()
					call()
					return ""
				}()
				require.Contains(t, said, "bgagent: bug: the state is no longer consistent, because an update was not completed: "+test.want, name)
				require.Contains(t, said, "TestAfterAPanicInAnUpdateEveryCallPanicsWithItsReason", "the stack of the update")
			}
		})
	}
}
