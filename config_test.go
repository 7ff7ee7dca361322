package bgagent

import (
	"context"
	"maps"
	"math"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The type "silent" is a client that is never called.
type silent struct{}

func (silent) CreateSession(context.Context, SessionSpec) (string, error) { panic("not called") }
func (silent) Abort(context.Context, string) error                        { panic("not called") }
func (silent) RunTurn(context.Context, string, Prompt, *Reporter) (TurnEnd, error) {
	panic("not called")
}

// canBeDisabled and canBeUnlimited list the fields for which the comments of Config allow
// Disabled and Unlimited. The lists are written by hand, so they do not depend on the tested code.
var (
	canBeDisabled = []string{"MaxPark", "FallbackAfter", "RestartWithin", "NoticeResult", "NoticeWindow", "NoticeMaxWait", "MinIdleTime", "MinStabilityTime", "TodoHold", "StaleTimeout",
		"HostUnreachable", "TimeToLive", "QueueTimeToLive", "Retention", "BudgetPeriod"}
	canBeUnlimited = []string{"MaxTasksPerRoot", "MaxToolCalls", "RepeatedCalls", "RetainTasks", "RetainText"}
)

// The function "numbers" returns the names of all fields of Config whose type is a signed integer.
func numbers() []string {
	var names []string
	for f := range reflect.TypeFor[Config]().Fields() {
		if f.Type.Kind() == reflect.Int || f.Type.Kind() == reflect.Int64 {
			names = append(names, f.Name)
		}
	}
	return names
}

func with(field string, n int64) Config {
	var c Config
	reflect.ValueOf(&c).Elem().FieldByName(field).SetInt(n)
	return c
}

func requireInputError(t *testing.T, err error, field string, parts ...string) {
	t.Helper()
	var input *InputError
	require.ErrorAs(t, err, &input)
	require.Equal(t, field, input.Field)
	for _, part := range parts {
		require.Contains(t, input.Problem, part)
	}
}

func TestConfigRefusesNegativeNumbersInEveryField(t *testing.T) {
	require.GreaterOrEqual(t, len(numbers()), 22)
	for _, field := range numbers() {
		for _, n := range []int64{-2, -int64(time.Second), math.MinInt32} {
			_, err := with(field, n).withDefaults()
			requireInputError(t, err, "Config."+field, "it must be", "default")
			_, err = New(silent{}, with(field, n))
			requireInputError(t, err, "Config."+field)
		}
	}
}

func TestConfigCanBeSwitchedOffOnlyWhereThatMeansSomething(t *testing.T) {
	require.EqualValues(t, Unlimited, Disabled)
	for _, field := range numbers() {
		c, err := with(field, -1).withDefaults()
		if !slices.Contains(canBeDisabled, field) && !slices.Contains(canBeUnlimited, field) {
			requireInputError(t, err, "Config."+field)
			require.NotContains(t, err.Error(), "Disabled")
			require.NotContains(t, err.Error(), "Unlimited")
			continue
		}
		require.NoError(t, err, field)
		require.EqualValues(t, -1, reflect.ValueOf(c).FieldByName(field).Int(), "%s must stay disabled", field)
		_, err = with(field, -2).withDefaults()
		word := "Disabled"
		if slices.Contains(canBeUnlimited, field) {
			word = "Unlimited"
		}
		requireInputError(t, err, "Config."+field, word)
	}
}

func TestConfigFillsInEveryDefaultAndKeepsWhatIsSet(t *testing.T) {
	c, err := Config{}.withDefaults()
	require.NoError(t, err)
	want := Config{
		NoticeWindow: 100 * time.Millisecond, NoticeMaxWait: 5 * time.Minute, MaxDepth: 1, MaxTasksPerRoot: 100,
		PollInterval: 2 * time.Second, MinIdleTime: 5 * time.Second, MinStabilityTime: 10 * time.Second, StablePolls: 3,
		TodoHold: 30 * time.Second, StaleTimeout: 3 * time.Minute, SessionGone: time.Minute, HostUnreachable: 5 * time.Minute,
		TimeToLive: 30 * time.Minute, QueueTimeToLive: Disabled, StopTimeout: 10 * time.Second, CreateTimeout: 30 * time.Second,
		CallTimeout: 10 * time.Second, StatusTimeout: 5 * time.Second, ReadConcurrency: 32, Retention: 30 * time.Minute,
		RetainTasks: 10_000, RetainText: 64 << 20, NoticeResult: -1, StoreTimeout: 30 * time.Second, RestartWithin: time.Hour,
		BudgetPeriod: Disabled, MaxPark: 6 * time.Hour, FallbackAfter: 10 * time.Minute, MaxToolCalls: 4000, RepeatedCalls: 20,
	}
	require.Equal(t, want, c)
	for _, field := range numbers() {
		require.NotZero(t, reflect.ValueOf(c).FieldByName(field).Int(), "%s has no default", field)
		c, err := with(field, 7).withDefaults()
		require.NoError(t, err, field)
		require.EqualValues(t, 7, reflect.ValueOf(c).FieldByName(field).Int(), field)
	}
	again, err := c.withDefaults()
	require.NoError(t, err, "the defaults must not contradict each other")
	require.Equal(t, c, again)
}

func TestConfigNamesBothOfTwoValuesThatContradictEachOther(t *testing.T) {
	for _, pair := range [][2]string{
		{"StaleTimeout", "TimeToLive"},
		{"PollInterval", "StaleTimeout"},
		{"PollInterval", "HostUnreachable"},
		{"NoticeWindow", "NoticeMaxWait"},
	} {
		set := func(small, large time.Duration) error {
			var c Config
			v := reflect.ValueOf(&c).Elem()
			v.FieldByName(pair[0]).SetInt(int64(small))
			v.FieldByName(pair[1]).SetInt(int64(large))
			_, err := c.withDefaults()
			return err
		}
		requireInputError(t, set(2*time.Second, time.Second), "Config."+pair[0], "is 2s", "Config."+pair[1]+" is 1s")
		if pair[1] == "HostUnreachable" { // with equal values, a task could end before its client is polled
			requireInputError(t, set(time.Second, time.Second), "Config.PollInterval", "is 1s", "Config.HostUnreachable is 1s", "must be shorter")
		} else {
			require.NoError(t, set(time.Second, time.Second), pair)
		}
		require.NoError(t, set(time.Second, 2*time.Second), pair)
		require.NoError(t, set(1000*time.Hour, 0), "%s contradicts only a default, so the default must adapt", pair[0])
		require.NoError(t, set(0, time.Nanosecond), "%s contradicts only a default, so the default must adapt", pair[1])
		if slices.Contains(canBeDisabled, pair[1]) {
			require.NoError(t, set(time.Hour, Disabled), "%s is disabled, so there is no contradiction", pair[1])
		}
	}
}

func TestConfigRefusesLimitsBesideAConcurrencyManagerOfItsOwn(t *testing.T) {
	cm, err := NewConcurrencyManager(Limits{})
	require.NoError(t, err)
	for _, l := range []Limits{{Default: 1}, {Default: Unlimited}, {Model: map[string]int{"m": 1}}, {Provider: map[string]int{"p": 1}}} {
		_, err := Config{Concurrency: cm, Limits: l}.withDefaults()
		requireInputError(t, err, "Config.Limits", "Config.Concurrency")
	}
	_, err = Config{Concurrency: cm, Limits: Limits{Model: map[string]int{}}}.withDefaults()
	require.NoError(t, err)
}

func TestConfigRefusesAnUnknownWake(t *testing.T) {
	for w := range WakeNever + 1 {
		_, err := Config{Wake: w}.withDefaults()
		require.NoError(t, err)
		text, err := w.MarshalText()
		require.NoError(t, err)
		var back Wake
		require.NoError(t, back.UnmarshalText(text))
		require.Equal(t, w, back)
	}
	_, err := Config{Wake: WakeNever + 1}.withDefaults()
	requireInputError(t, err, "Config.Wake", "WakeBatch, WakeEach or WakeNever")
	w := WakeEach
	require.ErrorContains(t, w.UnmarshalText([]byte("Batch")), `unknown value "Batch"; it must be batch, each or never`)
	require.Equal(t, WakeEach, w)
}

func TestConfigRefusesWrongLimits(t *testing.T) {
	for field, l := range map[string]Limits{
		"Limits.Default":       {Default: -2},
		`Limits.Model["m"]`:    {Model: map[string]int{"m": -2}},
		`Limits.Model[" "]`:    {Model: map[string]int{" ": 1}},
		`Limits.Provider["p"]`: {Provider: map[string]int{"p": -2}},
	} {
		_, err := New(silent{}, Config{Limits: l})
		requireInputError(t, err, field)
	}
}

func TestConfigIsCopied(t *testing.T) {
	given := Config{
		Limits:      Limits{Model: map[string]int{"m": 1}, Provider: map[string]int{"p": 2}},
		Clients:     map[string]SessionClient{"other": silent{}},
		Permissions: []Permission{{Name: "*"}},
		ToolNames:   map[string]string{ToolDelegateTask: "spawn"},
		Fallback:    map[string][]string{"Big": {" small "}},
	}
	c, err := given.withDefaults()
	require.NoError(t, err)
	require.Zero(t, given.MaxDepth, "the caller's own Config must not be changed")
	maps.DeleteFunc(given.Limits.Model, func(string, int) bool { return true })
	given.Limits.Provider["p"] = 9
	clear(given.Clients)
	clear(given.ToolNames)
	given.Permissions[0] = Permission{Name: "changed"}
	given.Fallback["Big"][0] = "changed"
	given.Fallback["other"] = nil
	require.Equal(t, map[string][]string{"big": {"small"}}, c.Fallback)
	require.Equal(t, map[string]int{"m": 1}, c.Limits.Model)
	require.Equal(t, map[string]int{"p": 2}, c.Limits.Provider)
	require.Len(t, c.Clients, 1)
	require.Len(t, c.ToolNames, 1)
	require.Equal(t, []Permission{{Name: "*"}}, c.Permissions)

	// New must also copy maps and slices that future versions add to Config.
	var shared []string
	for f := range reflect.TypeFor[Config]().Fields() {
		if f.Type.Kind() == reflect.Map || f.Type.Kind() == reflect.Slice {
			shared = append(shared, f.Name)
		}
	}
	require.Equal(t, []string{"Clients", "Permissions", "ToolNames", "OptionalTools", "Fallback"}, shared)
}
