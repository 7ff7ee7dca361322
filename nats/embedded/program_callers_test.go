//go:build unix

package embedded_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"
)

// The method "as" returns a copy of the machine that makes its calls with another token.
func (m *machine) as(token string) *machine {
	other := *m
	other.token = token
	return &other
}

func (m *machine) output(id string) string {
	return m.tool("background_output", map[string]any{"task_id": id})
}

func (m *machine) cancel(id string) string {
	return m.tool("background_cancel", map[string]any{"task_id": id})
}

func TestACallerOfTwoServesUsesItsTasksThroughBoth(t *testing.T) {
	s := listening(t, func(*server.Options) {})
	one, two := twoMachines(t, s.URL(), false)
	const alice, bob, other = "the-token-of-alice", "the-token-of-bob", "another-token-of-bob"
	for _, x := range []struct {
		m    *machine
		name string
		bob  string
	}{{one, "m1", bob}, {two, "m2", other}} {
		args := []string{}
		for name, token := range map[string]string{"alice": alice, "bob": x.bob} {
			file := filepath.Join(x.m.dir, name)
			require.NoError(t, os.WriteFile(file, []byte(token), 0o600))
			args = append(args, "--token", name+"=@"+file)
		}
		x.m.start(x.name, args...)
	}
	first, second := one.as(alice).launch(), one.as(alice).launch()
	ofBob := one.as(bob).launch()

	text := two.as(alice).output(first)
	require.Contains(t, text, "## Task Status")
	require.Contains(t, text, "This task belongs to the process `m1`.")
	text = two.as(alice).output("")
	require.Contains(t, text, "Tasks in this list that belong to the process `m1`: 2.")
	require.Contains(t, text, first)
	require.NotContains(t, text, ofBob)
	for _, m := range []*machine{two.as(alice), two.as(other)} {
		require.Contains(t, m.output(ofBob), "None of your tasks has the id")
		require.Contains(t, m.cancel(ofBob), "None of your tasks has the id")
	}
	require.Contains(t, two.as(other).output(""), "You have no background tasks.", "the same name with another token is another caller")
	text = two.as(alice).cancel(first)
	require.Contains(t, text, "Cancelled 1 background task(s)")
	require.Contains(t, one.as(alice).output(first), "Task Cancelled")

	one.kill()
	until(t, func() bool {
		text = two.as(alice).output(second)
		return strings.Contains(text, "You see the state that was stored last.")
	})
	require.Contains(t, text, "This task belongs to the process `m1`, which is not running, or has lost its connection.")
	require.Contains(t, text, "**running**")
	require.Contains(t, two.as(alice).cancel(second), "its process is dead or has lost its connection")
	require.Contains(t, two.as(other).output(ofBob), "None of your tasks has the id")
}

func TestCallersWithoutTokensHaveOnlyTheTasksOfTheirServe(t *testing.T) {
	s := listening(t, func(*server.Options) {})
	one, two := twoMachines(t, s.URL(), false)
	one.start("m1")
	two.start("m2")
	id := one.launch()
	require.Contains(t, one.output(id), "## Task Status")
	require.Contains(t, two.output(id), "None of your tasks has the id")
	require.Contains(t, two.output(""), "You have no background tasks.")
}
