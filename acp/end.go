package acp

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/apifault"
	sdk "github.com/coder/acp-go-sdk"
)

// Some agents answer the prompt before they have sent the last pieces of their text. These
// times limit the wait for such late pieces.
const (
	lateSilence = 250 * time.Millisecond // silence after which no more pieces are expected
	lateLimit   = time.Second            // maximum wait for pieces after the prompt has been answered
)

// The method "answered" records that the agent has answered the prompt. All messages read after
// this call came after the agent's answer. The client waits for late pieces only if the turn ended
// normally.
func (c *Client) answered(t *turn, m received) {
	var answer struct {
		StopReason sdk.StopReason `json:"stopReason"`
	}
	_ = json.Unmarshal(m.Result, &answer) // if the answer is unreadable, the turn is not treated as completed
	c.mu.Lock()
	t.answered = true
	t.over = present(m.Error) || stopReason(answer.StopReason) != sdk.StopReasonEndTurn || t.broken
	well := !t.over && t.s.memory.Now.Prompt == t.prompt.ID
	if well {
		t.s.memory.Now.Answered = true
	}
	c.mu.Unlock()
	if well {
		t.save()
	}
}

// awaitLate waits for the late pieces of the answer.
func (c *Client) awaitLate(t *turn, p *process) {
	limit, silence := time.NewTimer(lateLimit), time.NewTimer(lateSilence)
	defer limit.Stop()
	defer silence.Stop()
	for {
		c.mu.Lock()
		over := t.over || !t.answered
		c.mu.Unlock()
		if over || t.stopped() {
			return
		}
		select {
		case <-t.late:
			silence.Reset(lateSilence)
		case <-silence.C:
			return
		case <-limit.C:
			return
		case <-t.ctx.Done():
			return
		case <-p.conn.done:
			return
		}
	}
}

// The method "late" applies an update that comes after the answer to the prompt, and returns the
// progress to report. Text that continues the last message is added to it. Anything else that
// belongs to a turn is ignored and ends the wait.
func (s *session) late(t *turn, u sdk.SessionUpdate) []report {
	switch {
	case u.AgentMessageChunk != nil && t.asides.told && s.proc.c.repeatsIDs && value(u.AgentMessageChunk.MessageId) == "":
		return nil // the program itself wrote this text
	case u.AgentMessageChunk != nil && s.conv.goesOn(value(u.AgentMessageChunk.MessageId)):
		select {
		case t.late <- struct{}{}:
		default:
		}
		return s.apply(t, u, false)
	case u.AgentMessageChunk != nil, u.AgentThoughtChunk != nil, u.UserMessageChunk != nil, u.ToolCall != nil, u.ToolCallUpdate != nil, u.Plan != nil:
		t.endLate()
		return nil
	}
	s.noted(u)
	return nil
}

// endLate ends the wait for late pieces. The caller must hold Client.mu.
func (t *turn) endLate() {
	t.over = true
	select {
	case t.late <- struct{}{}:
	default:
	}
}

// noteStatus records a status that an agent reports in a field outside the protocol. Codex reports
// a failure in such a field, writes the reason as text, and ends the turn as if it had succeeded.
// In the same field, Codex also reports that it is going to retry a request to the model provider.
// noteStatus returns the provider error that noteRetry finds in such a report, or nil.
func (t *turn) noteStatus(meta map[string]any) (retry *bgagent.ProviderError) {
	for _, own := range meta {
		fields, _ := own.(map[string]any)
		if fault, ok := fields["error"].(map[string]any); ok && fault["codexErrorInfo"] != nil {
			retry = t.noteRetry(fault)
		}
		status, _ := fields["threadStatus"].(map[string]any)
		if kind, ok := status["type"].(string); ok {
			t.broken = kind == "systemError"
		}
	}
	return retry
}

