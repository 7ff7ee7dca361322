package fleet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/settings"
	"github.com/bgagent/bgagent/opencode"
	"github.com/stretchr/testify/require"
)

// If a client cannot start an agent, the error names keys of the file.
func TestErrorsNameKeysAndNotGoFields(t *testing.T) {
	_, m := crewWith(t, bgagent.Config{HostUnreachable: 100 * time.Millisecond}, // ends the wait for the server early
		settings.Agent{Name: "none", Kind: settings.Command, Preset: "generic", Command: []string{"no-such-program"}},
		settings.Agent{Name: "gone", Kind: settings.Opencode, URL: "http://127.0.0.1:1", Remote: "build"},
	)
	for agent, want := range map[string]string{"none": `give its path in "command"`, "gone": `correct "url"`} {
		task, err := m.Run(context.Background(), bgagent.Caller{Session: "me"}, bgagent.LaunchInput{Agent: agent, Prompt: "x"})
		require.NoError(t, err)
		require.Equal(t, bgagent.Failed, task.Status)
		require.Contains(t, task.Reason, want)
		require.NotRegexp(t, inGo, InKeys(task.Reason))
	}
	require.Equal(t, `1s is over; "hostUnreachableMs" decides`, InKeys("1s is over; Config.HostUnreachable (hostUnreachableMs) decides"))
	server := &opencode.ServerError{URL: "http://x", Advice: "correct opencode.Config.URL"}
	require.ErrorIs(t, inKeys(fmt.Errorf("asking: %w", server)), error(server), "the wrapped error is unchanged")
	plain := errors.New("it broke")
	require.Equal(t, plain, inKeys(plain))
	require.NoError(t, inKeys(nil))
}

// This test searches the clients' source code for messages that name a field for which keyOf has no key.
func TestEveryFieldInAMessageOfAClientHasAKey(t *testing.T) {
	// Only a program can set these fields; the configuration file has no keys for
	// them.
	ours := map[string]bool{"Grace": true, "Timeout": true, "HTTPClient": true, "MaxHistory": true, "Permission": true, "Agents": true, "Instance": true}
	text := regexp.MustCompile("\"(?:[^\"\\\\]|\\\\.)*\"|`[^`]*`")
	for _, dir := range []string{"acp", "command", "opencode"} {
		files, err := filepath.Glob(filepath.Join("../../../..", dir, "*.go"))
		require.NoError(t, err)
		require.NotEmpty(t, files)
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			b, err := os.ReadFile(name)
			require.NoError(t, err)
			for line := range strings.Lines(string(b)) {
				line, _, _ = strings.Cut(line, "//")
				for _, quoted := range text.FindAllString(line, -1) {
					message, err := strconv.Unquote(quoted)
					if err != nil {
						continue
					}
					for _, found := range inGo.FindAllStringSubmatch(phrases.Replace(message), -1) {
						if !ours[found[1]] {
							require.Contains(t, keyOf, found[1], "%s says %s", name, message)
						}
					}
				}
			}
		}
	}
}
