// Package bgotel reports the tasks of a [bgagent.BackgroundManager] to OpenTelemetry, as
// metrics and as spans for each attempt. The package is not named otel, because that is the
// name of OpenTelemetry's own package.
//
//	m, err := bgagent.New(client, bgagent.Config{})
//	…
//	rec, err := bgotel.Start(m, bgotel.Config{})
//	…
//	err = errors.Join(m.Close(ctx), rec.Shutdown(ctx))
//
// The package needs only the OpenTelemetry API. As is usual with OpenTelemetry, the program
// chooses the SDK and the exporters. The recorder reads the manager's events and never delays
// the manager. If the recorder cannot keep up, it misses events and continues from the
// current state of the tasks.
//
// # Traces
//
// Each attempt is a span "task <agent>" from its launch or resume to its end. The stages of
// the attempt are child spans, which follow each other without gaps:
//
//	task explore
//	├─ queued                 waits for a slot
//	├─ session                the session is being created
//	├─ invoke_agent explore   a turn, from the prompt until the session is idle
//	│   └─ task oracle        a task delegated in the turn
//	├─ waiting                for its own tasks or for the provider of its model, then for the slot of its next turn
//	└─ invoke_agent explore
//
// An attempt that ends early has only the stages that it reached. The parent of a task's span
// is the first of the following spans that exists: the span that [Inject] added to the
// metadata of the launch, the span that [Config].Parent returns, and the turn of the task
// that delegated the task. If none of these spans exists, the task starts a new trace. The
// span of each further attempt has a link to the span of the previous attempt.
//
// Turns follow OpenTelemetry's semantic conventions for agent spans. The conventions were in
// development and unversioned in November 2026. gen_ai.operation.name is invoke_agent, and
// gen_ai.conversation.id is the session. gen_ai.usage.input_tokens and gen_ai.usage.output_tokens
// hold the usage of the turn, if the agent reports it. The names of attributes outside the
// conventions start with bgagent. A span is an error if its attempt failed, or if a limit on loops,
// a budget or a time limit ended it. A requested cancellation is not an error. error.type is the
// [bgagent.Cause].
//
// Prompts and answers are never recorded as such. [Config].Content adds the descriptions of
// tasks and the reasons why they ended. Both can contain parts of prompts and answers.
//
// The launch, start and end times come from the manager. The boundaries between the stages of
// a running attempt are the times when the recorder read the events, shortly after they were
// sent.
//
// # Metrics
//
//	bgagent.task.live              tasks by bgagent.task.status: pending or running
//	bgagent.task.ended             attempts by bgagent.task.status and bgagent.task.cause
//	bgagent.task.stopping          ended attempts whose session has not stopped yet
//	bgagent.task.over_limit        sessions that did not stop in time
//	bgagent.task.queue.duration    s; from the launch until the task starts (until it ends if it never starts)
//	bgagent.task.run.duration      s; from when the task starts until it ends, by status and cause
//	bgagent.task.tokens            tokens by gen_ai.token.type: input or output
//	bgagent.task.cost              US dollars
//	bgagent.slot.in_use            slots in use, by bgagent.pool
//	bgagent.slot.waiting           tasks that wait for a slot, by bgagent.pool
//	bgagent.slot.limit             slots in total, by bgagent.pool; absent if unlimited
//	bgagent.notice.owed            ended attempts not yet reported to the parent
//	bgagent.event.missed           events that the recorder missed
//	gen_ai.invoke_agent.duration   s; duration of turns
//
// Durations, tokens and costs also have gen_ai.agent.name and gen_ai.request.model. A pool is
// reported while it is in use. The values of bgagent.task.ended, bgagent.task.stopping,
// bgagent.task.over_limit and bgagent.notice.owed come from [bgagent.BackgroundManager.Figures],
// so they are correct even if events were missed.
package bgotel
