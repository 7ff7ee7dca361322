package bgagent_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/bgagent/bgagent"
)

// shouter is a session client whose only agent says everything louder.
type shouter struct{ sessions atomic.Int64 }

func (s *shouter) CreateSession(context.Context, bgagent.SessionSpec) (string, error) {
	return fmt.Sprintf("ses_%d", s.sessions.Add(1)), nil
}

// Abort has nothing to do: a turn ends when RunTurn's context does.
func (s *shouter) Abort(context.Context, string) error { return nil }

func (s *shouter) RunTurn(ctx context.Context, session string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
	return bgagent.TurnEnd{Text: strings.ToUpper(p.Text) + "!"}, ctx.Err()
}

// A harness launches tasks on behalf of a session, goes on with other work, and
// is told of the ends.
func Example() {
	ctx := context.Background()
	m, err := bgagent.New(&shouter{}, bgagent.Config{Limits: bgagent.Limits{Default: 2}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer m.Close(ctx)

	caller := bgagent.Caller{Session: "main"} // the session that delegates
	for _, prompt := range []string{"find it", "read it", "review it"} {
		if _, err := m.Launch(ctx, caller, bgagent.LaunchInput{Agent: "shouter", Prompt: prompt}); err != nil {
			fmt.Println(err)
			return
		}
	}
	for {
		notice, err := m.NextNotice(ctx, caller.Session)
		if err != nil {
			break // bgagent.ErrNothingOwed: everything has ended and been told
		}
		for _, item := range notice.Items {
			task, _ := m.Get(item.Task)
			fmt.Println(task.Description, "->", task.Status, task.Result)
		}
	}
	// Unordered output:
	// find it -> completed FIND IT!
	// read it -> completed READ IT!
	// review it -> completed REVIEW IT!
}
