package command

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"sync"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/asktext"
	"github.com/bgagent/bgagent/internal/jsonlines"
)

// ClaudeAsking is like [Claude], but the agent can ask for permission to call a tool, and can ask a
// single question with fixed options. The host answers with [bgagent.BackgroundManager.Answer].
// Without bgagent.Config.Ask, each request is refused immediately, and the agent gets the reason.
//
// The prompt is a JSON line (--input-format stream-json), and the questions and answers go through
// standard input and output (--permission-prompt-tool stdio). The rules of Claude Code and of the task
// decide first. A rule with the action "ask" denies, as with [Claude]. The tools of an MCP server are
// allowed by rules for their names, by a rule for the server (mcp__db), or by a rule for all tools
// (*). Claude Code itself does not apply a rule for all tools to these tools, so the client does.
// Questions without options, and requests with several questions, are refused. If the program ends,
// its open question is withdrawn.
func ClaudeAsking() Program {
	p := Claude()
	more := []string{"--input-format=stream-json", "--permission-prompt-tool=stdio"}
	p.Start.Args = append(p.Start.Args[:len(p.Start.Args):len(p.Start.Args)], more...)
	p.Resume.Args = append(p.Resume.Args[:len(p.Resume.Args):len(p.Resume.Args)], more...)
	p.Overrides = append(p.Overrides, "--permission-prompt-tool")
	p.asks = true
	return p
}

// Options of Claude Code's permission questions.
const (
	allowOnce = asktext.AllowOnce
	deny      = asktext.Deny
)

// claudePrompt returns the line with the prompt.
func claudePrompt(text string) string {
	var line struct {
		Type    string `json:"type"`
		Message struct {
			Role    string `json:"role"`
			Content string `json:"content"`
		} `json:"message"`
	}
	line.Type, line.Message.Role, line.Message.Content = "user", "user", text
	out, _ := json.Marshal(line) // strings can always be encoded
	return string(out) + "\n"
}

// dialog answers the requests that a program prints on standard output. The program reads the answers from
// standard input.
type dialog struct {
	r      *bgagent.Reporter
	rules  []bgagent.Permission
	input  *os.File
	ctx    context.Context
	cancel context.CancelFunc
	tasks  sync.WaitGroup // goroutines of the dialog

	mu    sync.Mutex
	ended bool                          // whether further requests are ignored
	asked map[string]context.CancelFunc // open questions, by the program's id
	lines [][]byte                      // answers that have not been written yet
	wakes chan struct{}                 // gets a signal when the field "lines" grows
}

// newDialog returns a dialog that first writes the prompt. If the rules allow a tool of an MCP server,
// the dialog grants requests for it without a question.
func newDialog(ctx context.Context, r *bgagent.Reporter, rules []bgagent.Permission, input *os.File, prompt string) *dialog {
	d := &dialog{r: r, rules: rules, input: input, asked: map[string]context.CancelFunc{}, lines: [][]byte{[]byte(prompt)}, wakes: make(chan struct{}, 1)}
	d.ctx, d.cancel = context.WithCancel(ctx)
	d.tasks.Go(d.write)
	d.wakes <- struct{}{}
	return d
}

// The method "write" writes the lines until the dialog is over. If the program does not read its
// input, only this goroutine waits.
func (d *dialog) write() {
	for {
		select {
		case <-d.wakes:
		case <-d.ctx.Done():
			return
		}
		d.mu.Lock()
		lines := d.lines
		d.lines = nil
		d.mu.Unlock()
		for _, line := range lines {
			if _, err := d.input.Write(line); err != nil {
				return
			}
		}
	}
}

// The method "send" queues a line for writing. Lines for a program that does not read them are
// dropped.
func (d *dialog) send(v any) {
	line, err := json.Marshal(v)
	if err != nil { // does not happen, because the inputs of calls were decoded from JSON
		return
	}
	d.mu.Lock()
	if len(d.lines) < maxUnread {
		d.lines = append(d.lines, append(line, '\n'))
	}
	d.mu.Unlock()
	select {
	case d.wakes <- struct{}{}:
	default:
	}
}

// The method "over" is called when the dialog is over. It closes the program's input, so that the
// program exits. It reports whether the input was open.
func (d *dialog) over() bool {
	d.cancel()
	return d.input.Close() == nil
}

// The method "stop" withdraws the open questions. Further requests are ignored.
func (d *dialog) stop() {
	d.mu.Lock()
	d.ended = true
	d.mu.Unlock()
	d.over()
}

// The method "wait" waits until nothing uses the reporter. It must be called after the method
// "stop".
func (d *dialog) wait() { d.tasks.Wait() }

// maxUnread is the maximum number of answers that wait for the program to read them.
const maxUnread = 10_000

// shortened matches the note at the end of a string that was cut because its line is longer than
// Config.MaxLine. A request in such a line is refused, because nobody can see all of it.
var shortened = regexp.MustCompile(`\[cut: \d+ more bytes\]"`)

// controlLine is a line that asks or withdraws one of Claude Code's questions.
type controlLine struct {
	Type    string
	ID      string `json:"request_id"`
	Request struct {
		Subtype string
		Tool    string `json:"tool_name"`
		Input   json.RawMessage
		Path    string `json:"blocked_path"`
	}

	cut bool // whether a string in the line was shortened or the line was dropped
}

// canAnswer reports whether the request has a usable id, which an answer can name.
func (x *controlLine) canAnswer() bool {
	return x.ID != "" && len(x.ID) <= maxName && !shortened.MatchString(x.ID+`"`)
}

