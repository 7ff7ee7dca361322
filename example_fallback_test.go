package bgagent_test

import (
	"context"
	"fmt"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/inproc"
)

// Fallback names the models that tasks switch to if their model provider does not accept their
// requests. Here, the quota of the first model is used up.
func ExampleConfig_fallback() {
	agent := func(_ context.Context, t *inproc.Turn) (string, error) {
		if t.Prompt.Model == "anthropic/large" {
			return "", &bgagent.ProviderError{Kind: bgagent.ProviderQuota, Next: bgagent.NextRepeat, Message: "no credit left"}
		}
		return "answered by " + t.Prompt.Model, nil
	}
	m, err := bgagent.New(inproc.New(map[string]inproc.Agent{"explore": agent}), bgagent.Config{
		Model:    func(_, asked string) (string, error) { return "anthropic/large", nil },
		Fallback: map[string][]string{"anthropic/large": {"openai/large", "anthropic/small"}},
	})
	if err != nil {
		panic(err)
	}
	ctx := context.Background()
	defer m.Close(ctx)

	task, err := m.Run(ctx, bgagent.Caller{Session: "main"}, bgagent.LaunchInput{Agent: "explore", Prompt: "Find the login."})
	if err != nil {
		panic(err)
	}
	fmt.Println(task.Result)
	fmt.Println(task.Fallback)
	// Output:
	// answered by openai/large
	// fell back from the model anthropic/large to openai/large: the provider of the model refused the turn (quota): no credit left
}
