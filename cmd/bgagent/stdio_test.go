package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// answer is a message from the server.
type answer struct {
	ID    *int
	Error *struct {
		Code    int
		Message string
	}
	Result json.RawMessage
}

// A line that is not a message is answered with an error and does not end the connection.
func TestMCPContinuesAfterALineThatIsNotAMessage(t *testing.T) {
	p := newPlace(t)
	p.write(".bgagent.jsonc", `{"agents": {"wait": {"kind": "inproc"}}}`)
	r := p.rawMCP()
	say := r.say
	next := func() (a answer) {
		t.Helper()
		line := r.next()
		require.NoError(t, json.Unmarshal(line, &a), "%s", line)
		return a
	}

	say("\ufeff" + `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"c","version":"1"}}}`)
	require.Equal(t, 1, *next().ID)
	say(`{"jsonrpc":"2.0","method":"notifications/initialized"}`)
	say(`{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"delegate_task","arguments":{"subagent_type":"wait","prompt":"300 ms"}}}`)
	require.Equal(t, 2, *next().ID)
	for line, code := range map[string]int{
		"garbage":                      -32700,
		`{"jsonrpc":"2.0","id":3,`:     -32700,
		`{} {}`:                        -32700,
		"\x00\xff":                     -32700,
		`[1`:                           -32700,
		"42":                           -32600,
		"[]":                           -32600,
		"{}":                           -32600,
		`{"jsonrpc":"1.0","id":3}`:     -32600,
		`{"jsonrpc":"2.0","method":3}`: -32600,
		`[{"jsonrpc":"2.0"}]`:          -32600,
	} {
		say(line)
		a := next()
		require.Nil(t, a.ID, line)
		require.NotNil(t, a.Error, line)
		require.Equal(t, code, a.Error.Code, line)
	}
	say("")
	say(`{"jsonrpc":"2.0","id":98,"result":{}}`) // a response without a request
	say(`[{"jsonrpc":"2.0","id":4,"method":"ping"}]`)
	require.Equal(t, 4, *next().ID)
	say(`{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"name":"background_output","arguments":{"block":true}}}`)
	a := next()
	require.Equal(t, 5, *a.ID)
	require.Contains(t, string(a.Result), "completed", "the line did not end the task")
	r.end()
	require.Contains(t, r.problems.String(), `bgagent: standard input: refused a line: it is not JSON: "garbage"; MCP has one JSON-RPC message per line`)
}

func TestATooLongLineIsRefusedAndNotKept(t *testing.T) {
	var out bytes.Buffer
	w := &lineWriter{w: &out}
	long := io.MultiReader(strings.NewReader(`"`), io.LimitReader(endless{}, 2*maxLine), strings.NewReader("\"\n{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}"))
	r := &lineReader{in: io.NopCloser(nil), lines: bufio.NewReader(long), refuse: w.refuse}
	got, err := io.ReadAll(r)
	require.NoError(t, err)
	require.Equal(t, `{"jsonrpc":"2.0","id":1,"method":"ping"}`+"\n", string(got))
	require.Contains(t, out.String(), "it is longer than 16777216 bytes")
}

// endless is an endless stream of one letter.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'a'
	}
	return len(p), nil
}

// rawMCP is a "bgagent mcp" with which a test exchanges lines without the protocol library.
type rawMCP struct {
	t        *testing.T
	cmd      *exec.Cmd
	in       io.WriteCloser
	lines    *bufio.Reader
	problems bytes.Buffer // what it writes to standard error
}

func (p *place) rawMCP() *rawMCP {
	p.t.Helper()
	r := &rawMCP{t: p.t, cmd: p.command("mcp")}
	r.cmd.Stderr = &r.problems
	var err error
	r.in, err = r.cmd.StdinPipe()
	require.NoError(p.t, err)
	out, err := r.cmd.StdoutPipe()
	require.NoError(p.t, err)
	require.NoError(p.t, r.cmd.Start())
	p.t.Cleanup(func() { _ = r.cmd.Process.Kill(); _ = r.cmd.Wait() })
	r.lines = bufio.NewReader(out)
	return r
}

func (r *rawMCP) say(line string) {
	r.t.Helper()
	_, err := io.WriteString(r.in, line+"\n")
	require.NoError(r.t, err)
}

// The method "next" returns the next line.
func (r *rawMCP) next() []byte {
	r.t.Helper()
	line, err := r.lines.ReadBytes('\n')
	require.NoError(r.t, err, "%s", &r.problems)
	return line
}

// The method "end" ends the input. The program must then exit without an error.
func (r *rawMCP) end() {
	r.t.Helper()
	require.NoError(r.t, r.in.Close())
	require.NoError(r.t, r.cmd.Wait(), "%s", &r.problems)
}
