package mcpserver_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent/internal/realagent"
	"github.com/bgagent/bgagent/mcpserver"
)

// scenarios are those of the conformance package that do not ask for the tools,
// resources and prompts of its own example server.
var scenarios = []string{"server-initialize", "ping", "tools-list", "resources-list", "server-sse-multiple-streams", "dns-rebinding-protection"}

func TestTheProtocolsConformancePackage(t *testing.T) {
	w := realagent.New(t, "conformance")
	_, server := serve(t, mcpserver.HTTPConfig{Scope: "here"})
	for _, name := range scenarios {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			out, err := w.Command(ctx, w.Conformance("server", "--url", server.URL, "--scenario", name)...).CombinedOutput()
			require.NoError(t, err, "%s", out)
			require.Contains(t, string(out), ", 0 failed")
			require.NotContains(t, string(out), "Passed: 0/")
		})
	}
}
