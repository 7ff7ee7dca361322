package opencode

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/asktext"
	"github.com/bgagent/bgagent/internal/calldigest"
)

// The wire types have only the fields that are used here. Other fields, parts and events
// that the server sends are ignored.

type wireSession struct {
	ID         string     `json:"id"`
	Directory  string     `json:"directory"`
	ParentID   string     `json:"parentID"`
	Agent      string     `json:"agent"`
	Model      *wireModel `json:"model"`
	Permission []wireRule `json:"permission"`
	Time       struct {
		Created float64 `json:"created"`
	} `json:"time"`
	Metadata json.RawMessage `json:"metadata"`
}

// wireModel is a model in a session. In a prompt, the field "id" is called "modelID"; see
// wirePromptModel.
type wireModel struct {
	ID         string `json:"id"`
	ProviderID string `json:"providerID"`
}

type wireRule struct {
	Permission string `json:"permission"`
	Pattern    string `json:"pattern"`
	Action     string `json:"action"`
}

type wireNewSession struct {
	ParentID   string     `json:"parentID,omitempty"`
	Title      string     `json:"title,omitempty"`
	Agent      string     `json:"agent,omitempty"`
	Model      *wireModel `json:"model,omitempty"`
	Permission []wireRule `json:"permission,omitempty"`

	Metadata map[string]string `json:"metadata,omitempty"`
}

// wirePrompt has no field for tools, because the server would replace the session's rules
// with the field's value.
type wirePrompt struct {
	MessageID string           `json:"messageID"`
	Agent     string           `json:"agent,omitempty"`
	Model     *wirePromptModel `json:"model,omitempty"`
	System    string           `json:"system,omitempty"`
	NoReply   bool             `json:"noReply,omitempty"`
	Parts     []wirePromptPart `json:"parts"`
}

type wirePromptModel struct {
	ProviderID string `json:"providerID"`
	ModelID    string `json:"modelID"`
}

type wirePromptPart struct {
	ID       string            `json:"id"`
	Type     string            `json:"type"`
	Text     string            `json:"text"`
	Ignored  bool              `json:"ignored,omitempty"` // the model does not get the part
	Metadata map[string]string `json:"metadata,omitempty"`
}

// firstLine returns the first line of a text. In an error message, the other lines are a stack trace.
func firstLine(s string) string {
	s, _, _ = strings.Cut(strings.TrimSpace(s), "\n")
	return strings.TrimSpace(s)
}

type wireInfo struct {
	ID        string `json:"id"`
	SessionID string `json:"sessionID"`
	Role      string `json:"role"`
	ParentID  string `json:"parentID"` // in an assistant message: the message that it answers
	Summary   bool   `json:"-"`        // the assistant wrote the message as a summary of older messages
	Time      struct {
		Created   float64 `json:"created"`
		Completed float64 `json:"completed"`
	} `json:"time"`
	Error  *wireError `json:"error"`
	Finish string     `json:"finish"`
	Cost   float64    `json:"cost"`
	Tokens struct {
		Input  float64 `json:"input"`
		Output float64 `json:"output"`
		Cache  struct {
			Read  float64 `json:"read"`
			Write float64 `json:"write"`
		} `json:"cache"`
	} `json:"tokens"`
}

// UnmarshalJSON decodes the info of a message. The field "summary" is a boolean in an assistant
// message, and an object in a user message.
func (i *wireInfo) UnmarshalJSON(b []byte) error {
	type plain wireInfo
	in := struct {
		*plain
		Summary json.RawMessage `json:"summary"`
	}{plain: (*plain)(i)}
	if err := lenient(json.Unmarshal(b, &in)); err != nil {
		return err
	}
	i.Summary = string(in.Summary) == "true"
	return nil
}

type wirePart struct {
	ID        string `json:"id"`
	SessionID string `json:"sessionID"`
	MessageID string `json:"messageID"`
	Type      string `json:"type"`
	Text      string `json:"text"`
	Ignored   bool   `json:"ignored"`
	Synthetic bool   `json:"synthetic"`
	CallID    string `json:"callID"`
	Tool      string `json:"tool"`
	State     struct {
		Status string     `json:"status"`
		Error  string     `json:"error"`
		Input  wireInput  `json:"input"`
		Output wireOutput `json:"output"`
		Detail struct {
			Exit json.RawMessage `json:"exit"` // exit code of a command
		} `json:"metadata"`
	} `json:"state"`
	Metadata json.RawMessage `json:"metadata"`
}

// wireInput is the input of a tool call. Only its digest and the questions to the user are kept.
type wireInput struct {
	Questions []wireAsked `json:"questions"`
	digest    bgagent.Digest
}

// UnmarshalJSON implements [json.Unmarshaler].
func (i *wireInput) UnmarshalJSON(b []byte) error {
	type plain wireInput
	err := lenient(json.Unmarshal(b, (*plain)(i)))
	i.digest = calldigest.Input(b)
	return err
}

// wireOutput is the result of a tool call. Results are long, so only the digest is kept.
type wireOutput bgagent.Digest

