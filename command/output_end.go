package command

import (
	"cmp"
	"strings"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/jsonlines"
)

// This file holds what an Output does with lines that revise, repeat or contradict
// earlier ones.

// draft is the newest message of a program that reports messages while they grow.
type draft struct {
	id   string
	text string
	told bool // the message is complete and was reported
}

// grows reports the newest text of the message with the id. Only when the message is
// whole, when another message follows, or when the turn ends, is it the agent's message.
// A message that is reported again is left out.
func (o *Output) grows(id, text string, whole bool) {
	id, text = short(id), cut(jsonlines.Clean(text), maxText)
	before, after := "", ""
	o.locked(func() {
		d := &o.draft
		// Without ids, a message is the same one only if it has grown.
		same := id == d.id && (id != "" || !d.told && strings.HasPrefix(text, d.text))
		switch {
		case o.end != nil:
			after = text // Message knows what to do with it
			return
		case same && d.told && (!whole || text == "" || text == d.text):
			return
		case !same && !d.told:
			before = d.text
		case same:
			text = cmp.Or(text, d.text)
		}
		o.draft = draft{id, text, whole}
		if text != "" {
			o.actsLocked()
		}
		if whole {
			after = text
		}
	})
	for _, message := range []string{before, after} {
		if message != "" {
			o.Message(message)
		}
	}
}

// tellDraft reports the message that is still a draft, because nothing will complete it.
func (o *Output) tellDraft() {
	text := ""
	o.mu.Lock()
	if !o.draft.told {
		text = o.draft.text
	}
	o.draft = draft{}
	o.mu.Unlock()
	if text != "" {
		o.Message(text)
	}
}

// breaks reports an error that makes the turn fail unless the agent goes on after it.
func (o *Output) breaks(text string) {
	o.locked(func() {
		if o.end == nil {
			o.broken = &ending{stop: bgagent.StopError, problem: cmp.Or(bounded(text), "it reported an error")}
		}
	})
	o.Problem(text)
}

// acts reports that the agent has gone on, if no other method reports that.
func (o *Output) acts() { o.locked(o.actsLocked) }

// actsLocked records that the agent goes on: an error before does not end the turn, and
// the next usage of a round is that of a new round. After the end, lines that look like
// the agent's may be the program's.
func (o *Output) actsLocked() {
	if o.end == nil {
		o.broken, o.round.over = nil, true
	}
	o.round.later = true
}

// round is the usage of a round, which is what the agent does between two reports.
type round struct {
	id    string // the program's id of the report; empty if it has none
	usage bgagent.Usage
	over  bool // the agent has gone on
	later bool // the agent seems to have gone on
}

// roundUsage reports the usage of a round. If it is reported again before the agent goes
// on, it counts once, with the larger figures. The id says which reports are the same.
// Without ids, those are the same that nothing of the agent separates. After the end,
// those with the same figures are the same, too.
func (o *Output) roundUsage(id string, u bgagent.Usage) {
	var delta bgagent.Usage
	id = short(id)
	o.locked(func() {
		last := o.round
		same := !last.over && (!last.later || u == last.usage)
		if id != "" && last.id != "" {
			same = id == last.id
		}
		if !same {
			last.usage = bgagent.Usage{}
		}
		delta = less(u, last.usage)
		o.round = round{id: id, usage: most(u, last.usage)}
	})
	o.Usage(delta)
}

// less returns what u has more than v.
func less(u, v bgagent.Usage) bgagent.Usage {
	return bgagent.Usage{
		InputTokens:  max(u.InputTokens-v.InputTokens, 0),
		OutputTokens: max(u.OutputTokens-v.OutputTokens, 0),
		Cost:         max(u.Cost-v.Cost, 0),
	}
}

// most returns the larger of each figure.
func most(u, v bgagent.Usage) bgagent.Usage {
	return bgagent.Usage{
		InputTokens:  max(u.InputTokens, v.InputTokens),
		OutputTokens: max(u.OutputTokens, v.OutputTokens),
		Cost:         max(u.Cost, v.Cost),
	}
}

// endLocked takes a reported end, or takes the end back if it is nil. broken is the error
// after which the agent has not gone on, or nil.
func (o *Output) endLocked(end, broken *ending) {
	if end == nil {
		if o.end != nil && badness(o.end.stop) > 0 {
			o.broken = o.end // until the agent goes on
		}
		o.end, o.round.over = nil, true
		return
	}
	if broken != nil && badness(end.stop) == 0 {
		end.stop, end.problem = broken.stop, broken.problem
	}
	if first := o.end; first != nil {
		if badness(first.stop) > badness(end.stop) {
			first, end = end, first
		}
		both := *end // a copy, because a reader may have the old one
		both.text = cmp.Or(end.text, first.text)
		if badness(first.stop) == badness(end.stop) {
			both.problem = cmp.Or(end.problem, first.problem)
		}
		end = &both
	}
	o.end = end
}

// badness orders the ways in which a turn can end. Zero is success.
func badness(stop bgagent.StopReason) int {
	switch stop {
	case bgagent.StopUntold, bgagent.StopEndOfTurn:
		return 0
	case bgagent.StopError:
		return 3
	case bgagent.StopAborted, bgagent.StopInterrupted:
		return 2
	}
	return 1 // the answer is cut
}
