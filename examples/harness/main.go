// Command harness is a small but real agent harness. It is a chat with a model. The model is
// called through OpenAI's chat API and gets bgagent's three tools. Delegated tasks run in the
// background. Their agents use the same model, but each has its own system prompt and two
// tools that read files. When the tasks have ended, a notice starts a new turn of the leading
// model.
//
//	go run ./examples/harness -offline
//	OPENAI_API_KEY=… go run ./examples/harness -model gpt-5-mini "What does this module do?"
//
// With -offline, a scripted model in this process answers. With -watch, the program prints
// the events about the tasks. Further questions are read from standard input, one per line.
// The program exits when there are no more questions, no task is live and no notice is owed.
package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/inproc"
)

const (
	leader   = "You lead. Delegate research to background agents with delegate_task, several at the same time, and continue when you are notified that they have ended."
	explore  = "You are explore: you find things in the files of a project. Answer in a few sentences, with file names."
	oracle   = "You are oracle: you judge designs and name the one thing to change first. Answer in a few sentences."
	question = "What is this project, how is it built, and what would you change first?"
)

type harness struct {
	url, model, key string
	watch           bool
	files           *os.Root
	out             io.Writer
}

func main() {
	var h harness
	flag.StringVar(&h.url, "base-url", openAI, "base URL of an OpenAI-compatible API")
	flag.StringVar(&h.model, "model", "gpt-5-mini", "model of all agents")
	flag.BoolVar(&h.watch, "watch", false, "print the events about the tasks")
	dir := flag.String("dir", ".", "directory that the agents may read")
	scripted := flag.Bool("offline", false, "use a scripted model in this process instead of a real one: no key, no network")
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), "Usage: harness [flags] [question]\n\nThe API's key is read from the environment variable %s; -offline needs none.\n\n", keyVariable)
		flag.PrintDefaults()
	}
	flag.Parse()
	h.key, h.out = os.Getenv(keyVariable), os.Stdout
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	err := h.usable(*scripted)
	if err == nil {
		h.files, err = os.OpenRoot(*dir)
	}
	if err == nil {
		if *scripted {
			var end func()
			h.url, end = offline()
			defer end()
		}
		err = h.run(ctx, cmp.Or(strings.Join(flag.Args(), " "), question), os.Stdin)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "harness:", err)
		os.Exit(1)
	}
}

// keyVariable is the name of the environment variable that holds the API key.
const keyVariable = "OPENAI_API_KEY"

// openAI is the base URL of OpenAI's API, which always needs a key. Other servers may not
// need one.
const openAI = "https://api.openai.com/v1"

// The method "usable" returns an error if the key is missing. It is called before any request,
// because without a key, the API would only answer with status 401.
func (h *harness) usable(offline bool) error {
	if offline || h.key != "" || h.url != openAI {
		return nil
	}
	return fmt.Errorf("%s is not set: set it to your key, name another API with -base-url, or try it with -offline, which needs neither key nor network", keyVariable)
}

