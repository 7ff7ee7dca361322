package procs

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEntriesThatCannotBeMeantAreFound(t *testing.T) {
	for _, entry := range []string{"A", "A*", "*", "A=", "A=*", "A= b\n", "ProgramFiles(x86)", "a.b-c", "A==", "Ä"} {
		require.NoError(t, CheckEnv(entry), entry)
	}
	for entry, want := range map[string]string{
		"":                `has ""; write NAME=value`,
		"=x":              `has "=x"; write NAME=value`,
		"A=\x00":          "write NAME=value",
		"A*B":             "* can only be the end",
		"*_KEY":           "* can only be the end",
		"A**":             "* can only be the end",
		"A*=x":            "* can only be the end",
		" A":              `has " A", but names of variables have no blanks`,
		"A B=1":           `has "A B", but`,
		"A =1":            "have no blanks",
		"A, B":            "have no blanks",
		"A\n":             "have no blanks",
		"A\x1b":           "have no blanks",
		"BGAGENT_DEPTH=0": "sets BGAGENT_DEPTH, which the client sets itself",
		"BGAGENT_TURN":    "sets BGAGENT_TURN, which the client sets itself",
	} {
		require.ErrorContains(t, CheckEnv(entry), want, entry)
	}
}