// UnmarshalJSON implements [json.Unmarshaler].
func (o *wireOutput) UnmarshalJSON(b []byte) error {
	*o = wireOutput(calldigest.Result(b))
	return nil
}

type wireAsked struct {
	Question string           `json:"question"`
	Options  []asktext.Option `json:"options"`
}

type wireParts []wirePart

// UnmarshalJSON decodes the parts one by one. It skips elements that are not objects. If
// the value is not a list, there are no parts.
func (p *wireParts) UnmarshalJSON(b []byte) error {
	var l list[wirePart]
	switch err := decodeList(json.NewDecoder(bytes.NewReader(b)), &l); {
	case errors.Is(err, errNotAList):
		return nil
	case err != nil:
		return err
	}
	*p = l.items
	return nil
}

// promptID returns the id of the prompt or the notice that the part contains. It
// returns "" if no client of this package sent the part.
func (p *wirePart) promptID() string {
	if len(p.Metadata) == 0 {
		return ""
	}
	var m map[string]json.RawMessage
	var id string
	if json.Unmarshal(p.Metadata, &m) != nil || json.Unmarshal(m[metadataKey], &id) != nil {
		return ""
	}
	return id
}

// The method "joins" reports whether the part is a message that joined a turn; see
// [Client.Steer].
func (p *wirePart) joins() bool {
	var m map[string]json.RawMessage
	return len(p.Metadata) > 0 && json.Unmarshal(p.Metadata, &m) == nil && len(m[joinsKey]) > 0
}

// The method "continues" reports whether opencode wrote the part to make an agent continue after
// a compaction.
func (p *wirePart) continues() bool {
	var m struct {
		Continue bool `json:"compaction_continue"`
	}
	return len(p.Metadata) > 0 && json.Unmarshal(p.Metadata, &m) == nil && m.Continue
}

// metadataKey is the metadata key for bgagent.Prompt.ID or bgagent.Notice.ID in a part, and for
// bgagent.SessionSpec.Key in a session. The server stores the metadata.
const metadataKey = "bgagent"

type wireMessage struct {
	Info  wireInfo  `json:"info"`
	Parts wireParts `json:"parts"`
}

type wireTodo struct {
	Content string `json:"content"`
	Status  string `json:"status"`
}

func todos(list []wireTodo) []bgagent.Todo {
	out := make([]bgagent.Todo, len(list))
	for i, t := range list {
		state := bgagent.TodoPending
		switch t.Status {
		case "in_progress":
			state = bgagent.TodoInProgress
		case "completed":
			state = bgagent.TodoCompleted
		case "cancelled":
			state = bgagent.TodoCancelled
		}
		out[i] = bgagent.Todo{Text: t.Content, State: state}
	}
	return out
}

type wireAgent struct {
	Name        string `json:"name"`
	Description string `json:"description"`
	Hidden      bool   `json:"hidden"`
}

type wireProviders struct {
	Providers []struct {
		ID     string              `json:"id"`
		Models map[string]struct{} `json:"models"`
	} `json:"providers"`
}

type wirePermission struct {
	ID         string      `json:"id"`
	SessionID  string      `json:"sessionID"`
	Permission string      `json:"permission"`
	Patterns   []string    `json:"patterns"`
	Metadata   wireDetails `json:"metadata"`
	Tool       wireCall    `json:"tool"`
}

// wireDetails holds the details of a permission request. If the value is not an object, there are
// no details.
type wireDetails struct {
	plain map[string]any // for Config.Permission
	exact map[string]any // the same value, with its numbers as the server wrote them
}

// UnmarshalJSON implements [json.Unmarshaler].
func (d *wireDetails) UnmarshalJSON(b []byte) error {
	if json.Unmarshal(b, &d.plain) != nil {
		*d = wireDetails{}
		return nil
	}
	exact, _ := asktext.Decode(b)
	d.exact, _ = exact.(map[string]any)
	return nil
}

type wireQuestion struct {
	ID        string      `json:"id"`
	SessionID string      `json:"sessionID"`
	Questions []wireAsked `json:"questions"`
	Tool      wireCall    `json:"tool"`
}

// wireCall identifies the tool call that asks the question.
type wireCall struct {
	MessageID string `json:"messageID"`
	CallID    string `json:"callID"`
}

// message converts the message to bgagent's type.
func (m *wireMessage) message() bgagent.Message {
	out := bgagent.Message{ID: m.Info.ID, Time: millis(m.Info.Time.Created)}
	switch {
	case m.Info.Role == "user":
		out.Role, out.Finished = bgagent.RoleUser, true
	case m.Info.Role == "assistant" && (!m.Info.Summary || m.Info.Error != nil): // if a compaction fails, the turn ends
		out.Role = bgagent.RoleAgent
		out.Usage = m.Info.usage()
		m.ended(&out)
	default: // the summary of a compaction does not answer any prompt
		out.Usage = m.Info.usage()
		out.Finished = m.Info.Time.Completed > 0 || m.Info.Error != nil
	}
	var text, reasoning strings.Builder
	asks := false
	for i := range m.Parts {
		switch p := &m.Parts[i]; p.Type {
		case "text":
			asks = true
			if id := p.promptID(); id != "" && out.Role == bgagent.RoleUser {
				out.PromptID = id // the last of the message's prompt ids, if the prompt was continued
			}
			if !p.Ignored {
				separate(&text, p.Text)
			}
		case "file", "agent", "subtask":
			asks = true
		case "reasoning":
			separate(&reasoning, p.Text)
		case "tool":
			out.Tools = append(out.Tools, p.tool())
		}
	}
	if out.Role == bgagent.RoleUser && !asks {
		out.Role = bgagent.RoleOther // a request to compact, for instance
	}
	out.Text, out.Reasoning = text.String(), reasoning.String()
	return out
}

