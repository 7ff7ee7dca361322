package e2e

import (
	"bufio"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/bgagent/bgagent/internal/tempdir"
	"github.com/stretchr/testify/require"
)

// TestTheProgramsPage opens the page of bgagent serve while a caller delegates over
// MCP.
func TestTheProgramsPage(t *testing.T) {
	chromium(t)
	dir := tempdir.New(t)
	program := filepath.Join(dir, "bgagent")
	out, err := exec.Command("go", "build", "-o", program, "github.com/bgagent/bgagent/cmd/bgagent").CombinedOutput()
	require.NoError(t, err, string(out))
	require.NoError(t, os.WriteFile(filepath.Join(dir, ".bgagent.jsonc"), []byte(`{"agents": {"wait": {"kind": "inproc"}}}`), 0o600))
	serve := exec.Command(program, "serve", "--addr", "127.0.0.1:0")
	serve.Dir, serve.Stderr = dir, os.Stderr
	serve.Env = append(os.Environ(), "HOME="+dir, "XDG_CONFIG_HOME="+filepath.Join(dir, "config"))
	stdout, err := serve.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, serve.Start())
	t.Cleanup(func() {
		require.NoError(t, serve.Process.Signal(syscall.SIGTERM))
		require.NoError(t, serve.Wait())
	})
	lines := bufio.NewReader(stdout)
	address := func(what string) string {
		text, err := lines.ReadString('\n')
		require.NoError(t, err)
		url, ok := strings.CutPrefix(strings.TrimSpace(text), what+": ")
		require.True(t, ok, text)
		return url
	}
	mcp := address("MCP")
	p := open(t, address("page"), desktop)
	p.until(`document.getElementById('empty').textContent.startsWith('No tasks yet')`)

	const body = `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"delegate_task","arguments":{"subagent_type":"wait","prompt":"5 m","description":%q},` +
		`"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"c","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}}}`
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, mcp, strings.NewReader(fmt.Sprintf(body, "look at the page")))
	require.NoError(t, err)
	for key, value := range map[string]string{"Content-Type": "application/json", "Accept": "application/json, text/event-stream",
		"Mcp-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "delegate_task"} {
		req.Header.Set(key, value)
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, resp.StatusCode)
	require.NoError(t, resp.Body.Close())
	p.until(rowWith("look at the page") + `?.dataset.state === 'running'`)
}
