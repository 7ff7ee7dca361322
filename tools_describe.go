package bgagent

import (
	"fmt"
	"strings"
	"time"

	"github.com/bgagent/bgagent/internal/mdtext"
)

// The arguments of the three tools, and the descriptions that models read.

var delegateFields = fields[DelegateTaskArgs]{
	required: []string{"prompt"},
	list: []field[DelegateTaskArgs]{
		{name: "description", description: "A title of a few words for this piece of work.",
			text: func(a *DelegateTaskArgs, s string) { a.Description = s }},
		{name: "prompt", description: "What the agent is to do, with everything it needs to know, since it does not see this conversation. When a task is continued: how it is to go on.",
			text: func(a *DelegateTaskArgs, s string) { a.Prompt = s }},
		{name: "subagent_type", description: "Name of the agent that is to do the work. Needed unless a task is continued.",
			text: func(a *DelegateTaskArgs, s string) { a.SubagentType = s }},
		{name: "model", description: "Model to use, as provider/model. Leave it out for the agent's own.",
			text: func(a *DelegateTaskArgs, s string) { a.Model = s }},
		{name: "run_in_background", description: "true (the default): answer at once and work beside you. false: answer with the result when it is there.",
			flag: func(a *DelegateTaskArgs, v bool) { a.RunInBackground = &v }},
		{name: "background", description: "The same as run_in_background.",
			flag: func(a *DelegateTaskArgs, v bool) { a.Background = &v }},
		{name: "session_id", description: "Continues the task of this session, once it has ended, with all that its agent knows by now.",
			text: func(a *DelegateTaskArgs, s string) { a.SessionID = s }},
		{name: "task_id", description: "Continues this task, once it has ended; another way to name what session_id names.",
			text: func(a *DelegateTaskArgs, s string) { a.TaskID = s }},
	},
}

var outputFields = fields[BackgroundOutputArgs]{
	list: []field[BackgroundOutputArgs]{
		{name: "task_id", description: "The task to read. Without it: a list of your tasks.",
			text: func(a *BackgroundOutputArgs, s string) { a.TaskID = s }},
		{name: "block", description: "true waits first until the task has ended, or, without task_id, until the next one of yours has. Only for when nothing else is left to do. Default false.",
			flag: func(a *BackgroundOutputArgs, v bool) { a.Block = v }},
		{name: "timeout", description: timeoutDescription(outputTimeout),
			number: func(a *BackgroundOutputArgs, n int64) { a.Timeout = &n }},
		{name: "full_session", description: "true shows the messages of the task's session instead of its result. Default false.",
			flag: func(a *BackgroundOutputArgs, v bool) { a.FullSession = v }},
		{name: "message_limit", description: "With full_session: how many messages to show at most. Default 20, at most 100.", min: 1,
			number: func(a *BackgroundOutputArgs, n int64) { a.MessageLimit = clampInt(n) }},
		{name: "since_message_id", description: "With full_session: only messages after this one.",
			text: func(a *BackgroundOutputArgs, s string) { a.SinceMessageID = s }},
		{name: "from_end", description: "true shows the end of a long result, or with full_session the last messages. Default false.",
			flag: func(a *BackgroundOutputArgs, v bool) { a.FromEnd = v }},
		{name: "offset", description: "Where to go on, as an earlier answer named it: in a long result, with full_session in the first message shown, without task_id in the list.",
			number: func(a *BackgroundOutputArgs, n int64) { a.Offset = clampInt(n) }},
	},
}

var cancelFields = fields[BackgroundCancelArgs]{
	list: []field[BackgroundCancelArgs]{
		{name: "task_id", description: "The task to cancel.",
			text: func(a *BackgroundCancelArgs, s string) { a.TaskID = s }},
		{name: "taskId", description: "The same as task_id.",
			text: func(a *BackgroundCancelArgs, s string) { a.TaskIDAlias = s }},
		{name: "all", description: "true cancels every task of yours that has not ended. Not together with task_id.",
			flag: func(a *BackgroundCancelArgs, v bool) { a.All = v }},
	},
}

func timeoutDescription(def time.Duration) string {
	return fmt.Sprintf("With block: milliseconds to wait at most. Default %d, at most %d.", def.Milliseconds(), outputTimeoutMax.Milliseconds())
}

func clampInt(n int64) int {
	const most = 1<<31 - 1
	return int(max(-most, min(n, most)))
}

func (w wording) delegateDescription(agents []AgentInfo) string {
	var b text
	b.Line("Give a piece of work to another agent, which does it in a session of its own while you go on.")
	b.Line()
	b.Line("Work that falls into independent parts goes fastest when you launch all of them side by side, each with a call of its own, before you do anything else. Each call answers at once with a task id.")
	switch {
	case !w.noNotices:
		b.Line("Do not ask how a task is getting on: a notice comes by itself when it has ended. Until then do other work, or end your turn.")
	case w.output == "":
		b.Line("Nothing wakes you when a task ends: ", w.toldWithTheNextAnswer())
	default:
		b.Line("Nothing wakes you when a task ends. Do other work first; when nothing else is left to do, wait for the next end with ", w.blockAny(), ", until you have the results that you need.")
	}
	b.Line("A task that has ended can be continued with its session_id or task_id and a new prompt; its agent still knows everything it did.")
	if len(agents) > 0 {
		b.Line("\nAgents:")
		for _, a := range agents {
			b.WriteString("- " + mdtext.OneLine(a.Name, nameMax))
			if a.Description != "" {
				b.WriteString(": " + mdtext.OneLine(a.Description, reasonMax))
			}
			b.Line()
		}
	}
	return strings.TrimRight(b.String(), "\n")
}

func (w wording) outputDescription() string {
	var b text
	b.Line("Read the result of a background task, or where it stands; without task_id, a list of your tasks.")
	b.Line()
	if w.noNotices {
		b.Line("Nothing wakes you when a task ends; an end is reported with the next answer of one of these tools. When nothing else is left to do, wait with block=true: for the end of the task, or without task_id for the next end. If the time runs out first, wait again.")
	} else {
		b.Line("Call it when a notice has told you that a task has ended, or when you really need what there is so far. A notice comes by itself, so there is no need to look whether a task has ended.")
	}
	b.Line("A result can be read as often as you like. A long one comes in parts, and each answer says how to read the next.")
	return strings.TrimRight(b.String(), "\n")
}

func (w wording) cancelDescription() string {
	s := "Cancel a background task that is not needed any more, or all of yours."
	if w.delegate != "" {
		s += " What was begun can be continued later with " + w.delegate + " and the session id."
	}
	return s
}
