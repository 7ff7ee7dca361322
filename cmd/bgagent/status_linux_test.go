package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/creack/pty"
	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/stretchr/testify/require"
)

func TestStatusBreaksItsLinesBetweenWords(t *testing.T) {
	t.Parallel()
	p := withPatient(t)
	at, _ := startServe(t, p)
	cs := client(t, &mcp.StreamableClientTransport{Endpoint: at, DisableStandaloneSSE: true})
	first, second := delegate(t, cs, "one"), delegate(t, cs, "two")
	p.awaitFile("asked")
	const cols = 56
	for _, command := range []string{"status", "tasks"} {
		out, code := p.inTerminalOf(pty.Winsize{Rows: 60, Cols: cols}, func(*exec.Cmd, *output, *os.File) {}, command)
		require.Equal(t, 0, code, out)
		require.Contains(t, out, first)
		require.Contains(t, out, second)
		for line := range strings.Lines(out) {
			line = strings.TrimRight(line, "\r\n")
			short := utf8.RuneCountInString(line) <= cols || !strings.Contains(strings.TrimSpace(line), " ")
			require.True(t, short, "%s: the terminal would break %q in the middle of a word", command, line)
		}
	}
}
