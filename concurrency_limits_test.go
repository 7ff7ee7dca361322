package bgagent

import (
	"strings"
	"testing"
	"unicode"

	"github.com/bgagent/bgagent/internal/slots"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestPoolIsNamedByTheEntryThatDecided(t *testing.T) {
	c := newConcurrency(t, Limits{
		Model:    map[string]int{" Opus ": 2, "anthropic/OPUS": 1, "zero": 0, "free": Unlimited, "r/a/b": 7, "a/b": 8},
		Provider: map[string]int{"Anthropic": 3, "r": 6},
		Default:  4,
	})
	for model, want := range map[string]PoolStats{
		"anthropic/opus":      {Name: "model anthropic/opus", Limit: 1},
		" Bedrock/Opus":       {Name: "model opus", Limit: 2},
		"OPUS":                {Name: "model opus", Limit: 2},
		"anthropic/sonnet":    {Name: "provider anthropic", Limit: 3},
		"anthropic/zero":      {Name: "provider anthropic", Limit: 3},
		"zero":                {Name: "default zero", Limit: 4},
		"openai/free":         {Name: "model free", Limit: Unlimited},
		"r/a/b":               {Name: "model r/a/b", Limit: 7},
		"a/b":                 {Name: "model a/b", Limit: 8},
		"r/x/b":               {Name: "provider r", Limit: 6},
		"s/a/b":               {Name: "default s/a/b", Limit: 4},
		"s/a/opus":            {Name: "default s/a/opus", Limit: 4},
		"anthropic":           {Name: "default anthropic", Limit: 4},
		"/opus":               {Name: "model opus", Limit: 2},
		"/":                   {Name: "default /", Limit: 4},
		"":                    {Name: "default", Limit: 4},
		" \t":                 {Name: "default", Limit: 4},
		"OpenAI/Größe ":       {Name: "default openai/größe", Limit: 4},
		"openai/" + long("g"): {Name: "default openai/" + long("g"), Limit: 4},
	} {
		require.Equal(t, want, c.Stats(model), "%q", model)
		require.Equal(t, want, c.Pool(model).Stats(), "%q", model)
		s, ok := c.TryAcquire(model)
		require.True(t, ok)
		want.InUse = 1
		require.Equal(t, want, c.Stats(model), "%q", model)
		require.Equal(t, []PoolStats{want}, c.Pools())
		s.Release()
		require.Empty(t, c.Pools())
	}
	require.NoError(t, c.slots.Check())
}

func long(s string) string { return strings.Repeat(s, 1000) }

func TestAgentsAreCountedApartFromModels(t *testing.T) {
	c := newConcurrency(t, Limits{Default: 1, Model: map[string]int{"explore": 9}, Provider: map[string]int{"explore": 9}})
	a, b, m, e := newGuest(), newGuest(), newGuest(), newGuest()
	require.True(t, takeSlot(c, &a.Waiter, " ", "Explore", false, c.slots.Ticket()))
	require.False(t, takeSlot(c, &b.Waiter, "", "explore", false, c.slots.Ticket()))
	require.True(t, takeSlot(c, &m.Waiter, "explore", "explore", false, c.slots.Ticket()))
	require.True(t, takeSlot(c, &e.Waiter, "", "", false, c.slots.Ticket()))
	require.Equal(t, []PoolStats{{Name: "agent explore", Limit: 1, InUse: 1, Waiting: 1}, {Name: "default", Limit: 1, InUse: 1, Waiting: 0}, {Name: "model explore", Limit: 9, InUse: 1, Waiting: 0}}, c.Pools())
	require.NoError(t, c.SetLimits(Limits{Default: 2}))
	requireHolds(t, c, b)
	require.Equal(t, PoolStats{Name: "default explore", Limit: 2, InUse: 1, Waiting: 0}, c.Stats("explore"))
}

func TestPoolHandleFollowsTheLimits(t *testing.T) {
	c := newConcurrency(t, Limits{Default: 1})
	p := c.Pool(" P/X ")
	require.Equal(t, PoolStats{Name: "default p/x", Limit: 1}, p.Stats())
	s, err := p.Acquire(t.Context())
	require.NoError(t, err)
	_, ok := c.TryAcquire("p/x")
	require.False(t, ok)
	require.NoError(t, c.SetLimits(Limits{Provider: map[string]int{"p": 2}}))
	require.Equal(t, PoolStats{Name: "provider p", Limit: 2, InUse: 1, Waiting: 0}, p.Stats())
	s2, ok := p.TryAcquire()
	require.True(t, ok)
	_, ok = c.TryAcquire("p/other")
	require.False(t, ok)
	s.Release()
	s2.Release()

	// Releasing the last slot made the manager forget the name of the handle's model. The next call
	// to TryAcquire looks the name up again, and the handle p must find the same pool.
	require.NoError(t, c.SetLimits(Limits{Default: 1}))
	s, ok = c.TryAcquire("p/x")
	require.True(t, ok)
	_, ok = p.TryAcquire()
	require.False(t, ok, "the model must have its own pool")
	s.Release()
	s, ok = p.TryAcquire()
	require.True(t, ok)
	s.Release()
	requireFullBatch(t, c, "p/x")
}

func TestWrongLimitsAreRefusedAndChangeNothing(t *testing.T) {
	c := newConcurrency(t, Limits{Default: 7, Model: map[string]int{" X": 3, "y": 0}})
	before := c.Limits()
	require.Equal(t, Limits{Default: 7, Model: map[string]int{"x": 3}, Provider: map[string]int{}}, before)
	for field, l := range map[string]Limits{
		`Limits.Default`:          {Default: -2},
		`Limits.Model["x"]`:       {Model: map[string]int{"x": -2}},
		`Limits.Model[" x"]`:      {Model: map[string]int{" x": -2, "x": 5}},
		`Limits.Model["x "]`:      {Model: map[string]int{"X": 1, "x ": 2}},
		`Limits.Provider["p"]`:    {Provider: map[string]int{"P": 1, "p": 0}},
		`Limits.Provider[" "]`:    {Provider: map[string]int{" ": 1}},
		`Limits.Provider["p/x"]`:  {Provider: map[string]int{"P/x": 1}},
		`Limits.Model[""]`:        {Model: map[string]int{"": 1}},
		`Limits.Provider["p\n1"]`: {Provider: map[string]int{"p\n1": -9}},
	} {
		err := c.SetLimits(l)
		var in *InputError
		require.ErrorAs(t, err, &in, "%v", l)
		assert.Contains(t, err.Error(), field)
		require.Equal(t, before, c.Limits())
		_, err = NewConcurrencyManager(l)
		require.ErrorAs(t, err, &in)
	}
	require.NoError(t, c.SetLimits(Limits{Model: map[string]int{"X": 2, " x": 2}}), "two equal entries do not contradict each other")
}

func TestLimitsAreCopies(t *testing.T) {
	in := Limits{Model: map[string]int{"x": 3}, Provider: map[string]int{"p": 3}}
	c := newConcurrency(t, in)
	in.Model["x"], in.Provider["p"] = 1, 1
	out := c.Limits()
	out.Model["x"], out.Provider["p"] = 1, 1
	require.Equal(t, 3, c.Limits().Model["x"])
	require.Equal(t, 3, c.Stats("x").Limit)
	require.Equal(t, 3, c.Limits().Provider["p"])
	require.NoError(t, c.SetLimits(c.Limits()))
}

// The method lockKey of slots.Manager looks names up without normalizing them. This is correct only
// if normalizing a normal name does not change it.
func TestNormalNamesStayAsTheyAre(t *testing.T) {
	for r := range rune(unicode.MaxRune + 1) {
		n := slots.Normal("a" + string(r))
		if slots.Normal(n) != n {
			t.Errorf("%q becomes %q and then %q", string(r), n, slots.Normal(n))
		}
	}
}
