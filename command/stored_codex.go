package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/jsonlines"
)

// codexStored contains the fields that the reader needs from a line of codex's rollout file.
type codexStored struct {
	Type    string
	Payload struct {
		Type    string
		Role    string
		Message string
		Last    *string `json:"last_agent_message"`
		Content []codexPart
		Item    struct {
			Type    string
			Content []codexPart
		}
	}
}

type codexPart struct{ Type, Text string }

func codexText(parts []codexPart) (text string) {
	for _, p := range parts {
		text += p.Text
	}
	return text
}

// codexOwn contains the beginnings of the messages with the role "user" that codex itself writes.
var codexOwn = []string{"<environment_context>", "<user_instructions>", "<skills_instructions>", "<turn_aborted>", "# AGENTS.md instructions"}

// maxRollouts is the maximum number of files that are searched for a prompt.
const maxRollouts = 2000

// lookCodex reads a codex thread from the file sessions/Y/M/D/rollout-TIME-ID.jsonl in codex's
// folder.
//
// If codex was killed before it reported its thread's id, lookCodex searches all threads for the
// prompt. The error matches ErrNoSession only if it is certain that no thread has the prompt. If a
// thread begins with the prompt, lookCodex returns another error, because the thread might belong
// to another task with the same prompt. The threads' directories are not compared, because codex
// stores paths with symbolic links resolved, and a command-line argument can select another
// directory.
func lookCodex(ctx context.Context, l Lookup) (Stored, error) {
	dir, err := folder(l.Env, "CODEX_HOME", ".codex")
	if err != nil {
		return Stored{}, err
	}
	if l.Session == "" {
		return Stored{}, findRollout(ctx, dir, l)
	}
	if !isName(l.Session) {
		return Stored{}, errName
	}
	files, err := match(dir, "sessions", "*", "*", "*", "rollout-*-"+l.Session+".jsonl")
	if errors.Is(err, bgagent.ErrNoSession) {
		files, err = match(dir, "archived_sessions", "rollout-*-"+l.Session+".jsonl")
	}
	if err != nil {
		return Stored{}, err
	}
	r, err := readRollout(files[0], false)
	r.Unclear = r.Unclear || len(files) > 1
	r.Session = l.Session
	return r.Stored, err
}

// oldRollout is the age beyond which a file cannot belong to the last turn, even if the clock was
// changed or differs from the clock of a file server.
const oldRollout = 24 * time.Hour

// findRollout searches codex's threads for the prompt and always returns an error. The error
// matches ErrNoSession only if it is certain that no thread has the prompt. A file that is not
// understood might contain the prompt, unless it was last changed long before the turn began.
func findRollout(ctx context.Context, dir string, l Lookup) error {
	files, err := match(dir, "sessions", "*", "*", "*", "*")
	switch {
	case err != nil:
		return err
	case plain(l.Prompt) == "":
		return errors.New("it did not report the id of its session, which cannot be found without a prompt")
	}
	slices.Sort(files)
	slices.Reverse(files)
	for i, file := range files {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if i == maxRollouts {
			return fmt.Errorf("there are more than %d sessions", maxRollouts)
		}
		r, err := readRollout(file, true)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(slices.Concat(r.Prompts, r.seen), func(p string) bool { return isPrompt(p, l.Prompt, true) }) {
			return fmt.Errorf("it did not report the id of its session, and the session in the file %s has the same prompt", file)
		}
		if len(r.Prompts) > 0 || !r.strange {
			continue
		}
		info, err := os.Stat(file)
		if err != nil {
			return err
		}
		if l.Began.IsZero() || info.ModTime().After(l.Began.Add(-oldRollout)) {
			return fmt.Errorf("it did not report the id of its session, and the file %s is not understood", file)
		}
	}
	return fmt.Errorf("no session in %s has the prompt: %w", dir, bgagent.ErrNoSession)
}

// codexReader reads the lines of a rollout file.
type codexReader struct {
	Stored
	seen    []string // prompts in messages; codex repeats each of them in an event
	answer  string   // text of the agent's last message; empty if a call, a prompt or an error came after it
	begun   bool     // whether the file contains the metadata of the thread
	lines   bool     // whether the file contains at least one line
	strange bool     // whether the part before the first prompt contains something that codex does not write there
}

// codexFirst contains the types of the lines that codex writes before the first prompt, apart from its
// own messages.
var codexFirst = map[string]bool{
	"session_meta ": true, "turn_context ": true, "world_state ": true, "event_msg task_started": true, "event_msg thread_settings_applied": true,
}

// readRollout reads a rollout file. If first is true, it stops after the first prompt.
func readRollout(path string, first bool) (codexReader, error) {
	var r codexReader
	whole, err := eachLine(path, func(line []byte) bool {
		r.line(line)
		return !first || len(r.Prompts) == 0
	})
	r.strange = r.strange || !whole || !r.begun && r.lines
	r.Unclear = r.Unclear || !whole || !r.begun || len(r.seen) > len(r.Prompts)
	return r, err
}

func (r *codexReader) line(line []byte) {
	r.lines = true
	var x codexStored
	if !json.Valid(line) || !jsonlines.Decode(line, &x) {
		r.Unclear, r.strange = true, true
		return
	}
	p := &x.Payload
	kind := x.Type + " " + p.Type
	own := slices.ContainsFunc(codexOwn, func(own string) bool { return strings.HasPrefix(codexText(p.Content), own) })
	r.strange = r.strange || len(r.Prompts) == 0 && !codexFirst[kind] && !(kind == "response_item message" && (own || p.Role == "developer"))
	switch kind {
	case "session_meta ":
		r.begun = true
	case "event_msg item_completed":
		if p.Item.Type == "UserMessage" {
			r.prompted(codexText(p.Item.Content))
		}
	case "event_msg user_message": // written by older versions of codex
		r.prompted(p.Message)
	case "event_msg task_started", "event_msg error", "event_msg stream_error", "event_msg turn_aborted":
		r.Ended, r.answer = false, ""
	case "event_msg task_complete":
		// If the turn failed, the last message is not necessarily the answer.
		if p.Last != nil && *p.Last != "" && r.answer == *p.Last {
			r.Ended, r.End = true, bgagent.TurnEnd{Stop: bgagent.StopEndOfTurn, Text: *p.Last}
		}
	case "response_item message":
		text := codexText(p.Content)
		switch {
		case p.Role == "assistant":
			r.answer = text
		case p.Role == "user" && !own:
			r.seen = append(r.seen, text)
			r.Ended, r.answer = false, ""
		}
	case "response_item reasoning":
	default:
		if x.Type == "response_item" { // a call or its result
			r.answer = ""
		}
	}
}

func (r *codexReader) prompted(text string) {
	r.Prompts = append(r.Prompts, text)
	r.Ended, r.answer = false, ""
}
