package acp

import "strings"

// asides separates the text that an agent program itself writes, such as warnings, from the text of
// its model. The protocol does not distinguish the two. However, if a program gives every piece of a
// model's message the id of that message, text without an id comes from the program.
type asides struct {
	last string // id of the last piece that had an id
	told bool   // whether the turn has text with an id
	text string // held-back text without an id
}

// The method "aside" reports whether a piece of text must be held back and, if so, stores it. Only
// a piece without an id can be held back. Some programs give an id only to the first piece of a
// message. Therefore nothing is held back until two successive pieces have had the same id.
func (t *turn) aside(id, text string) bool {
	a, c := &t.asides, t.s.proc.c
	if id == "" {
		if c.repeatsIDs {
			a.text += cut(text, maxAnswer-len(a.text))
		}
		return c.repeatsIDs
	}
	c.repeatsIDs = c.repeatsIDs || a.last == id
	a.last, a.told = id, a.told || strings.TrimSpace(text) != ""
	return false
}

// settleAsides uses or drops the text that was held back in a turn. If the turn has text with an
// id, the held-back text is dropped. Otherwise, it is the answer or, if the agent has reported that
// it failed, part of the reason for the failure.
func (c *Client) settleAsides(t *turn) {
	c.mu.Lock()
	a := t.asides
	t.asides.text = ""
	var out []report
	switch {
	case a.text == "" || a.told:
	case t.broken:
		t.problem = cut(t.problem+a.text, shownOfError)
	default:
		out = t.s.says(t, a.text, nil)
	}
	c.mu.Unlock()
	t.report(out...)
	if a.text != "" && a.told {
		c.cfg.Logger.Info("acp: the program wrote text that is not part of the answer; the text is left out", "session", t.s.id, "bytes", len(a.text))
	}
}
