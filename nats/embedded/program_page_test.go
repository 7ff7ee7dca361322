//go:build unix

package embedded_test

import (
	"bufio"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"
)

// pageEvents returns a channel of the data lines that a machine's page receives. The channel is closed at the
// end of the test.
func (m *machine) pageEvents() chan string {
	r, err := http.NewRequestWithContext(m.t.Context(), http.MethodGet, m.site()+"/events", nil)
	require.NoError(m.t, err)
	resp, err := http.DefaultClient.Do(r)
	require.NoError(m.t, err)
	require.Equal(m.t, http.StatusOK, resp.StatusCode)
	lines := make(chan string, 10_000)
	go func() {
		defer close(lines)
		defer resp.Body.Close()
		for all := bufio.NewReader(resp.Body); ; {
			line, err := all.ReadString('\n')
			if err != nil {
				return
			}
			lines <- line
		}
	}()
	return lines
}

func (m *machine) site() string { return strings.TrimSuffix(m.mcp, "/mcp") }

// pagePost makes a POST request like those that the page makes to change something. It returns the HTTP
// status.
func (m *machine) pagePost(path, body string) int {
	r, err := http.NewRequestWithContext(m.t.Context(), http.MethodPost, m.site()+path, strings.NewReader(body))
	require.NoError(m.t, err)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-Bgagent-Dashboard", "1")
	resp, err := http.DefaultClient.Do(r)
	require.NoError(m.t, err)
	require.NoError(m.t, resp.Body.Close())
	return resp.StatusCode
}

// await returns the first line that contains all parts.
func await(t *testing.T, lines chan string, parts ...string) string {
	t.Helper()
	late := time.After(time.Minute)
	for {
		select {
		case line := <-lines:
			all := true
			for _, part := range parts {
				all = all && strings.Contains(line, part)
			}
			if all {
				return line
			}
		case <-late:
			require.FailNow(t, "the page did not receive it", "%q", parts)
		}
	}
}

func TestThePageOfAServeShowsTheTasksOfAllProcesses(t *testing.T) {
	s := listening(t, func(*server.Options) {})
	one, two := twoMachines(t, s.URL(), false)
	one.start("m1", "--page-acts")
	two.start("m2", "--page-acts")
	first, second := one.launch(), one.launch()
	lines := two.pageEvents()
	await(t, lines, first, second, `"process":"m1"`)
	require.Equal(t, http.StatusOK, two.pagePost("/cancel", `{"id": "`+first+`", "reason": "not needed"}`))
	shown, err := one.run("show", first)
	require.NoError(t, err, shown)
	require.Contains(t, shown, "not needed")
	await(t, lines, first, `"status":"cancelled"`)

	require.NoError(t, one.serve.Process.Signal(syscall.SIGSTOP))
	began := time.Now()
	await(t, lines, second, `"problem":"does not answer"`, `"status":"running"`)
	lines = two.pageEvents()
	await(t, lines, second, `"problem":"does not answer"`)
	list, err := two.run("tasks")
	require.Error(t, err, "the list can be out of date")
	require.Contains(t, list, second)
	require.Contains(t, list, "it does not answer")
	require.Less(t, time.Since(began), 25*time.Second, "a frozen process delays nothing for long")
	own := two.launch()
	await(t, lines, own)
	require.NoError(t, one.serve.Process.Signal(syscall.SIGCONT))
	until(t, func() bool { return two.pagePost("/cancel", `{"id": "`+second+`"}`) != http.StatusBadGateway })

	third := one.launch()
	await(t, lines, third)
	one.kill()
	await(t, lines, third, `"problem":"not running"`)
	require.Equal(t, http.StatusBadGateway, two.pagePost("/cancel", `{"id": "`+third+`"}`))
}
