package command

import (
	"cmp"
	"context"
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/jsonlines"
)

// geminiStored contains the fields that the reader needs from a line of gemini's session file. A
// line is a header, a message or a change to earlier lines.
type geminiStored struct {
	SessionID string `json:"sessionId"`
	Set       *struct {
		SessionID string `json:"sessionId"`
		Messages  []geminiMessage
	} `json:"$set"`
	geminiMessage
}

type geminiMessage struct {
	ID      string
	Type    string
	Content json.RawMessage
}

// The method "prompt" returns the text of a user's message. If the message contains only tool
// results, the text is empty.
func (m geminiMessage) prompt() string {
	var text wording
	_ = text.UnmarshalJSON(m.Content)
	return string(text)
}

// geminiContext is the beginning of a session's first message. Gemini writes that message itself.
const geminiContext = "<session_context>"

// lookGemini reads a gemini session from a file tmp/PROJECT/chats/session-TIME-ID.jsonl in gemini's
// folder. ID stands for the first eight characters of the session's id. Gemini stores a call only
// after the call ends. Stored text is therefore either an answer or text that precedes a call.
// Because these cannot be distinguished, Stored.Ended is never set.
func lookGemini(_ context.Context, l Lookup) (Stored, error) {
	id := cmp.Or(l.Session, l.Chosen)
	if !isName(id) || len(id) < 8 {
		return Stored{}, errName
	}
	var dir string
	var err error
	if home := variable(l.Env, "GEMINI_CLI_HOME"); home != "" {
		dir, err = folder([]string{"HOME=" + home}, "", ".gemini")
	} else {
		dir, err = folder(l.Env, "", ".gemini")
	}
	if err != nil {
		return Stored{}, err
	}
	files, err := match(dir, "tmp", "*", "chats", "session-*-"+id[:8]+".json*")
	if err != nil {
		return Stored{}, err
	}
	found, st := 0, Stored{Session: id}
	for _, file := range files {
		if filepath.Ext(file) != ".jsonl" {
			st.Unclear = true // the file has an older format
			found++
			continue
		}
		r := geminiReader{}
		whole, err := eachLine(file, func(line []byte) bool {
			r.line(line)
			return true
		})
		if err != nil {
			return Stored{}, err
		}
		if r.id != "" && r.id != id {
			continue
		}
		found++
		st.Unclear = st.Unclear || r.unclear || !whole || r.id == ""
		st.Prompts = append(st.Prompts, r.prompts()...)
		st.Unclear = st.Unclear || len(st.Prompts) < r.most
	}
	if found == 0 {
		return Stored{}, bgagent.ErrNoSession
	}
	st.Unclear = st.Unclear || found > 1
	if len(st.Prompts) == 0 && !st.Unclear {
		return Stored{}, bgagent.ErrNoSession // gemini cannot continue a session without messages
	}
	return st, nil
}

// geminiReader reads the lines of a session file and applies the changes that they contain.
type geminiReader struct {
	id       string
	messages []geminiMessage
	most     int // largest number of prompts that a line removed; gemini removes all messages when it continues a session
	unclear  bool
}

// prompts returns the texts of the prompts.
func (r *geminiReader) prompts() (list []string) {
	for _, m := range r.messages {
		if text := m.prompt(); m.Type == "user" && text != "" && !strings.HasPrefix(text, geminiContext) {
			list = append(list, text)
		}
	}
	return list
}

func (r *geminiReader) line(line []byte) {
	var x geminiStored
	if !json.Valid(line) || !jsonlines.Decode(line, &x) {
		r.unclear = true
		return
	}
	switch {
	case x.SessionID != "":
		r.id = x.SessionID
	case x.Set != nil:
		r.id = cmp.Or(x.Set.SessionID, r.id)
		if x.Set.Messages != nil {
			r.most = max(r.most, len(r.prompts()))
			r.messages = x.Set.Messages
		}
	case x.geminiMessage.ID != "" && x.geminiMessage.Type != "":
		if i := slices.IndexFunc(r.messages, func(m geminiMessage) bool { return m.ID == x.geminiMessage.ID }); i >= 0 {
			r.messages[i] = x.geminiMessage
		} else {
			r.messages = append(r.messages, x.geminiMessage)
		}
	default:
		r.unclear = true
	}
}
