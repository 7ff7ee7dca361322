// Package bgotel tells OpenTelemetry what the tasks of a
// [bgagent.BackgroundManager] do: a trace of every attempt, and metrics of all of
// them. It is named so that it can stand beside the package otel of OpenTelemetry.
//
//	m, err := bgagent.New(client, bgagent.Config{})
//	…
//	rec, err := bgotel.Start(m, bgotel.Config{})
//	…
//	err = errors.Join(m.Close(ctx), rec.Shutdown(ctx))
//
// It needs the OpenTelemetry API alone; which SDK and which exporters there are is
// the program's to say, as everywhere in OpenTelemetry. It follows the manager's
// events and never holds the manager up: when it cannot keep up, events are
// missed, and what they told is made good from the tasks as they are.
//
// # Traces
//
// Each attempt is a span "task <agent>" from its launch, or its resume, to its
// end. What it goes through are spans below it, one after the other without a gap:
//
//	task explore
//	├─ queued                 waits for a slot
//	├─ session                its session is made
//	├─ invoke_agent explore   a turn, from the prompt to falling idle
//	│   └─ task oracle        what is delegated in the turn
//	├─ waiting                for its own tasks, and for the slot of its next turn
//	└─ invoke_agent explore
//
// An attempt that ends early has those that it got to. The span of a task belongs
// under what launched it: the span that [Inject] has put into the metadata of the
// launch, the one that [Config].Parent names, or the turn of the task that has
// delegated it, in this order. Without any of these it begins a trace of its own.
// A further attempt of a task is linked to the one before.
//
// The turns follow the semantic conventions for agent spans of OpenTelemetry,
// which were in development, without a version of their own, in November 2026:
// gen_ai.operation.name is invoke_agent, gen_ai.conversation.id the session, and
// gen_ai.usage.input_tokens and gen_ai.usage.output_tokens are what the turn has
// used, where the agent tells it. What there is no convention for begins with
// bgagent. A span is an error when its attempt failed or a limit of time ended
// it, not when somebody cancelled it; error.type is the [bgagent.Cause].
//
// Prompts and answers are never recorded. [Config].Content adds the descriptions
// of tasks and the reasons of their ends, in which parts of them may stand.
//
// Queued, Started and Ended are the manager's own times. The borders between a
// session, its turns and its waits are the moments at which the events about them
// were read, which is soon after they happened.
//
// # Metrics
//
//	bgagent.task.live              tasks by bgagent.task.status: pending or running
//	bgagent.task.ended             attempts by bgagent.task.status and bgagent.task.cause
//	bgagent.task.stopping          ended attempts of which something still runs
//	bgagent.task.over_limit        sessions that did not stop in time
//	bgagent.task.queue.duration    s; from the launch to the start, or to the end
//	bgagent.task.run.duration      s; from the start to the end, by status and cause
//	bgagent.task.tokens            tokens by gen_ai.token.type: input or output
//	bgagent.task.cost              US dollars
//	bgagent.slot.in_use            slots that are out, by bgagent.pool
//	bgagent.slot.waiting           who waits for one, by bgagent.pool
//	bgagent.slot.limit             how many there are, by bgagent.pool; none when unlimited
//	bgagent.notice.owed            ends that a parent has not been told of
//	bgagent.event.missed           events that came too fast
//	gen_ai.invoke_agent.duration   s; the turns
//
// Durations, tokens and costs also have gen_ai.agent.name and gen_ai.request.model.
// A pool is shown while it is in use. What is ended, owed, stopping and over the
// limit comes from [bgagent.BackgroundManager.Figures], and is right whatever
// events were missed.
package bgotel
