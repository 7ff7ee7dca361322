//go:build unix

package command

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/bgagent/bgagent/internal/tempdir"
	"github.com/stretchr/testify/require"
)

// If the system does not find the interpreter of a script, the system's error states that the script
// is missing.
func TestAScriptWhoseInterpreterIsMissingIsExplained(t *testing.T) {
	for head, want := range map[string]string{
		"#!/bin/sh\r\ncat\r\n":        `the program in its first line, "#!/bin/sh\r", does not exist; correct the line, or save the script with LF instead of CR LF: `,
		"#! /no/such/program -x\ncat": `the program in its first line, "#! /no/such/program -x", does not exist; correct the line`,
	} {
		script := filepath.Join(tempdir.New(t), "x.sh")
		require.NoError(t, os.WriteFile(script, []byte(head), 0o700))
		c := clientOf(t, Agent{Program: Text("x"), Command: []string{script}})
		_, err := play(t, c, create(t, c), "say x")
		require.ErrorContains(t, err, want)
	}
	require.Empty(t, firstLine(&os.PathError{Op: "fork/exec", Path: "/bin/sh", Err: os.ErrNotExist}), "it is not a script")
	sound := filepath.Join(tempdir.New(t), "x.sh")
	require.NoError(t, os.WriteFile(sound, []byte("#!/bin/sh -e\ntrue\n"), 0o700))
	require.Empty(t, firstLine(&os.PathError{Op: "fork/exec", Path: sound, Err: os.ErrNotExist}), "something else is missing")
}
