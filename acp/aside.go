package acp

import "strings"

// asides tell what an agent program writes itself, such as warnings, from what its
// model writes. The protocol makes no difference between them, but a program that
// gives each piece of the model's messages its id gives none to its own words.
type asides struct {
	last string // id of the last piece
	told bool   // there was text with an id
	text string // without an id, while it is not clear what that is
}

// aside takes note of a piece of text. It reports whether that is held back. A
// program may give its id to the first piece of a message alone, so that nothing
// is held back before it has given one to two pieces.
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

// settleAsides decides over what was held back in a turn: it is the answer when
// there was no other.
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
		c.cfg.Logger.Info("acp: the program has written something beside the answer, which is left out", "session", t.s.id, "bytes", len(a.text))
	}
}