// endOf returns how the turn ended.
func (c *Client) endOf(t *turn, answer sdk.PromptResponse, err error) (bgagent.TurnEnd, error) {
	answer.StopReason = stopReason(answer.StopReason)
	c.mu.Lock()
	end := bgagent.TurnEnd{Text: t.s.conv.lastText(), Usage: bgagent.Usage{Cost: t.cost}}
	why := failing{refused: t.refused, broken: t.broken, problem: strings.TrimSpace(t.problem), fault: t.fault}
	unused := err == nil && answer.StopReason == sdk.StopReasonEndTurn && !why.broken && c.unused(t, answer)
	apiError := unused && isAPIError(end.Text)
	if apiError {
		why.quoted = strings.TrimSpace(end.Text)
	}
	why.cut = unused && !apiError && end.Text != "" && c.runs("gemini") && quotaOf(answer) != nil
	said := end.Text
	if apiError || isProblem(end.Text, err) {
		end.Text = t.s.conv.priorText()
		end.NoText = end.Text == ""
	}
	c.mu.Unlock()
	if err != nil {
		end.Stop = bgagent.StopError
		return end, c.blame(t, c.failure(err), c.refusedBy(err, said))
	}
	used := c.use(t, answer)
	end.Usage.InputTokens, end.Usage.OutputTokens = used.InputTokens, used.OutputTokens
	switch answer.StopReason {
	case sdk.StopReasonEndTurn:
		end.Stop = bgagent.StopEndOfTurn
		if err = c.failed(t, why); err != nil {
			end.Stop = bgagent.StopError
		}
	case sdk.StopReasonMaxTokens:
		end.Stop = bgagent.StopLength
	case sdk.StopReasonMaxTurnRequests:
		end.Stop = bgagent.StopTurnLimit
	case sdk.StopReasonRefusal:
		end.Stop = bgagent.StopRefused
	case sdk.StopReasonCancelled:
		end.Stop = bgagent.StopAborted
		if why.refused != "" { // some agents report their turn as cancelled after a refusal
			end.Stop = bgagent.StopError
			err = fmt.Errorf("acp: the agent %s ended its turn after it was refused: %s", c.program(), why.refused)
		}
	default:
		end.Stop = bgagent.StopError
		err = fmt.Errorf("acp: the agent %s ended the turn with a stop reason that is not in the protocol: %.80q", c.program(), answer.StopReason)
	}
	return end, err
}

// failing holds the reasons why a turn that the agent ended normally is treated as failed.
type failing struct {
	refused string         // last refusal, if the agent has written nothing since
	broken  bool           // the agent has reported that it failed
	problem string         // what the agent wrote about this failure
	fault   apifault.Fault // last provider error that the agent reported
	quoted  string         // answer that looks like an error but might be the model's own text
	cut     bool           // the answer is incomplete
}

// The method "failed" returns the error of a turn that the agent ended normally, or nil if the turn
// has an answer.
func (c *Client) failed(t *turn, why failing) error {
	switch {
	case why.broken && why.problem == "":
		return c.blame(t, fmt.Errorf("acp: the agent %s failed, and gave no reason", c.program()), brokenBy("", why.fault))
	case why.broken:
		return c.blame(t, fmt.Errorf("acp: the agent %s failed: %s", c.program(), why.problem), brokenBy(why.problem, why.fault))
	case why.quoted != "":
		return fmt.Errorf("acp: the agent %s failed: %s", c.program(), why.quoted)
	case why.cut:
		// If the model's stream is cut off, gemini ends its turn normally and reports zero tokens. It
		// also reports zero tokens after a complete answer if the provider did not report any. The answer
		// might therefore be complete, so the prompt must not be sent again.
		const text = "the answer was cut off"
		c.mu.Lock()
		t.s.system = "" // gemini might have dropped the prompt, with the system text in front of it
		c.mu.Unlock()
		return &providerFailure{fmt.Errorf("acp: the agent %s failed: %s", c.program(), text), &bgagent.ProviderError{Kind: bgagent.ProviderBroken, Message: text}}
	case why.refused != "":
		// Some agents end their turn without any text after a refusal. Such a turn has no
		// answer.
		return fmt.Errorf("acp: the agent %s said nothing more after it was refused: %s", c.program(), why.refused)
	}
	return nil
}

// apiError matches the beginning of an answer that repeats an error from the model server.
// The error contains an HTTP status.
var apiError = regexp.MustCompile(`(?i)^\W*(?:[\w .:-]{0,60}\b(?:error|failed)\b[^\n]{0,80}\b[45]\d\d\b|(?:HTTP )?[45]\d\d\b[^\n]{0,20}(?:error|bad request|unauthorized|forbidden|not found|too many requests|unavailable|overloaded|\{"))`)

// isAPIError reports whether the text might be an error from the model server. A match alone does
// not prove it, because a real answer can quote such an error.
func isAPIError(text string) bool { return len(text) <= shownOfError && apiError.MatchString(text) }

// isProblem reports whether the text repeats the error with which the agent answered the prompt.
// Some agents first write the error as a message.
func isProblem(text string, err error) bool {
	var re *sdk.RequestError
	if text = strings.TrimSpace(text); text == "" || !errors.As(err, &re) {
		return false
	}
	return re.Code == codeAuth || strings.Contains(re.Message, text) || strings.Contains(detail(re.Data), text)
}

// failure returns the error of a turn whose prompt was answered with an error.
func (c *Client) failure(err error) error {
	var re *sdk.RequestError
	switch {
	case !errors.As(err, &re):
		return fmt.Errorf("acp: the agent %s: %w", c.program(), err)
	case re.Code == codeAuth:
		return fmt.Errorf("acp: the agent %s wants authentication: %w; set Config.Auth, or log in with the program itself", c.program(), &agentError{re})
	}
	return fmt.Errorf("acp: the agent %s failed: %w", c.program(), &agentError{re})
}
