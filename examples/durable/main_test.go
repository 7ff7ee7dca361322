package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bgagent/bgagent/internal/tempdir"
	"github.com/stretchr/testify/require"
)

// TestMain calls the function "main" if the test binary was started by the function "run". In
// that case, the binary is the process with the tasks.
func TestMain(m *testing.M) {
	if os.Getenv(folderVariable) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

func TestOutput(t *testing.T) {
	var b strings.Builder
	require.NoError(t, run(t.Context(), &b))
	require.Equal(t, `The first process accepted 6 tasks and was killed.
At that moment, 2 tasks had ended, 2 were running, and 2 were waiting.
The second process continued the tasks and exited.
6 of 6 accepted tasks have completed with the right result.
24 of 24 steps were done.
6 of 6 ends were reported.
Nothing was lost, and nothing was done twice.
`, b.String())
}

func TestTheJudgeFindsWhatIsMissingOrDoneTwice(t *testing.T) {
	dir := tempdir.New(t)
	accepted, err := firstLife(t.Context(), dir)
	require.NoError(t, err)
	again, err := start(t.Context(), dir, "2")
	require.NoError(t, err)
	require.NoError(t, again.Run())
	var b strings.Builder
	require.NoError(t, judge(t.Context(), &b, dir, accepted))

	require.ErrorContains(t, judge(t.Context(), &b, dir, append(accepted, "bg_0000000000000000")), "task bg_0000000000000000 is")
	a := &agent{dir: dir}
	for _, name := range []string{stepsName, promptsName, toldName} {
		path := filepath.Join(dir, name)
		original, err := os.ReadFile(path)
		require.NoError(t, err)
		line, _, _ := strings.Cut(string(original), "\n")
		again := line
		if name == toldName {
			again += " under another id"
		}
		require.NoError(t, a.note(name, again))
		require.Error(t, judge(t.Context(), &b, dir, accepted), name)
		if name != promptsName {
			missing := strings.ReplaceAll(string(original), line+"\n", "")
			require.NoError(t, os.WriteFile(path, []byte(missing), 0o600))
			require.Error(t, judge(t.Context(), &b, dir, accepted), name)
		}
		require.NoError(t, os.WriteFile(path, original, 0o600))
	}
	require.NoError(t, judge(t.Context(), &b, dir, accepted))
}