// The method "run" conducts one conversation. The prompts are the question, the lines of the input,
// and the texts of the notices.
func (h *harness) run(ctx context.Context, question string, in io.Reader) (err error) {
	notices := make(chan bgagent.Notice, 8)
	m, err := bgagent.New(inproc.New(map[string]inproc.Agent{"explore": h.worker(explore), "oracle": h.worker(oracle)}), bgagent.Config{
		Limits: bgagent.Limits{Default: 2}, // at most two running tasks per model
		Model:  func(string, string) (string, error) { return h.model, nil },
		Notify: func(_ context.Context, _ string, n bgagent.Notice) error {
			select {
			case notices <- n:
				return nil
			default:
				return bgagent.ErrBusy // the manager retries later
			}
		},
	})
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if left := m.Close(ctx); ctx.Err() != nil {
			err = errors.Join(err, left)
		}
	}()
	if h.watch {
		_, events := m.Subscribe(0)
		go h.show(events)
	}

	lines := make(chan string)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(in); s.Scan(); {
			lines <- s.Text()
		}
	}()
	me := bgagent.Caller{Session: "main"}
	c := &chat{h: h, tools: bgagent.Tools(m, bgagent.ToolOptions{}), caller: me}
	c.add("system", leader)
	for text := question; text != ""; {
		answer, err := c.turn(ctx, text, func(name, args string) { fmt.Fprintf(h.out, "  (%s %s)\n", name, args) })
		if err != nil {
			return err
		}
		fmt.Fprintf(h.out, "\n%s\n\n", answer)
		for text = ""; text == ""; {
			live, owed := m.Outstanding(me.Session)
			if lines == nil && live+owed+len(notices) == 0 {
				break // there will be no more prompts
			}
			select {
			case line, more := <-lines:
				if text = line; !more {
					lines = nil
				}
			case n := <-notices:
				text = n.Text
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return nil
}

// The method "show" prints events until the manager is closed.
func (h *harness) show(events *bgagent.Subscription) {
	for e := range events.Events(context.Background()) {
		fmt.Fprintf(h.out, "  [%s %s: %s, %d tool calls]\n", e.Task.Agent, e.Kind, e.Task.Description, e.Task.Progress.ToolCalls)
	}
}

// worker returns a background agent that uses the model with the given system prompt and the
// file tools.
func (h *harness) worker(system string) inproc.Agent {
	return func(ctx context.Context, t *inproc.Turn) (string, error) {
		c := &chat{h: h, tools: h.fileTools()}
		c.add("system", system)
		for _, msg := range t.History() {
			role := "assistant"
			if msg.Role == bgagent.RoleUser {
				role = "user"
			}
			c.add(role, msg.Text)
		}
		return c.turn(ctx, t.Prompt.Text, func(name, args string) {
			t.Tool(bgagent.MessageTool{ID: fmt.Sprint(len(c.messages)), Name: name, State: bgagent.ToolDone, Input: bgagent.DigestOf(args)})
		})
	}
}

// fileTools returns the tools of the background agents.
func (h *harness) fileTools() []bgagent.ToolDef {
	return []bgagent.ToolDef{
		{Name: "list_files", Description: "Lists all files.", Schema: json.RawMessage(`{"type":"object","properties":{}}`),
			Call: func(context.Context, json.RawMessage) (bgagent.ToolResult, error) {
				names, err := fs.Glob(h.files.FS(), "*")
				return bgagent.ToolResult{Text: strings.Join(names, "\n")}, err
			}},
		{Name: "read_file", Description: "Returns the text of a file.", Schema: json.RawMessage(`{"type":"object","properties":{"path":{"type":"string"}},"required":["path"]}`),
			Call: func(_ context.Context, args json.RawMessage) (bgagent.ToolResult, error) {
				var a struct{ Path string }
				if err := json.Unmarshal(args, &a); err != nil {
					return bgagent.ToolResult{Text: err.Error(), IsError: true}, nil
				}
				data, err := h.files.ReadFile(a.Path) // os.Root refuses files outside the directory
				if err != nil {
					return bgagent.ToolResult{Text: err.Error(), IsError: true}, nil
				}
				return bgagent.ToolResult{Text: string(data[:min(len(data), 20_000)])}, nil
			}},
	}
}

// chat is one conversation with the model.
type chat struct {
	h        *harness
	tools    []bgagent.ToolDef
	caller   bgagent.Caller
	messages []message
}

type message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
	Calls   []call `json:"tool_calls,omitempty"`
	CallID  string `json:"tool_call_id,omitempty"`
}

type call struct {
	ID       string `json:"id"`
	Type     string `json:"type"`
	Function struct {
		Name      string `json:"name"`
		Arguments string `json:"arguments"`
	} `json:"function"`
}

func (c *chat) add(role, text string) {
	c.messages = append(c.messages, message{Role: role, Content: text})
}

// The method "turn" sends text to the model and runs the tools that the model calls. It returns the
// first answer without a tool call.
func (c *chat) turn(ctx context.Context, text string, called func(name, args string)) (string, error) {
	c.add("user", text)
	for {
		answer, err := c.ask(ctx)
		if err != nil {
			return "", err
		}
		c.messages = append(c.messages, answer)
		if len(answer.Calls) == 0 {
			return answer.Content, nil
		}
		for _, x := range answer.Calls {
			called(x.Function.Name, x.Function.Arguments)
			result := bgagent.ToolResult{Text: "there is no tool " + x.Function.Name, IsError: true}
			for _, tool := range c.tools {
				if tool.Name == x.Function.Name {
					by := bgagent.Caller{Session: c.caller.Session, ToolCallID: x.ID}
					if result, err = tool.Call(bgagent.WithCaller(ctx, by), json.RawMessage(x.Function.Arguments)); err != nil {
						return "", err
					}
				}
			}
			c.messages = append(c.messages, message{Role: "tool", Content: result.Text, CallID: x.ID})
		}
	}
}

// The method "ask" sends one request to the model.
func (c *chat) ask(ctx context.Context) (answer message, err error) {
	type function struct {
		Name        string          `json:"name"`
		Description string          `json:"description"`
		Parameters  json.RawMessage `json:"parameters"`
	}
	var tools []map[string]any
	for _, t := range c.tools {
		tools = append(tools, map[string]any{"type": "function", "function": function{t.Name, t.Description, t.Schema}})
	}
	body, err := json.Marshal(map[string]any{"model": c.h.model, "messages": c.messages, "tools": tools})
	if err != nil {
		return answer, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.h.url+"/chat/completions", bytes.NewReader(body))
	if err != nil {
		return answer, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+c.h.key)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return answer, err
	}
	defer resp.Body.Close()
	var got struct {
		Choices []struct{ Message message }
		Error   struct{ Message string }
	}
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil || len(got.Choices) == 0 {
		return answer, fmt.Errorf("the model's server answered %s: %s", resp.Status, cmp.Or(got.Error.Message, "no choices"))
	}
	return got.Choices[0].Message, nil
}