// errNoID is the problem of a turn whose program waits for the answer to a request without a usable
// id.
var errNoID = fmt.Sprintf("it asked a question without a usable id (a text of 1 to %d bytes), so that nobody can answer", maxName)

// The method "hears" handles a line about a question. It returns false for any other line. If the
// program would wait forever for an answer, the method returns the problem.
func (d *dialog) hears(line []byte) (mine bool, problem string) {
	var x controlLine
	if !jsonlines.Decode(line, &x) {
		return false, ""
	}
	switch x.Type {
	case "control_request":
		x.cut = shortened.Match(line)
		return true, d.ask(&x)
	case "control_cancel_request":
		d.mu.Lock()
		defer d.mu.Unlock()
		if cancel := d.asked[x.ID]; cancel != nil {
			cancel()
		}
		return true, ""
	}
	return false, ""
}

// The method "misses" handles a line that was dropped because it was too long. beginning holds the
// beginning of the line. If the program would wait forever for an answer, the problem is not empty.
func (d *dialog) misses(beginning []byte) (problem string) {
	var x controlLine
	in := json.NewDecoder(bytes.NewReader(beginning))
	if begin, err := in.Token(); err != nil || begin != json.Delim('{') {
		return ""
	}
	for in.More() { // until the line is cut off
		name, err := in.Token()
		if err != nil {
			break
		}
		var value json.RawMessage
		if in.Decode(&value) != nil {
			break
		}
		switch name {
		case "type":
			_ = json.Unmarshal(value, &x.Type) // stays empty if it is not a string
		case "request_id":
			_ = json.Unmarshal(value, &x.ID)
		}
	}
	if x.Type != "control_request" {
		return ""
	}
	x.cut, x.Request.Subtype = true, permissionRequest
	return d.ask(&x)
}

// permissionRequest is the subtype of a request for permission or for an answer.
const permissionRequest = "can_use_tool"

// The method "ask" begins to answer a request. If the request's id is already in use, the request
// fails, because its answer could be mistaken for the answer to the other request. A request that
// asks for neither permission nor an answer also fails. If the request cannot be answered at all,
// the problem is not empty.
func (d *dialog) ask(x *controlLine) (problem string) {
	if !x.canAnswer() {
		return errNoID
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.ended:
		return ""
	case x.Request.Subtype != permissionRequest || d.asked[x.ID] != nil:
		d.tasks.Go(func() { d.fail(x.ID, "this client cannot answer the request") })
		return ""
	}
	ctx, cancel := context.WithCancel(d.ctx)
	d.asked[x.ID] = cancel
	d.tasks.Go(func() {
		defer cancel()
		answer := d.answer(ctx, x)
		d.mu.Lock()
		delete(d.asked, x.ID)
		d.mu.Unlock()
		if ctx.Err() == nil {
			d.send(map[string]any{"type": "control_response", "response": map[string]any{"subtype": "success", "request_id": x.ID, "response": answer}})
		}
	})
	return ""
}

// The method "fail" answers a request with an error.
func (d *dialog) fail(id, problem string) {
	d.send(map[string]any{"type": "control_response", "response": map[string]any{"subtype": "error", "request_id": id, "error": problem}})
}

// The method "answer" asks the manager and returns the answer for the program.
func (d *dialog) answer(ctx context.Context, x *controlLine) map[string]any {
	refuse := func(reason string) map[string]any {
		return map[string]any{"behavior": "deny", "message": reason + asktext.Advice}
	}
	if x.cut {
		return refuse("This was not allowed: the request is too long to be shown as a whole (Config.MaxLine).")
	}
	decoded, _ := asktext.Decode(x.Request.Input)
	input, ok := decoded.(map[string]any)
	if !ok {
		return refuse("This was not allowed: the input of the call cannot be read.")
	}
	allow := map[string]any{"behavior": "allow", "updatedInput": x.Request.Input}
	if x.Request.Path == "" && claudeAllows(d.rules, x.Request.Tool) {
		return allow
	}
	q := bgagent.Question{
		Kind: bgagent.QuestionPermission, Title: asktext.Shown("may it use " + x.Request.Tool), Options: []string{allowOnce, deny},
		Subject: asktext.Input(input),
	}
	asked, options := "", []asktext.Option(nil)
	if x.Request.Tool == "AskUserQuestion" {
		if asked, options = choice(x.Request.Input, &q); asked == "" {
			return refuse("This question cannot be answered: a task can ask only one question at a time, with fixed options.")
		}
	} else if x.Request.Path != "" {
		q.Subject += "\n" + asktext.Field("blocked path", x.Request.Path)
	}
	option, err := d.r.Ask(ctx, q)
	switch {
	case err != nil:
		return refuse("This was not allowed: " + asktext.Reason(err) + ".")
	case asked != "":
		label, _ := asktext.Chosen(options, option) // the manager returns only an option that was offered
		input["answers"] = map[string]string{asked: label}
		allow["updatedInput"] = input
	case option != allowOnce:
		return refuse("The host has denied this.")
	}
	return allow
}

// choice stores the agent's question in q, and returns its text and its options. Unless the agent asks
// exactly one question, with options, the returned text is "".
func choice(input json.RawMessage, q *bgagent.Question) (asked string, options []asktext.Option) {
	var x struct {
		Questions []struct {
			Question string
			Options  []asktext.Option
		}
	}
	if !jsonlines.Decode(input, &x) || len(x.Questions) != 1 || len(x.Questions[0].Options) == 0 {
		return "", nil
	}
	asked, options = x.Questions[0].Question, x.Questions[0].Options
	q.Title = asktext.Shown(asked)
	asktext.Choose(q, asked, options)
	return asked, options
}
