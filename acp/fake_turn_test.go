//go:build unix

package acp

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	sdk "github.com/coder/acp-go-sdk"
)

// fakeTurn is a turn of the fake agent.
type fakeTurn struct {
	a    *fakeAgent
	s    *fakeSession
	id   sdk.SessionId
	ctx  context.Context
	stop sdk.StopReason
	said strings.Builder

	blocks int            // number of blocks in the prompt
	blind  bool           // whether the turn reports a normal end after a cancellation
	free   bool           // whether the turn reports no tokens
	meta   map[string]any // the field _meta of the answer to the prompt
}

func (t *fakeTurn) tell(u sdk.SessionUpdate) { _ = t.a.update(context.Background(), t.id, u) }

func (t *fakeTurn) say(text string) {
	t.said.WriteString(text)
	t.tell(sdk.UpdateAgentMessageText(text))
}

// The method "raw" sends a session update given as JSON.
func (t *fakeTurn) raw(update string) {
	_, _ = fmt.Fprintf(t.a.out, `{"jsonrpc":"2.0","method":"session/update","params":{"sessionId":%q,"update":%s}}`+"\n", t.id, update)
}

// The method "do" executes one line of a prompt.
func (t *fakeTurn) do(line string) error {
	verb, rest, _ := strings.Cut(line, " ")
	switch verb {
	case "": // empty line between paragraphs
	case "say":
		t.say(rest)
	case "blocks":
		t.say(strconv.Itoa(t.blocks))
	case "blind": // ends the turn as if the turn had not been cancelled
		t.blind = true
	case "free":
		t.free = true
	case "zero": // reports zero tokens, as gemini does
		t.free, t.meta = true, map[string]any{"quota": map[string]any{"token_count": map[string]any{"input_tokens": 0, "output_tokens": 0}}}
	case "think":
		t.tell(sdk.UpdateAgentThoughtText(rest))
	case "wait": // waits until the turn is cancelled
		t.say("I wait")
		<-t.ctx.Done()
	case "deaf": // does not stop when the turn is cancelled
		t.say("I do not listen")
		<-t.a.ears
	case "nap":
		d, _ := time.ParseDuration(rest)
		select {
		case <-time.After(d):
		case <-t.ctx.Done():
		}
	case "fail":
		return &sdk.RequestError{Code: -32603, Message: "Internal error", Data: map[string]any{"details": rest}}
	case "error": // answers the prompt with an error given as JSON
		var e sdk.RequestError
		if err := json.Unmarshal([]byte(rest), &e); err != nil {
			return err
		}
		return &e
	case "heard": // reports how many prompts contain the text
		n := 0
		for _, text := range t.s.User {
			n += min(strings.Count(text, rest), 1)
		}
		t.say(strconv.Itoa(n))
	case "stop":
		t.stop = sdk.StopReason(rest)
	case "recall":
		t.say(t.s.User[0])
	case "model":
		t.say(t.s.model)
	case "mode":
		t.say(t.s.mode)
	case "dir":
		t.say(t.s.Dir)
	case "mcp":
		t.say(strconv.Itoa(t.s.MCP))
	case "plan":
		t.tell(sdk.UpdatePlan(sdk.PlanEntry{Content: "look", Status: "completed", Priority: "high"}, sdk.PlanEntry{Content: "write", Status: "in_progress", Priority: "high"}))
	case "cost":
		amount, _ := strconv.ParseFloat(rest, 64)
		t.tell(sdk.SessionUpdate{UsageUpdate: &sdk.SessionUsageUpdate{SessionUpdate: "usage_update", Used: 1, Size: 2, Cost: &sdk.Cost{Amount: amount, Currency: "USD"}}})
	case "flood":
		n, _ := strconv.Atoi(rest)
		for range n {
			t.tell(sdk.UpdateAgentMessageText("drip "))
		}
	case "env":
		t.say(rest + "=" + os.Getenv(rest))
	case "plug": // stops reading
		t.a.plug.Store(true)
		t.say("plugged")
	case "lateraw": // sends an update, given as JSON, after the answer
		wait, line, _ := strings.Cut(rest, " ")
		d, _ := time.ParseDuration(wait)
		time.AfterFunc(d, func() { t.raw(line) })
	case "update": // sends an update, given as JSON
		t.raw(rest)
	case "late": // sends a piece of text after the answer
		d, _ := time.ParseDuration(rest)
		time.AfterFunc(d, func() { t.tell(sdk.UpdateAgentMessageText("too late")) })
	case "latewrite": // writes a file after the answer
		wait, path, _ := strings.Cut(rest, " ")
		d, _ := time.ParseDuration(wait)
		time.AfterFunc(d, func() {
			_, _ = t.a.conn.WriteTextFile(context.Background(), sdk.WriteTextFileRequest{SessionId: t.id, Path: path, Content: "late"})
		})
	case "message": // sends a piece of the message with the given id
		id, text, _ := strings.Cut(rest, " ")
		t.said.WriteString(text)
		t.tell(sdk.SessionUpdate{AgentMessageChunk: &sdk.SessionUpdateAgentMessageChunk{SessionUpdate: "agent_message_chunk", MessageId: &id, Content: sdk.TextBlock(text)}})
	case "raw":
		_, _ = io.WriteString(t.a.out, rest+"\n")
	default:
		return t.use(verb, rest)
	}
	return nil
}

