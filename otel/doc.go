// Package bgotel reports the tasks of a [bgagent.BackgroundManager] to
// OpenTelemetry: a trace of every attempt, and metrics. Its name leaves otel free
// for OpenTelemetry's own package.
//
//	m, err := bgagent.New(client, bgagent.Config{})
//	…
//	rec, err := bgotel.Start(m, bgotel.Config{})
//	…
//	err = errors.Join(m.Close(ctx), rec.Shutdown(ctx))
//
// The package needs the OpenTelemetry API only. As everywhere in OpenTelemetry, the
// program chooses the SDK and the exporters. The recorder follows the manager's
// events and never delays the manager. If it cannot keep up, events are missed, and
// the recorder catches up from the current state of the tasks.
//
// # Traces
//
// Each attempt is a span "task <agent>" from its launch or resume to its end. Its
// stages are child spans, one after another without a gap:
//
//	task explore
//	├─ queued                 waits for a slot
//	├─ session                the session is created
//	├─ invoke_agent explore   a turn, from the prompt until the session is idle
//	│   └─ task oracle        a task delegated in the turn
//	├─ waiting                for its own tasks, then for the slot of its next turn
//	└─ invoke_agent explore
//
// An attempt that ends early has only the stages that it reached. The parent of a
// task's span is the first of these that exists: the span that [Inject] put into
// the metadata of the launch, the span that [Config].Parent returns, the turn of
// the task that delegated it. If there is none, the task starts a trace of its own.
// Each further attempt of a task is linked to the one before.
//
// Turns follow OpenTelemetry's semantic conventions for agent spans, which were in
// development and unversioned in November 2026. gen_ai.operation.name is
// invoke_agent, and gen_ai.conversation.id is the session.
// gen_ai.usage.input_tokens and gen_ai.usage.output_tokens are the usage of the
// turn, if the agent reports it. Attributes without a convention start with
// bgagent. A span is an error if its attempt failed or a time limit ended it, but
// not if somebody cancelled it. error.type is the [bgagent.Cause].
//
// Prompts and answers are never recorded. [Config].Content adds the descriptions of
// tasks and the reasons of their ends, which may contain parts of them.
//
// Queued, Started and Ended are the manager's own times. The boundaries between a
// session, its turns and its waits are the times at which the recorder read the
// events, shortly after they happened.
//
// # Metrics
//
//	bgagent.task.live              tasks by bgagent.task.status: pending or running
//	bgagent.task.ended             attempts by bgagent.task.status and bgagent.task.cause
//	bgagent.task.stopping          ended attempts with something still running
//	bgagent.task.over_limit        sessions that did not stop in time
//	bgagent.task.queue.duration    s; from the launch to the start, or to the end
//	bgagent.task.run.duration      s; from the start to the end, by status and cause
//	bgagent.task.tokens            tokens by gen_ai.token.type: input or output
//	bgagent.task.cost              US dollars
//	bgagent.slot.in_use            slots in use, by bgagent.pool
//	bgagent.slot.waiting           tasks that wait for a slot, by bgagent.pool
//	bgagent.slot.limit             slots in total, by bgagent.pool; absent if unlimited
//	bgagent.notice.owed            ends that the parent has not been notified of yet
//	bgagent.event.missed           events that the recorder could not keep up with
//	gen_ai.invoke_agent.duration   s; duration of turns
//
// Durations, tokens and costs also have gen_ai.agent.name and gen_ai.request.model.
// A pool is shown while it is in use. The counts of ended, owed, stopping and
// over_limit come from [bgagent.BackgroundManager.Figures] and are correct even if
// events were missed.
package bgotel
