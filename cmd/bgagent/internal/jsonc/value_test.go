package jsonc

import (
	"errors"
	"testing"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

func TestPlacesAreCountedInCharacters(t *testing.T) {
	_, err := Parse("f", []byte("{\n\"ü\": [\"→\", tru]\n}"), 100)
	var e *bgagent.ConfigFileError
	require.True(t, errors.As(err, &e))
	require.Equal(t, 2, e.Line)

	v, err := Parse("f", []byte("{\n\"ü\": [\"→\", true], // ö\n\"b\": {}}"), 100)
	require.NoError(t, err)
	members, ok := v.Members()
	require.True(t, ok)
	require.Equal(t, bgagent.Origin{File: "f", Line: 2, Column: 1}, members[0].At())
	list, ok := members[0].Value.Elements()
	require.True(t, ok)
	require.Equal(t, bgagent.Origin{File: "f", Line: 2, Column: 12}, list[1].Origin())
	require.Equal(t, `["→",true]`, members[0].Value.String())
	require.Equal(t, bgagent.Origin{File: "f", Line: 3, Column: 6}, members[1].Value.Origin())
}

func TestKeysAreQuotedWhereTheyMustBe(t *testing.T) {
	for name, want := range map[string]string{"a-b_1": "p.a-b_1", "$schema": "p.$schema", "a b": `p["a b"]`, "": `p[""]`, "ü": `p["ü"]`, "a.b": `p["a.b"]`, "{": `p["{"]`} {
		require.Equal(t, want, Key("p", name))
	}
}