// The function "use" executes a line about tools, the client or the process.
func (t *fakeTurn) use(verb, rest string) error {
	ctx := context.Background()
	switch verb {
	case "tool", "half": // "half" begins a call that never ends
		id := t.call()
		t.tell(sdk.StartToolCall(id, rest, sdk.WithStartKind(sdk.ToolKindSearch), sdk.WithStartStatus(sdk.ToolCallStatusInProgress)))
		if verb == "tool" {
			t.tell(sdk.UpdateToolCall(id, sdk.WithUpdateStatus(sdk.ToolCallStatusCompleted)))
		}
	case "permit", "quietly", "bare": // "quietly" writes nothing after the answer; "bare" names only the id of a call
		call := sdk.ToolCallUpdate{ToolCallId: sdk.ToolCallId(rest)}
		if verb != "bare" {
			call = sdk.ToolCallUpdate{ToolCallId: t.call(), Title: sdk.Ptr(rest), Kind: sdk.Ptr(sdk.ToolKindExecute), RawInput: map[string]any{"command": rest}}
		}
		resp, err := t.a.conn.RequestPermission(ctx, sdk.RequestPermissionRequest{
			SessionId: t.id,
			ToolCall:  call,
			Options: []sdk.PermissionOption{
				{Kind: sdk.PermissionOptionKindAllowAlways, Name: "Always", OptionId: "always"},
				{Kind: sdk.PermissionOptionKindAllowOnce, Name: "Once", OptionId: "once"},
				{Kind: sdk.PermissionOptionKindRejectOnce, Name: "No", OptionId: "no"},
			},
		})
		switch {
		case err != nil:
			return err
		case verb == "quietly":
		case resp.Outcome.Selected != nil:
			t.say(fmt.Sprintf("answer %s %v", resp.Outcome.Selected.OptionId, resp.Meta["reason"]))
		default:
			t.say("cancelled")
		}
	case "read":
		resp, err := t.a.conn.ReadTextFile(ctx, sdk.ReadTextFileRequest{SessionId: t.id, Path: rest})
		t.answer(resp.Content, err)
	case "write":
		path, text, _ := strings.Cut(rest, " ")
		_, err := t.a.conn.WriteTextFile(ctx, sdk.WriteTextFileRequest{SessionId: t.id, Path: path, Content: text})
		t.answer("written", err)
	case "run", "leave": // "leave" does not wait for the command
		words := strings.Fields(rest)
		made, err := t.a.conn.CreateTerminal(ctx, sdk.CreateTerminalRequest{SessionId: t.id, Command: words[0], Args: words[1:]})
		if err != nil || verb == "leave" {
			t.answer("left", err)
			return nil
		}
		exit, err := t.a.conn.WaitForTerminalExit(ctx, sdk.WaitForTerminalExitRequest{SessionId: t.id, TerminalId: made.TerminalId})
		if err != nil {
			t.answer("", err)
			return nil
		}
		out, err := t.a.conn.TerminalOutput(ctx, sdk.TerminalOutputRequest{SessionId: t.id, TerminalId: made.TerminalId})
		t.answer(fmt.Sprintf("exit %d: %s", *exit.ExitCode, out.Output), err)
		_, _ = t.a.conn.ReleaseTerminal(ctx, sdk.ReleaseTerminalRequest{SessionId: t.id, TerminalId: made.TerminalId})
	case "spawn": // starts a child in a new operating system session, as agents do with their shells
		cmd := exec.Command("sleep", "600")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := cmd.Start(); err != nil {
			return err
		}
		t.say(strconv.Itoa(cmd.Process.Pid))
	case "stderr":
		fmt.Fprintln(os.Stderr, rest)
	case "exit":
		code, _ := strconv.Atoi(rest)
		os.Exit(code)
	case "kill":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	default:
		t.say("I do not know how to " + verb)
	}
	return nil
}

// The method "call" returns the id of a new tool call.
func (t *fakeTurn) call() sdk.ToolCallId {
	t.a.mu.Lock()
	defer t.a.mu.Unlock()
	t.a.calls++
	return sdk.ToolCallId("call_" + strconv.Itoa(t.a.calls))
}

// The method "answer" writes the client's answer as text from the agent.
func (t *fakeTurn) answer(text string, err error) {
	if err != nil {
		text = "error: " + err.Error()
	}
	t.say(text)
}
