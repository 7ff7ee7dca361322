package acp

import (
	"slices"
	"strings"

	"github.com/bgagent/bgagent"
	sdk "github.com/coder/acp-go-sdk"
)

// replay collects those parts of a replayed session that show the state of the last prompt.
//
// Agents do not replay prompt ids, so the client recognizes a prompt by its text. Consecutive
// pieces of the user's text form one run, for two reasons: an agent can split a prompt into pieces,
// and it can replay two prompts with nothing between them.
type replay struct {
	runs []userRun
	text []byte // text of the last run
	open bool   // whether the next piece of the user's text belongs to the last run

	any    bool   // whether the replay contains a message, a thought or a tool call from the agent
	answer []byte // text of the agent's last message; empty if anything was replayed after that message
	id     string // id of that message
	over   bool   // whether the session exceeds a limit and therefore cannot be judged
}

// userRun contains the hashes of a run's pieces. If the run has several pieces and is complete, the
// last element is the hash of the whole text.
type userRun []string

// Limits of a replay. If a session exceeds one of them, the state of the prompt is unknown.
const (
	maxRuns   = 100_000
	maxPieces = 1000
	maxRun    = 8 << 20 // bytes
)

// The method "add" adds one replayed update.
func (r *replay) add(u sdk.SessionUpdate) {
	switch {
	case u.UserMessageChunk != nil:
		r.asked(textOf(u.UserMessageChunk.Content))
	case u.AgentMessageChunk != nil:
		r.said(textOf(u.AgentMessageChunk.Content), value(u.AgentMessageChunk.MessageId))
	case u.AgentThoughtChunk != nil, u.ToolCall != nil, u.ToolCallUpdate != nil:
		r.close()
		r.any, r.answer = true, nil
	}
}

// The method "asked" appends a piece to the user's text.
func (r *replay) asked(piece string) {
	if plain(piece) == "" {
		return
	}
	r.answer = nil
	if !r.open {
		r.runs, r.text, r.open = append(r.runs, nil), nil, true
	}
	last := &r.runs[len(r.runs)-1]
	if r.over = r.over || len(r.text)+len(piece) > maxRun || len(*last) == maxPieces || len(r.runs) > maxRuns; r.over {
		r.runs, r.text, r.open = nil, nil, false
		return
	}
	r.text, *last = append(r.text, piece...), append(*last, hashOf(piece))
}

// The method "said" appends a piece to the agent's text.
func (r *replay) said(piece, id string) {
	if piece == "" {
		return
	}
	r.close()
	if r.any = true; id != "" && id != r.id {
		r.answer, r.id = nil, id
	}
	r.answer = append(r.answer, piece[:min(len(piece), maxAnswer-len(r.answer))]...)
}

// The method "close" completes the last run.
func (r *replay) close() {
	if !r.open {
		return
	}
	r.open = false
	if last := &r.runs[len(r.runs)-1]; len(*last) > 1 {
		*last = append(*last, hashOf(string(r.text)))
	}
}

// The method "judge" returns the state of the prompt in the session. m is the session's memory.
//
// The same text could have been sent before. Therefore, the session has the prompt if the replay
// contains the text more often than it was sent before, or if the replay ends with the text after
// an unknown system text. The prompt is missing only in two cases: if the replay ends with the
// previous prompt or with a message that joined the previous prompt's turn, or if there is no
// previous prompt and the replay is empty. Otherwise, the agent might have replayed only a part of
// the session, or might have changed the text, so the state is unknown.
func (r *replay) judge(m *memory, p bgagent.Prompt) bgagent.PromptState {
	r.close()
	sent, own, joined := m.Sent, []string{hashOf(p.Text), hashOf(lead + p.Text)}, m.Joined
	if n := len(sent); n > 0 && m.Now.Prompt == p.ID {
		sent, own, joined = sent[:n-1], sent[n-1:], m.Before
	}
	sent = slices.DeleteFunc(slices.Clone(sent), func(hash string) bool { return hash == hiddenHash })
	is := func(run userRun) bool {
		return slices.ContainsFunc(run, func(hash string) bool { return slices.Contains(own, hash) })
	}
	before, found := 0, 0
	for _, hash := range sent {
		if slices.Contains(own, hash) {
			before++
		}
	}
	for _, run := range r.runs {
		if is(run) {
			found++
		}
	}
	n := len(r.runs)
	switch {
	case r.over || slices.Contains(own, hiddenHash) || found > 0 && (found <= before || m.Cut):
		return bgagent.PromptUnknown
	case found > before:
		return bgagent.PromptInterrupted
	case n == 0 && !r.any && len(sent) == 0:
		return bgagent.PromptMissing
	case n > 0 && len(sent) > 0 && slices.ContainsFunc(r.runs[n-1], func(hash string) bool { return hash == sent[len(sent)-1] || slices.Contains(joined, hash) }):
		return bgagent.PromptMissing
	case n > 0 && strings.HasSuffix(plain(string(r.text)), " "+plain(p.Text)): // an unknown system text precedes the prompt
		return bgagent.PromptInterrupted
	}
	return bgagent.PromptUnknown
}

// The method "answered" returns the text of the agent's last message. The second result reports
// whether this message is the last item in the session. That alone does not show that the turn
// ended: an agent that was killed during its turn can leave the same replay.
func (r *replay) answered() (string, bool) {
	return strings.ToValidUTF8(string(r.answer), ""), len(r.answer) > 0 && !r.over
}