func (i *wireInfo) usage() bgagent.Usage {
	t := &i.Tokens
	return bgagent.Usage{InputTokens: whole(t.Input) + whole(t.Cache.Read) + whole(t.Cache.Write), OutputTokens: whole(t.Output), Cost: max(i.Cost, 0)}
}

// The function "whole" converts a number of tokens. It returns 0 if the number is negative, too large or not
// a number.
func whole(n float64) int64 {
	const most = 1 << 50
	if n > 0 && n < most {
		return int64(n)
	}
	return 0
}

// The method "ended" sets the stop reason of an agent message that has ended. Some completed messages have
// neither an error nor a finish reason. If such a message is empty, the turn was aborted before the model
// request was retried. Otherwise the model's stream was cut off.
func (m *wireMessage) ended(out *bgagent.Message) {
	i := &m.Info
	if i.Error != nil {
		out.Finished = true
		out.Stop, out.Error = i.Error.stop()
		out.Provider = i.Error.provider(millis(i.Time.Completed))
		return
	}
	if out.Finished = i.Time.Completed > 0; !out.Finished {
		return
	}
	switch i.Finish {
	case "tool-calls": // the answer comes in a later message
		out.Stop = bgagent.StopToolCalls
		if why := m.declined(); why != "" {
			out.Stop, out.Error = bgagent.StopError, why
		}
	case "":
		out.Stop = bgagent.StopInterrupted
		if m.empty() {
			out.Stop = bgagent.StopAborted
		}
	case "length":
		out.Stop = bgagent.StopLength
	case "content-filter":
		out.Stop = bgagent.StopRefused
	case "error":
		out.Stop, out.Error = bgagent.StopError, "the model ended with an error"
	default:
		out.Stop = bgagent.StopEndOfTurn
	}
}

// The method "empty" reports whether the message contains no output from the agent.
func (m *wireMessage) empty() bool {
	return !slices.ContainsFunc(m.Parts, func(p wirePart) bool {
		return p.Type == "tool" || (p.Type == "text" || p.Type == "reasoning") && p.Text != ""
	})
}

// These are values in a tool call that was declined without a message for the agent: the name of the tool
// that asks the user, and opencode's error messages. The turn ends with this call.
const (
	questionTool       = "question"
	declinedQuestion   = "The user dismissed this question"
	declinedPermission = "The user rejected permission to use this specific tool call"
)

// The method "declined" returns the reason why the turn ended with the message's tool calls. It returns "" if
// the turn continues after them.
func (m *wireMessage) declined() (why string) {
	for i := range m.Parts {
		p := &m.Parts[i]
		switch {
		case p.Type != "tool" || p.State.Status != "error":
		case strings.HasPrefix(p.State.Error, declinedQuestion) || p.Tool == questionTool:
			why = "it asked the user, and nobody has answered"
			if q := p.State.Input.Questions; len(q) > 0 && firstLine(q[0].Question) != "" {
				why = fmt.Sprintf("it asked the user %q, and nobody has answered", firstLine(q[0].Question))
			}
		case strings.HasPrefix(p.State.Error, declinedPermission):
			why = "it asked whether it may use " + cmp.Or(firstLine(p.Tool), "a tool") + ", and that was rejected"
		}
	}
	return why
}

// tool returns the tool call of a part. The id of the part serves as the id of the tool call,
// because model servers reuse call ids.
func (p *wirePart) tool() bgagent.MessageTool {
	state := bgagent.ToolPending
	switch p.State.Status {
	case "running":
		state = bgagent.ToolRunning
	case "completed":
		state = bgagent.ToolDone
	case "error":
		state = bgagent.ToolFailed
	}
	t := bgagent.MessageTool{ID: p.ID, Name: p.Tool, State: state, Input: p.State.Input.digest}
	switch {
	case state == bgagent.ToolDone && p.State.Output != 0:
		t.Result = bgagent.DigestOf(strconv.FormatUint(uint64(p.State.Output), 16), string(p.State.Detail.Exit))
	case state == bgagent.ToolFailed && p.State.Error != "":
		t.Result = bgagent.DigestOf(p.State.Error)
	}
	return t
}

// The function "separate" appends s as a separate paragraph.
func separate(b *strings.Builder, s string) {
	if b.Len() > 0 && s != "" {
		b.WriteString("\n\n")
	}
	b.WriteString(s)
}

func millis(ms float64) time.Time {
	const most = 1 << 52
	if !(ms > 0 && ms < most) {
		return time.Time{}
	}
	return time.UnixMilli(int64(ms))
}
