package bgagent_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/bgagent/bgagent"
)

// The model's own limit applies. If the model has no limit, the limit of its provider applies. If
// the provider has no limit either, the default applies.
func ExampleConcurrencyManager() {
	c, err := bgagent.NewConcurrencyManager(bgagent.Limits{
		Model:    map[string]int{"claude-opus-4-5": 2},
		Provider: map[string]int{"anthropic": 3},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, model := range []string{"anthropic/claude-opus-4-5", "anthropic/claude-sonnet-4-5", "openai/gpt-5"} {
		slot, err := c.Acquire(context.Background(), model)
		if err != nil {
			fmt.Println(err)
			return
		}
		defer slot.Release()
	}
	for _, p := range c.Pools() {
		fmt.Printf("%s: %d of %d\n", p.Name, p.InUse, p.Limit)
	}
	// Output:
	// default openai/gpt-5: 1 of 5
	// model claude-opus-4-5: 1 of 2
	// provider anthropic: 1 of 3
}

// A slot is given back only once, no matter how often Release is called. Therefore, Release can be
// called early and again in a defer statement.
func ExampleSlot_Release() {
	c, _ := bgagent.NewConcurrencyManager(bgagent.Limits{Default: 1})
	slot, _ := c.TryAcquire("openai/gpt-5")
	defer slot.Release()

	_, ok := c.TryAcquire("openai/gpt-5")
	fmt.Println("while it is out:", ok)
	slot.Release()
	next, ok := c.TryAcquire("openai/gpt-5")
	fmt.Println("afterwards:", ok)
	slot.Release() // does not release the next holder's slot
	fmt.Println("in use:", c.Stats("openai/gpt-5").InUse)
	next.Release()
	// Output:
	// while it is out: false
	// afterwards: true
	// in use: 1
}

// When a limit is raised, waiters get the additional slots.
func ExampleConcurrencyManager_SetLimits() {
	c, _ := bgagent.NewConcurrencyManager(bgagent.Limits{Default: 1})
	first, _ := c.Acquire(context.Background(), "openai/gpt-5")
	defer first.Release()

	granted := make(chan bgagent.Slot)
	go func() {
		slot, _ := c.Acquire(context.Background(), "openai/gpt-5")
		granted <- slot
	}()
	if err := c.SetLimits(bgagent.Limits{Default: 2}); err != nil {
		fmt.Println(err)
		return
	}
	second := <-granted
	fmt.Println("in use:", c.Stats("openai/gpt-5").InUse)
	second.Release()

	err := c.SetLimits(bgagent.Limits{Provider: map[string]int{"OpenAI": -5}})
	var wrong *bgagent.InputError
	fmt.Println(errors.As(err, &wrong), err)
	// Output:
	// in use: 2
	// true bgagent: limits: Limits.Provider["OpenAI"]: is -5; it must be positive, 0 for not set, or Unlimited (-1)
}

// With a Pool, the model's name does not have to be looked up in every call.
func ExamplePool() {
	c, _ := bgagent.NewConcurrencyManager(bgagent.Limits{Provider: map[string]int{"openai": 1}})
	pool := c.Pool("openai/gpt-5")
	slot, err := pool.Acquire(context.Background())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer slot.Release()
	s := pool.Stats()
	fmt.Printf("%s: %d of %d in use\n", s.Name, s.InUse, s.Limit)
	// Output:
	// provider openai: 1 of 1 in use
}
