package bgagent

import "strings"

// What a model reads about how it learns of an end. A model whose host can wake
// it may end its turn. One that nothing wakes, such as the caller of an MCP
// server, would lose its tasks with its turn, so it is told how to wait.

// untilEnd says what to do until the task has ended.
func (w wording) untilEnd(id string) string {
	if !w.noNotices {
		return "Nothing has to be done to wait for it: go on with other work, or end your turn. A notice comes by itself when the task ends."
	}
	return w.nothingWakes("the task ends", "for the end", w.block(id))
}

// untilNextEnd says what to do until the next of n tasks has ended.
func (w wording) untilNextEnd(n int) string {
	switch {
	case !w.noNotices && n == 1:
		return w.untilEnd("")
	case !w.noNotices:
		return "Nothing has to be done to wait for them: go on with other work, or end your turn. A notice comes by itself when they end."
	case n == 1:
		return w.nothingWakes("the task ends", "for the end", w.blockAny())
	default:
		return w.nothingWakes("they end", "for the next end", w.blockAny())
	}
}

func (w wording) nothingWakes(when, what, call string) string {
	s := "Nothing wakes you when " + when + ". Go on with other work"
	if w.output == "" {
		return s + "; " + w.toldWithTheNextAnswer()
	}
	return s + "; when nothing else is left to do, wait " + what + ": " + call + ". If the time is over before that, wait again."
}

// toldWithTheNextAnswer says how a model without background_output learns of an
// end.
func (w wording) toldWithTheNextAnswer() string {
	var names []string
	for _, n := range [...]string{w.delegate, w.cancel} {
		if n != "" {
			names = append(names, n)
		}
	}
	if len(names) == 0 {
		return "you cannot wait for an end."
	}
	return "an end is told with the answer of your next call of " + strings.Join(names, " or ") + "."
}

// block is the call that waits for the end of the task.
func (w wording) block(id string) string { return w.output + "(task_id=" + arg(id) + ", block=true)" }

// blockAny is the call that waits for the next end of any task.
func (w wording) blockAny() string { return w.output + "(block=true)" }

// continueThen says when a task that has not ended can be continued.
func (w wording) continueThen() string {
	switch {
	case !w.noNotices:
		return "A notice comes when it ends; continue it then."
	case w.output == "":
		return "Continue it when it has ended; " + w.toldWithTheNextAnswer()
	default:
		return "To wait for its end: " + w.output + "(task_id=<its task id>, block=true). Continue it then."
	}
}

// launchThen says when another task can be launched after too many. The caller
// ends the sentence.
func (w wording) launchThen() string {
	switch {
	case !w.noNotices:
		return "Go on when the next notice has told of an end"
	case w.output == "":
		return "Launch it when one of them has ended"
	default:
		return "Wait for the next end with " + w.blockAny()
	}
}
