//go:build unix

package main

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
)

// askingClaude is a script that simulates Claude Code and asks one question.
const askingClaude = `#!/bin/sh
read prompt
echo '{"type":"system","subtype":"init","session_id":"s"}'
echo '{"type":"control_request","request_id":"r","request":{"subtype":"can_use_tool","tool_name":"AskUserQuestion","input":{"questions":[{"question":"Which?","options":[{"label":"left"},{"label":"right"}]}]}}}'
read answer
case "$answer" in
*'"Which?":"right"'*) said=right ;;
*'Nobody'*|*'nobody was asked'*) said=refused ;;
*) said=wrong ;;
esac
echo '{"type":"assistant","message":{"id":"m","content":[{"type":"text","text":"it was '$said'"}]},"session_id":"s"}'
echo '{"type":"result","subtype":"success","is_error":false,"result":"it was '$said'","stop_reason":"end_turn","session_id":"s"}'
cat >/dev/null
`

// The configuration file decides whether the caller of mcp gets the tool that answers questions.
func TestACallerOfMCPAnswersAQuestion(t *testing.T) {
	for keys, answers := range map[string]bool{`"ask": true, "backgroundMessage": true`: true, `"ask": true`: false} {
		p := newPlace(t)
		p.write("claude.sh", askingClaude)
		p.write(".bgagent.jsonc", `{"background_task": {`+keys+`}, "agents": {"c": {"kind": "command", "preset": "claude", "command": ["`+filepath.Join(p.project, "claude.sh")+`"]}}}`)
		r := p.rawMCP()
		says := func(line string) string {
			t.Helper()
			r.say(line)
			got := r.next()
			var a answer
			require.NoError(t, json.Unmarshal(got, &a))
			require.Nil(t, a.Error, "%s", got)
			return string(a.Result)
		}
		tool := func(name, arguments string) string {
			t.Helper()
			return says(`{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"` + name + `","arguments":` + arguments + `}}`)
		}
		says(`{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"c","version":"1"}}}`)
		r.say(`{"jsonrpc":"2.0","method":"notifications/initialized"}`)
		list := says(`{"jsonrpc":"2.0","id":2,"method":"tools/list"}`)
		if !answers {
			require.NotContains(t, list, `"background_message"`)
			id := regexp.MustCompile(`bg_\w+`).FindString(tool("delegate_task", `{"subagent_type":"c","prompt":"choose"}`))
			require.Contains(t, tool("background_output", `{"block":true,"task_id":"`+id+`"}`), "it was refused")
			continue
		}
		require.Contains(t, list, `"background_message"`)
		tool("delegate_task", `{"subagent_type":"c","prompt":"choose"}`)
		asks := tool("background_output", `{"block":true}`)
		found := regexp.MustCompile("background_message\\(task_id=[\\\\\"]+(bg_\\w+)[\\\\\"]+, question=[\\\\\"]+([^\\\\\"]+)").FindStringSubmatch(asks)
		require.Len(t, found, 3, asks)
		require.Contains(t, tool("background_message", `{"task_id":"`+found[1]+`","question":"`+found[2]+`","answer":"right"}`), "Question answered.")
		require.Contains(t, tool("background_output", `{"block":true,"task_id":"`+found[1]+`"}`), "it was right")
		r.end()
	}
}

// A person can grant permission on a page with a password, or with a command if the tasks are kept. If neither is
// possible, and models may not grant permission either, serve prints a warning.
func TestServeSaysIfNobodyCanPermit(t *testing.T) {
	const said = "no person can answer if a task asks for a permission"
	for name, x := range map[string]struct {
		keys string
		args []string
		want bool
	}{
		"nobody":                {`"ask": true`, []string{"--state", "none", "serve", "--page-acts"}, true},
		"a model":               {`"ask": true, "modelsMayPermit": true`, []string{"--state", "none", "serve", "--page-acts"}, false},
		"bgagent answer":        {`"ask": true`, []string{"serve", "--page-acts"}, false},
		"nobody asks":           {`"ask": false`, []string{"--state", "none", "serve", "--page-acts"}, false},
		"no question is parked": {`"ask": true`, []string{"--state", "none", "serve"}, false},
	} {
		p := newPlace(t)
		p.write(".bgagent.jsonc", `{"background_task": {`+x.keys+`}}`)
		r := p.start(append(x.args, "--addr", "127.0.0.1:0")...)
		r.out.await(t, "MCP: ")
		r.interrupt(t)
		require.Zero(t, r.code(), r.out.String())
		require.Equal(t, x.want, bytes.Contains([]byte(r.out.String()), []byte(said)), "%s: %s", name, r.out)
	}
}
