package bgagent_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/inproc"
)

// shouter is a session client. Its only agent answers a prompt with the prompt in capital
// letters.
type shouter struct{ sessions atomic.Int64 }

func (s *shouter) CreateSession(context.Context, bgagent.SessionSpec) (string, error) {
	return fmt.Sprintf("ses_%d", s.sessions.Add(1)), nil
}

// Abort has nothing to do, because a turn ends when the context of RunTurn ends.
func (s *shouter) Abort(context.Context, string) error { return nil }

func (s *shouter) RunTurn(ctx context.Context, session string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
	return bgagent.TurnEnd{Text: strings.ToUpper(p.Text) + "!"}, ctx.Err()
}

// A harness launches tasks on behalf of a session and continues with other work. Later, it
// gets notices about the tasks that have ended.
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
	for notice, err := range m.Notices(ctx, caller.Session) { // the loop ends when all tasks have ended and have been reported
		if err != nil {
			fmt.Println(err)
			return
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

// PrepareLaunch adds the host's own settings to every task, whether a model or the host
// launches it. Here, each task that a model launches works in the directory of the
// session that delegated it, and the task's system prompt contains the skills of its agent.
func ExampleConfig_prepareLaunch() {
	skills := map[string]string{"explore": "Name every file with its line."}
	agent := func(_ context.Context, t *inproc.Turn) (string, error) {
		return fmt.Sprintf("in %s: %s", t.Directory(), t.Prompt.System), nil
	}
	m, err := bgagent.New(inproc.New(map[string]inproc.Agent{"explore": agent}), bgagent.Config{
		PrepareLaunch: func(_ context.Context, by bgagent.Caller, in bgagent.LaunchInput) (bgagent.LaunchInput, error) {
			in.Directory, in.System = "/projects/"+by.Session, skills[in.Agent]
			return in, nil
		},
	})
	if err != nil {
		panic(err)
	}
	ctx := context.Background()
	defer m.Close(ctx)

	answer, err := bgagent.DelegateTask(ctx, m, bgagent.Caller{Session: "site"}, bgagent.DelegateTaskArgs{
		SubagentType: "explore", Prompt: "Find the login.", Background: new(bool), // false: the call waits for the answer
	})
	if err != nil {
		panic(err)
	}
	fmt.Println(answer.Task.Result)
	// Output: in /projects/site: Name every file with its line.
}
