package command

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"strconv"
	"strings"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/jsonlines"
)

// claudeStored contains the fields that the reader needs from a line of claude's session file.
type claudeStored struct {
	Type      string
	Version   string
	Sidechain yesNo `json:"isSidechain"`
	Meta      yesNo `json:"isMeta"`
	Compact   yesNo `json:"isCompactSummary"`
	APIError  yesNo `json:"isApiErrorMessage"`
	Message   struct {
		ID      string
		Model   string
		Content claudeContent
		Stop    string `json:"stop_reason"`
	}
}

// claudeOthers are the types of lines that do not contain any part of the conversation.
var claudeOthers = map[string]bool{
	"queue-operation": true, "attachment": true, "atis-latch": true, "last-prompt": true, "api-request-shape": true, "api-request-blob": true,
	"api-request": true, "tools-used": true, "cost-state": true, "mode": true, "summary": true, "file-history-snapshot": true, "system": true,
	"ai-title": true, "custom-title": true, "permission-mode": true, "agent-name": true, "progress": true,
}

// claudeBackground contains the strings that show that a call is running in the background. They
// occur in the line with the call or with its result. An answer after such a call is not
// necessarily the end of the turn.
var claudeBackground = [][]byte{[]byte(`"run_in_background":true`), []byte(`"backgroundTaskId"`), []byte(`"isAsync":true`)}

// lookClaude reads a claude session from the file projects/PROJECT/ID.jsonl in the configuration
// folder. Claude sometimes stores a prompt only after its model begins to answer. If claude was
// killed before that, the session has no file or a file without messages.
func lookClaude(_ context.Context, l Lookup) (Stored, error) {
	id := cmp.Or(l.Session, l.Chosen)
	if !isName(id) {
		return Stored{}, errName
	}
	dir, err := folder(l.Env, "CLAUDE_CONFIG_DIR", ".claude")
	if err != nil {
		return Stored{}, err
	}
	files, err := match(dir, "projects", "*", id+".jsonl")
	if err != nil {
		return Stored{}, err
	}
	st := claudeReader{Stored: Stored{Session: id, Unclear: len(files) > 1}}
	whole, err := eachLine(files[0], func(line []byte) bool {
		st.line(line)
		return true
	})
	if err != nil {
		return Stored{}, err
	}
	st.Unclear = st.Unclear || !whole || st.old
	st.Ended = st.Ended && st.End.Text != "" && !st.background
	if !st.talked && !st.Unclear {
		return Stored{}, bgagent.ErrNoSession // claude cannot continue a session without messages
	}
	return st.Stored, nil
}

// claudeReader reads the lines of a session.
type claudeReader struct {
	Stored
	talked     bool   // whether the file contains a message
	old        bool   // whether the file has lines of an old version, which might have given a new id to a continued session
	background bool   // whether something was started in the background after the last prompt
	message    string // id of the agent's last message
}

func (r *claudeReader) line(line []byte) {
	var x claudeStored
	if !json.Valid(line) || !jsonlines.Decode(line, &x) {
		r.Unclear = true
		return
	}
	if x.Version != "" {
		major, _, _ := strings.Cut(x.Version, ".")
		n, err := strconv.Atoi(major)
		r.old = r.old || err != nil || n < 2
	}
	switch {
	case x.Type == "user":
		r.talked = true
		if !x.Sidechain && !x.Meta && !x.Compact {
			r.user(&x)
		}
	case x.Type == "assistant":
		r.talked = true
		if !x.Sidechain {
			r.assistant(&x)
		}
	case !claudeOthers[x.Type]:
		r.Unclear = r.Unclear || len(r.Prompts) == 0 // if earlier prompts were understood, a line of an unknown type is not a prompt
		return
	default:
		return
	}
	for _, text := range claudeBackground {
		r.background = r.background || bytes.Contains(line, text)
	}
}

func (r *claudeReader) user(x *claudeStored) {
	text, result := "", false
	for _, b := range x.Message.Content {
		switch b.Type {
		case "text":
			text += b.Text
		case "tool_result":
			result = true
		}
	}
	r.Ended = false
	if !result && !strings.HasPrefix(text, "[Request interrupted by user") {
		r.Prompts, r.background = append(r.Prompts, text), false
	}
}

// The method "assistant" reads a line with a message from the agent or a part of one. Claude can
// write each part of a message to a separate line.
func (r *claudeReader) assistant(x *claudeStored) {
	if x.Message.ID != r.message {
		r.message, r.End.Text = x.Message.ID, ""
	}
	for _, b := range x.Message.Content {
		if b.Type == "text" && b.Text != "" {
			r.End.Text = b.Text
		}
	}
	r.Ended = false
	if x.Message.Model == synthetic || bool(x.APIError) {
		return
	}
	switch stop, known := stopOf(x.Message.Stop); {
	case x.Message.Stop == "end_turn" || x.Message.Stop == "stop_sequence":
		r.Ended, r.End.Stop = true, bgagent.StopEndOfTurn
	case known && (stop == bgagent.StopLength || stop == bgagent.StopRefused):
		r.Ended, r.End.Stop = true, stop
	}
}
