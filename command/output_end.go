package command

import (
	"cmp"
	"strings"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/jsonlines"
)

// The methods in this file handle lines that revise, repeat or contradict earlier lines.

// draft is the newest message of a program that reports messages while they are still being written.
type draft struct {
	id   string
	text string
	told bool // whether the message is complete and has been reported
}

// The method "grows" receives the newest text of the message with the given id. The message is
// reported when it is complete, when another message follows, or when the turn ends. After that,
// further updates of the message and repetitions of its text are ignored.
func (o *Output) grows(id, text string, whole bool) {
	id, text = short(id), cut(jsonlines.Clean(text), maxText)
	before, after := "", ""
	o.locked(func() {
		d := &o.draft
		// Without ids, a text belongs to the draft only if it continues the draft's text.
		same := id == d.id && (id != "" || !d.told && strings.HasPrefix(text, d.text))
		switch {
		case o.end != nil:
			after = text // Message handles text after the end
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

// tellDraft reports an unfinished draft as a message, because no later line will complete it. The
// draft is older than a recorded error or failure at the provider. It therefore does not show that
// the agent has continued, and the error or failure still counts.
func (o *Output) tellDraft() {
	text := ""
	o.mu.Lock()
	broken, failed, tries := o.broken, o.failed, o.tries
	if !o.draft.told {
		text = o.draft.text
	}
	o.draft = draft{}
	o.mu.Unlock()
	if text != "" {
		o.Message(text)
		o.locked(func() { o.broken, o.failed, o.tries = broken, failed, tries })
	}
}

// The method "breaks" reports an error. The turn fails unless the agent continues after the error.
func (o *Output) breaks(text string) {
	o.locked(func() {
		if o.end == nil {
			o.broken = &ending{stop: bgagent.StopError, problem: cmp.Or(bounded(text), "it reported an error")}
		}
	})
	o.Problem(text)
}

// The method "acts" does the same as actsLocked, for callers that do not hold o.mu.
func (o *Output) acts() { o.locked(o.actsLocked) }

// actsLocked records that the agent has continued its work. An earlier error, or failure at the
// provider, then no longer makes the turn fail, and the next reported usage belongs to a new round.
// After the end of the turn, only round.later is set, because output that looks like the agent's
// work can come from the program itself.
func (o *Output) actsLocked() {
	if o.end == nil {
		o.broken, o.round.over = nil, true
		o.failed, o.tries, o.status = nil, 0, 0
	}
	o.round.later = true
}

// round describes the last report of usage. A round is the agent's work between two reports
// of usage.
type round struct {
	id    string // the program's id for the report; empty if the program gives none
	usage bgagent.Usage
	over  bool // the agent has continued since the report: it has acted before the end of the turn, or the end was withdrawn
	later bool // there was output since the report that looks like the agent's work; can also be set after the end of the turn
}

// parts holds the usage that was reported for single requests since the last round.
type parts struct {
	id    string // the program's id for the last request
	usage bgagent.Usage
}

// partUsage reports the usage of one request in a round, before the usage of the whole round is known.
// Consecutive reports with the same id are counted once. A report without an id is ignored.
func (o *Output) partUsage(id string, u bgagent.Usage) {
	if id = short(id); id == "" {
		return
	}
	again := false
	o.locked(func() {
		if again = id == o.parts.id; !again {
			o.parts = parts{id, more(o.parts.usage, u)}
		}
	})
	if !again {
		o.Usage(u)
	}
}

// roundUsage reports the usage of a round. Several reports about one round are counted once, with the
// larger figures. Two reports that both have ids belong to one round if the ids are equal. If one of them
// has no id, they belong to one round if the agent has not continued between them. After the end of the
// turn, output can make it seem that the agent has continued. In this case the two reports belong to one
// round if their figures are equal.
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
		delta = less(less(u, last.usage), o.parts.usage)
		o.parts.usage = bgagent.Usage{}
		o.round = round{id: id, usage: most(u, last.usage)}
	})
	o.Usage(delta)
}

// The function "more" returns u plus v.
func more(u, v bgagent.Usage) bgagent.Usage {
	return bgagent.Usage{InputTokens: u.InputTokens + v.InputTokens, OutputTokens: u.OutputTokens + v.OutputTokens, Cost: u.Cost + v.Cost}
}

// The function "less" returns u minus v, with zero in place of negative figures.
func less(u, v bgagent.Usage) bgagent.Usage {
	return bgagent.Usage{
		InputTokens:  max(u.InputTokens-v.InputTokens, 0),
		OutputTokens: max(u.OutputTokens-v.OutputTokens, 0),
		Cost:         max(u.Cost-v.Cost, 0),
	}
}

// The function "most" returns the larger value of each figure.
func most(u, v bgagent.Usage) bgagent.Usage {
	return bgagent.Usage{
		InputTokens:  max(u.InputTokens, v.InputTokens),
		OutputTokens: max(u.OutputTokens, v.OutputTokens),
		Cost:         max(u.Cost, v.Cost),
	}
}

// endLocked records a reported end or, if end is nil, withdraws the recorded end. broken is the
// error after which the agent has not continued; it is nil if there is no such error.
func (o *Output) endLocked(end, broken *ending) {
	if end == nil {
		if o.end != nil && badness(o.end.stop) > 0 {
			o.broken = o.end // cleared when the agent continues
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
		both := *end // a copy, because the recorded end might still be in use elsewhere
		both.text = cmp.Or(end.text, first.text)
		if badness(first.stop) == badness(end.stop) {
			both.problem = cmp.Or(end.problem, first.problem)
		}
		end = &both
	}
	o.end = end
}

// badness ranks the stop reasons. Zero is success, and a larger number is worse.
func badness(stop bgagent.StopReason) int {
	switch stop {
	case bgagent.StopUntold, bgagent.StopEndOfTurn:
		return 0
	case bgagent.StopError:
		return 3
	case bgagent.StopAborted, bgagent.StopInterrupted:
		return 2
	}
	return 1 // the answer is incomplete
}
