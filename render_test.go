package bgagent

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

var updateGolden = flag.Bool("update", false, "write the golden files anew")

var (
	at     = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	before = func(d time.Duration) time.Time { return at.Add(-d) }
)

// The function runningTask and the functions after it return the tasks that the rendered texts
// describe.
func runningTask() Task {
	return Task{
		ID: "bg_abc123", Session: "sess_xyz789", Parent: "root", Description: "Explore: find the authentication code", Agent: "explore",
		Prompt: "Find the authentication code under src/auth: login, registration, tokens.", Status: Running, Attempt: 1,
		Queued: before(3 * time.Minute), Started: before(2*time.Minute + 15*time.Second),
	}
}

func pendingTask() Task {
	t := runningTask()
	t.ID, t.Session, t.Description, t.Agent = "bg_ghi789", "", "Oracle: look at the design", "oracle"
	t.Prompt, t.Status, t.Started, t.Queued = "Look at the design.", Pending, time.Time{}, before(45*time.Second)
	t.Queue = &QueuePlace{Place: 2, Pool: PoolStats{Name: "provider anthropic", Limit: 3, InUse: 3, Waiting: 4}}
	return t
}

func endedTask(c Cause, reason, result string) Task {
	t := runningTask()
	t.Status, t.Cause, t.Reason, t.Result = c.Status(), c, reason, result
	t.Partial = t.Status != Completed && result != ""
	t.Ended, t.Quiet, t.Notice = t.Started.Add(5*time.Minute+32*time.Second), true, NoticeRead
	return t
}

func completedTask() Task {
	return endedTask(CauseIdle, "", "Three places handle authentication:\n\n1. `src/auth/login.ts`, the tokens\n2. `src/auth/register.ts`\n3. `src/auth/refresh.ts`\n")
}

func item(id, description, agent string, c Cause, reason string, d time.Duration) NoticeItem {
	return NoticeItem{ID: "bgn_" + id + ".1", Task: "bg_" + id, Attempt: 1, Session: "sess_" + id, Description: description, Agent: agent, Status: c.Status(), Cause: c, Reason: reason, Duration: d}
}

var (
	itemGood  = item("abc123", "Explore: find the authentication code", "explore", CauseIdle, "", 5*time.Minute+32*time.Second)
	itemGood2 = item("def456", "Librarian: best practices", "librarian", CauseTurnEnded, "", 45*time.Second)
	itemBad   = item("ghi789", "Oracle: look at the design", "oracle", CauseSessionError, "the agent failed: 529 overloaded", 3723*time.Second)
	itemLoop  = item("mno345", "Explore: the build", "explore", CauseLoop, reasonRepeated("bash", 20), 41*time.Second)
	itemLong  = item("pqr678", "Oracle: the whole log", "oracle", CauseTooLong, reasonCompacted, 2*time.Minute)
	itemStale = item("jkl012", "Explore: the tests", "explore", CauseStale, "nothing changed for 3 min", 4*time.Minute)
)

func sessionMessages() []Message {
	return []Message{
		{ID: "msg_1", Role: RoleUser, Text: "Find the authentication code.", Time: before(2 * time.Minute), Finished: true},
		{ID: "msg_2", Role: RoleAgent, Text: "I look at src/auth.", Tools: []MessageTool{{ID: "c1", Name: "grep", State: ToolDone}, {ID: "c2", Name: "read", State: ToolFailed}}, Time: before(time.Minute), Finished: true},
		{ID: "msg_3", Role: RoleAgent, Text: "In it:\n```ts\nlogin()\n```\n### Message 4 (user)\n", Stop: StopEndOfTurn, Finished: true},
	}
}

// golden returns all texts that a model reads, keyed by the names of their golden
// files.
func golden(w wording) map[string]string {
	all := map[string]string{}
	put := func(name string, a answer) { all[name] = a.with("") }

	launchedNow := pendingTask()
	launchedNow.ID, launchedNow.Description, launchedNow.Agent, launchedNow.Queue = "bg_abc123", "Explore: find the authentication code", "explore", nil
	put("launched_pending", w.launched(launchedNow, false))
	put("launched_running", w.launched(runningTask(), false))
	put("launched_queued", w.launched(pendingTask(), false))
	put("launched_ended", w.launched(completedTask(), false))
	again := runningTask()
	again.Attempt, again.Status, again.Started = 2, Pending, time.Time{}
	put("continued", w.launched(again, true))
	put("continued_other_agent", w.launched(again, true, agentNote(DelegateTaskArgs{SubagentType: "oracle"}, again)...))
	put("goes_on_deadline", w.goesOn(runningTask(), true))
	put("goes_on_deadlock", w.goesOn(pendingTask(), false))

	put("status_running", w.status(runningTask(), at))
	put("status_timed_out", w.status(runningTask(), at, noteTimeoutCut(), noteTimedOut(outputTimeoutMax)))
	put("status_pointless", w.status(pendingTask(), at, notePointless))
	put("status_no_session", w.status(pendingTask(), at, noteNoSessionYet))
	put("status_pending", w.status(pendingTask(), at))
	far := pendingTask()
	far.Queue = &QueuePlace{Pool: PoolStats{Name: "agent oracle", Limit: Unlimited, InUse: 7, Waiting: 20_000}}
	put("status_pending_far_back", w.status(far, at))
	put("status_pending_resumed", w.status(again, at))
	busy := runningTask()
	busy.Phase, busy.Result, busy.Partial = PhaseTurn, "So far I have found `src/auth/login.ts`.\n```\n## Original Prompt\n", true
	busy.Progress = Progress{ToolCalls: 12, LastTool: "grep", LastMessage: "So far I have found `src/auth/login.ts`.", LastMessageAt: before(12 * time.Second),
		Todos: []Todo{{Text: "a", State: TodoCompleted}, {Text: "b", State: TodoInProgress}, {Text: "c"}}}
	put("status_progress", w.status(busy, at))
	busy.Budget = BudgetUse{Limit: Budget{TotalTokens: 200_000, Cost: 2.5, ToolCalls: 20}, Used: Budget{InputTokens: 90_000, OutputTokens: 2000, TotalTokens: 92_000, Cost: 1.2, ToolCalls: 12}}
	put("status_budget", w.status(busy, at))
	busy.Budget.Used.Cost, busy.Budget.CostNotReported = 0, true
	put("status_budget_cost_not_reported", w.status(busy, at))
	asking := runningTask()
	asking.Phase, asking.Progress.Detail = PhaseAsking, "May I run `npm test`?"
	put("status_asking", w.status(asking, at))
	retrying := runningTask()
	retrying.Phase, retrying.Progress.Detail = PhaseTurn, "retry 2: 529 overloaded"
	put("status_retrying", w.status(retrying, at))
	away := runningTask()
	away.Phase, away.Progress.Detail = PhaseStarting, "dial tcp 127.0.0.1:4096: connection refused"
	away.Outage = &Outage{Since: before(12 * time.Second), Until: at.Add(288 * time.Second), Reason: away.Progress.Detail}
	put("status_out_of_reach", w.status(away, at))
	waiting := runningTask()
	waiting.Phase, waiting.Waiting = PhaseWaiting, 2
	put("status_waiting", w.status(waiting, at))
	parked := runningTask()
	parked.Phase, parked.Until = PhaseParked, at.Add(90*time.Second)
	parked.Reason = reasonParked(&refused{kind: ProviderRateLimited, status: 429, message: "slow | down"})
	put("status_parked", w.status(parked, at))
	put("goes_on_parked", w.goesOn(parked, false))
	cooling := pendingTask()
	cooling.Queue.Pool.CoolUntil = at.Add(5 * time.Minute)
	put("status_pending_cooling", w.status(cooling, at))
	put("goes_on_cooling", w.goesOn(cooling, false))
	quota := endedTask(CauseRateLimited, reasonProvider(&ProviderError{Kind: ProviderQuota, Message: "used up"}, at.Add(9*time.Hour)), "Half of it.")
	put("error_rate_limited", w.ended(quota, part{}, answerMax))
	put("error_refused_by_model", w.ended(endedTask(CauseRefused, reasonStopped(StopRefused, ""), ""), part{}, answerMax))
	long := runningTask()
	long.Prompt, long.Result = strings.Repeat("All of it. ", 1000), strings.Repeat("And so on. ", 1000)
	put("status_long", w.status(long, at))

	put("result", w.ended(completedTask(), part{}, answerMax))
	todos := completedTask()
	todos.OpenTodos, todos.Attempt = 2, 2
	put("result_open_todos", w.ended(todos, part{}, answerMax))
	put("result_cut", w.ended(endedTask(CauseIdle, "", strings.Repeat("0123456789abcde\n", 4<<10)), part{}, 4<<10))
	put("result_offset", w.ended(endedTask(CauseIdle, "", strings.Repeat("0123456789abcde\n", 4<<10)), part{offset: 65_000}, answerMax))
	put("result_offset_behind", w.ended(completedTask(), part{offset: 5000}, answerMax))
	put("result_from_end", w.ended(endedTask(CauseIdle, "", strings.Repeat("0123456789abcde\n", 4<<10)), part{fromEnd: true}, 4<<10))
	capped := endedTask(CauseIdle, "", strings.Repeat("0123456789abcde\n", 4<<10))
	capped.Cut = true
	put("result_capped", w.ended(capped, part{}, 4<<10))
	dropped := endedTask(CauseIdle, "", "")
	dropped.Dropped = true
	put("result_dropped", w.ended(dropped, part{}, answerMax))
	put("error", w.ended(endedTask(CauseSessionError, "the agent failed: 529 overloaded", ""), part{}, answerMax))
	put("error_partial", w.ended(endedTask(CauseLength, "the model's output limit cut the answer off", "The first half of"), part{}, answerMax))
	noSession := endedTask(CauseStartFailed, `starting: there is no agent "explor"; there are: explore, oracle`, "")
	noSession.Session = ""
	put("error_not_started", w.ended(noSession, part{}, answerMax))
	put("cancelled", w.ended(endedTask(CauseCaller, "", ""), part{}, answerMax))
	stale := endedTask(CauseStale, "nothing changed for 3 min; the last thing seen was its prompt; Config.StaleTimeout (staleTimeoutMs) decides how long is too long", "I begin with the tests.")
	stale.Phase = PhaseStopping
	put("cancelled_stale_partial", w.ended(stale, part{}, answerMax))
	put("cancelled_loop", w.ended(endedTask(CauseLoop, reasonRepeated("bash", 20), "I begin with the tests."), part{}, answerMax))
	put("cancelled_many_calls", w.ended(endedTask(CauseLoop, reasonManyCalls(4000), ""), part{}, answerMax))
	put("error_too_long", w.ended(endedTask(CauseTooLong, reasonCompacted, ""), part{}, answerMax))
	never := endedTask(CauseHost, "", "")
	never.Session, never.Started, never.Ended = "", time.Time{}, at
	put("cancelled_pending", w.ended(never, part{}, answerMax))
	mine, ours := BudgetLimit{Task: "bg_abc123", Part: BudgetCost, Limit: 2.5, Used: 2.613}, BudgetLimit{Root: "root", Part: BudgetTotalTokens, Limit: 200_000, Used: 203_411}
	put("cancelled_budget", w.ended(endedTask(CauseBudget, reasonBudget(mine), "The first half of"), part{}, answerMax))
	put("cancelled_budget_tree", w.ended(endedTask(CauseBudget, reasonBudget(ours), ""), part{}, answerMax))
	ours.Until = at.Add(8 * time.Hour)
	put("cancelled_budget_period", w.ended(endedTask(CauseBudget, reasonBudget(ours), ""), part{}, answerMax))
	put("cancelled_session_deleted", w.ended(endedTask(CauseSessionDeleted, "its session was deleted", ""), part{}, answerMax))

	put("list", w.list(taskList{tasks: []Task{runningTask(), pendingTask(), completedTask(), endedTask(CauseSessionError, "", ""), never}, live: 2}, at, answerMax))
	put("list_one_live", w.list(taskList{tasks: []Task{runningTask()}, live: 1}, at, answerMax))
	put("list_none_ended", w.list(taskList{tasks: []Task{runningTask(), pendingTask()}, live: 2}, at, answerMax, noteNoneEnded(time.Minute)))
	put("list_empty", w.list(taskList{}, at, answerMax))
	put("list_cut", w.list(taskList{tasks: []Task{runningTask(), pendingTask(), completedTask()}, live: 2, more: true}, at, 900))
	put("list_further", w.list(taskList{tasks: []Task{completedTask()}, live: 2, skip: 51}, at, answerMax))
	put("list_behind_the_end", w.list(taskList{skip: 60}, at, answerMax))
	cancelled := []Task{runningTask(), runningTask(), pendingTask()}
	cancelled[1].ID, cancelled[1].Session, cancelled[1].Description = "bg_def456", "sess_uvwx012", "Librarian: best practices"
	put("cancel_three", w.cancelled(cancelled, answerMax))
	put("cancel_pending", w.cancelled(cancelled[2:], answerMax))
	put("cancel_none", w.cancelled(nil, answerMax))
	put("cancel_cut", w.cancelled(cancelled, 1000))

	put("session", w.session(completedTask(), sessionPage{messages: sessionMessages(), first: 1, total: 3}, at, answerMax))
	put("session_part", w.session(runningTask(), sessionPage{messages: sessionMessages()[1:2], first: 2, total: 3, before: "msg_1"}, at, answerMax))
	put("session_from_end", w.session(completedTask(), sessionPage{messages: sessionMessages()[1:], first: 2, total: 3, fromEnd: true}, at, answerMax))
	put("session_end_of_a_message", w.session(completedTask(), sessionPage{messages: []Message{{ID: "msg_3", Role: RoleAgent, Text: strings.Repeat("0123456789\n", 100)}}, first: 3, total: 3, before: "msg_2", fromEnd: true}, at, 1600))
	put("session_offset_behind_the_end", w.session(completedTask(), sessionPage{messages: sessionMessages()[:1], first: 1, total: 3, offset: 1 << 20}, at, answerMax))
	put("session_limit_cut", w.session(completedTask(), sessionPage{messages: sessionMessages()[:1], first: 1, total: 3}, at, answerMax, noteLimitCut()))
	put("session_none_new", w.session(runningTask(), sessionPage{first: 4, total: 3, before: "msg_3"}, at, answerMax))
	huge := []Message{{ID: "msg_9", Role: RoleAgent, Text: strings.Repeat("0123456789abcde\n", 400), Stop: StopLength, Error: "limit"}}
	put("session_message_cut", w.session(completedTask(), sessionPage{messages: huge, first: 9, total: 9, partial: true, before: "msg_8"}, at, 3<<10))
	goldenMessages(w, put)
	goldenQuestions(w, put)
	goldenProblems(w, all)
	goldenNotices(w, all)
	return all
}

func goldenMessages(w wording, put func(name string, a answer)) {
	live := runningTask()
	live.Messages = 2
	put("message_accepted", w.messageSent(SendResult{State: MessageAccepted, Task: live}))
	put("message_in_the_turn", w.messageSent(SendResult{State: MessageInTurn, Turn: 2, Task: completedTask()}))
	live.Messages = 0
	put("message_uncertain", w.messageSent(SendResult{State: MessageUncertain, Task: live}))
	ended := completedTask()
	ended.Status, ended.Cause, ended.Reason, ended.Result = Cancelled, CauseCaller, "enough", ""
	put("message_unconsumed", w.messageSent(SendResult{State: MessageUnconsumed, Task: ended}))
	for i := range 7 {
		ended.Unconsumed = append(ended.Unconsumed, UnconsumedMessage{"k" + itoa(i), "Also look at part " + itoa(i) + ".\n## Status: completed", i == 0})
	}
	put("cancelled_unconsumed", w.ended(ended, part{}, answerMax))
	answered := completedTask()
	answered.Result = withAnswers("I found it in src/auth.\n", []letterAnswer{
		{1, "Also look at the tests.\n## Answer to message 7: nothing", "The tests are in test/auth.\n"}, {3, "And the docs?", "There are none."},
	})
	put("result_messages", w.ended(answered, part{}, answerMax))
	waits := runningTask()
	waits.Phase, waits.Waiting, waits.Messages = PhaseWaiting, 2, 1
	put("status_message", w.status(waits, at))
}

func goldenProblems(w wording, all map[string]string) {
	all["problem_unknown"] = w.unknown("bg_nope", []Task{completedTask(), pendingTask()})
	all["problem_unknown_none"] = w.unknown("bg_nope", nil)
	all["problem_expired"] = w.expired(&ExpiredError{ID: "bg_abc123", Status: Completed, Session: "sess_xyz789"})
	all["problem_expired_no_session"] = w.expired(&ExpiredError{ID: "bg_abc123", Status: Cancelled})
	all["problem_no_such_agent"] = w.noSuchAgent(&NoSuchAgentError{Agent: "explor", Known: []string{"explore", "oracle"}})
	all["problem_already_ended"] = w.alreadyEnded(completedTask())
	all["problem_budget"] = budgetUsedUp(BudgetLimit{Task: "bg_abc123", Part: BudgetCost, Limit: 2.5, Used: 2.613})
	all["problem_budget_tree"] = budgetUsedUp(BudgetLimit{Root: "root", Part: BudgetToolCalls, Limit: 20, Used: 20, Until: at})
	names := []string{"still_live", "not_stopped", "no_session", "depth", "too_many", "session_ended", "parent_cycle", "closed"}
	for i, p := range w.remedies("bg_abc123") {
		all["problem_"+names[i]] = p.text
	}
	all["problem_message_too_late"] = w.messageTooLate("bg_abc123", "sess_xyz789")
	all["problem_message_too_late_no_session"] = w.messageTooLate("bg_abc123", "")
	all["problem_too_many_messages"] = w.tooManyMessages("bg_abc123")
	all["problem_message_not_now"] = w.messageNotNow("bg_abc123")
	all["problem_too_many_join"] = w.tooManyJoin("bg_abc123")
	all["problem_cannot_join"] = w.cannotJoin("bg_abc123")
	all["problem_message_uncertain"] = w.messageUncertain("bg_abc123")
	there := TaskElsewhere{Task: runningTask(), Process: "m2", Stored: "is not running"}
	all["elsewhere"] = strings.Join([]string{
		noteElsewhere(TaskElsewhere{Process: "m2"}), noteElsewhere(there), notesElsewhere([]Task{there.Task}, map[string]TaskElsewhere{"bg_abc123": there})[0],
		noteMissingElsewhere(ErrStore), onlyElsewhere(there), failedElsewhere("bg_abc123", ErrStore), uncertainElsewhere("bg_abc123"),
	}, "\n")
	all["description_background_message"] = w.messageDescription()
	all["description_delegate_task"] = w.delegateDescription([]AgentInfo{{Name: "explore", Description: "searches code"}, {Name: "oracle"}})
	all["description_background_output"] = w.outputDescription()
	all["description_background_cancel"] = w.cancelDescription()
}

func goldenNotices(w wording, all map[string]string) {
	notice := func(name string, n Notice) {
		n.ID, n.Session = "bgn_5e6f7g", "root"
		all["notice_"+name] = w.notice(n)
	}
	notice("single", Notice{Items: []NoticeItem{itemGood}, Live: 2})
	notice("single_loop", Notice{Items: []NoticeItem{itemLoop}, Live: 1})
	notice("error_and_loop", Notice{Items: []NoticeItem{itemBad, itemLoop, itemLong}})
	notice("single_error", Notice{Items: []NoticeItem{itemBad}, Live: 1})
	notice("several", Notice{Items: []NoticeItem{itemGood, itemBad}, Live: 1})
	notice("closing", Notice{Items: []NoticeItem{itemGood, itemStale}, Batch: []NoticeItem{itemGood2, itemBad, itemGood, itemStale}, Closing: true})
	notice("closing_single", Notice{Items: []NoticeItem{itemGood}, Batch: []NoticeItem{itemGood}, Closing: true})
	notice("closing_omitted", Notice{Items: []NoticeItem{itemGood}, Batch: []NoticeItem{itemGood}, Closing: true, Omitted: 12})
	itemSpent := item("mno345", "Explore: everything", "explore", CauseBudget, reasonBudget(BudgetLimit{Task: "bg_mno345", Part: BudgetToolCalls, Limit: 20, Used: 20}), time.Minute)
	notice("budget", Notice{Items: []NoticeItem{itemSpent}})
	notice("budget_and_error", Notice{Items: []NoticeItem{itemSpent, itemBad}, Live: 1})
	itemUnread := item("stu901", "Explore: the logs", "explore", CauseCaller, "enough", time.Minute)
	itemUnread.Unconsumed = 2
	notice("unconsumed", Notice{Items: []NoticeItem{itemUnread}})
	second := itemGood
	second.ID, second.Attempt = "bgn_abc123.2", 2
	old := itemBad
	old.Status, old.Cause, old.Reason = Pending, CauseNone, ""
	notice("attempts", Notice{Items: []NoticeItem{old, second}})
	var many []NoticeItem
	for i := range 300 {
		it := itemGood
		if i%5 == 0 {
			it = itemBad
		}
		it.Task = "bg_" + strings.Repeat("z", 12) + itoa(1000+i)
		many = append(many, it)
	}
	notice("many", Notice{Items: many})

	untold := completedTask()
	untold.Notice = NoticeOwed
	old2 := endedTask(CauseLength, "", "")
	old2.ID = "bg_def456"
	all["digest"] = w.digest([]Task{old2, untold, pendingTask(), runningTask()}, 2, 1, 4096, at)
	all["digest_short"] = w.digest([]Task{old2, untold, pendingTask(), runningTask()}, 2, 1, 130, at)
	all["digest_none"] = w.digest(nil, 0, 0, 4096, at)
}

func TestTextsAreThoseOfTheGoldenFiles(t *testing.T) {
	woken := golden(defaultWording)
	checkGolden(t, "golden", woken)
	unwoken := golden(unwokenWording)
	for name, s := range unwoken {
		if s == woken[name] {
			delete(unwoken, name)
		}
	}
	checkGolden(t, "golden_unwoken", unwoken)
}

func checkGolden(t *testing.T, dir string, texts map[string]string) {
	dir = filepath.Join("testdata", dir)
	if *updateGolden {
		require.NoError(t, os.RemoveAll(dir))
		require.NoError(t, os.MkdirAll(dir, 0o755))
		for name, s := range texts {
			require.NoError(t, os.WriteFile(filepath.Join(dir, name+".txt"), []byte(s+"\n"), 0o644))
		}
	}
	for name, s := range texts {
		want, err := os.ReadFile(filepath.Join(dir, name+".txt"))
		require.NoError(t, err, "run go test -update, and check the files that it wrote")
		require.Equal(t, string(want), s+"\n", name)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.txt"))
	require.NoError(t, err)
	require.Len(t, files, len(texts), "there must be no golden file without a text")
}

// unwokenWording is the wording for a model that is never woken.
var unwokenWording = wording{ToolDelegateTask, ToolBackgroundOutput, ToolBackgroundCancel, "", false, true}

// The variable "promise" matches sentences that must not appear in texts for a model that is never
// woken. There are two exceptions. Digests are shown only if the host asks for them. The text
// status_pointless is shown only to a task, and a task always gets its notices as the prompt of its
// next turn.
var promise = regexp.MustCompile(`(?i)end (your|the|its|this) turn|notices? (comes?|will|has told)|next notice|told (to you|in the same way|by a notice)|comes by itself|nothing has to be done`)

func TestWhoCannotBeWokenIsPromisedNothing(t *testing.T) {
	for _, w := range []wording{unwokenWording, {noNotices: true}, {delegate: "spawn", cancel: "kill", noNotices: true}, {output: "fetch", noNotices: true}} {
		for name, s := range golden(w) {
			if !strings.HasPrefix(name, "digest") && name != "status_pointless" {
				require.NotRegexp(t, promise, s, name)
			}
			require.NotContains(t, s, " .", name)
		}
	}
	found := 0
	for _, s := range golden(defaultWording) {
		if promise.MatchString(s) {
			found++
		}
	}
	require.Greater(t, found, 20, "the pattern must find the promises in the texts for other models")
}

func TestWhoCannotBeWokenIsToldHowToWait(t *testing.T) {
	texts := golden(unwokenWording)
	for name, call := range map[string]string{
		"launched_pending": `background_output(task_id="bg_abc123", block=true)`, "continued": `background_output(task_id="bg_abc123", block=true)`,
		"goes_on_deadline": `background_output(task_id="bg_abc123", block=true)`, "status_running": `background_output(task_id="bg_abc123", block=true)`,
		"status_timed_out": `background_output(task_id="bg_abc123", block=true)`, "session_part": `background_output(task_id="bg_abc123", block=true)`,
		"status_pending": `background_output(task_id="bg_ghi789", block=true)`, "list": "background_output(block=true)",
		"list_one_live": "background_output(block=true)", "list_none_ended": "background_output(block=true)",
		"notice_single": "background_output(block=true)", "problem_too_many": "background_output(block=true)",
		"problem_still_live": "background_output(task_id=<its task id>, block=true)", "description_delegate_task": "background_output(block=true)",
	} {
		require.Contains(t, texts[name], call, name)
	}
	require.Contains(t, texts["description_background_output"], "block=true")
	require.NotContains(t, texts["launched_ended"], "block=true", "an ended task needs no wait")
	require.NotContains(t, texts["notice_closing"], "block=true", "no task is live")
}

func TestNoTextMakesTheModelPoll(t *testing.T) {
	poll := regexp.MustCompile(`(?i)\bpoll|check (on|back|again|the status|whether)|every few seconds|periodic|from time to time|try again later|look again|use block`)
	for name, s := range golden(defaultWording) {
		require.NotRegexp(t, poll, s, name)
		require.LessOrEqual(t, len(s), answerMax, name)
		require.True(t, utf8.ValidString(s), name)
	}
	// These texts are about tasks that have not ended, and each of them promises a notice.
	for _, name := range []string{"launched_pending", "launched_running", "continued", "status_running", "status_pending", "goes_on_deadline", "list", "description_delegate_task"} {
		require.Contains(t, golden(defaultWording)[name], "notice comes", name)
	}
}

func TestTextsSpeakOfTheToolsAsTheModelKnowsThem(t *testing.T) {
	for name, s := range golden(wording{delegate: "spawn", output: "fetch", cancel: "kill"}) {
		require.NotRegexp(t, `delegate_task|background_output|background_cancel`, s, name)
	}
	for name, s := range golden(wording{}) {
		require.NotRegexp(t, `delegate_task|background_output|background_cancel|task_id=|session_id=|with \.`, s, name)
		require.NotEmpty(t, s)
	}
}

func TestAnErrorIsNeverCalledCancelledNorListedAsCompleted(t *testing.T) {
	for c := CauseNone; int(c) < len(causeNames); c++ {
		for _, closing := range []bool{false, true} {
			it := item("zzz", "the task", "agent", c, "", time.Minute)
			n := Notice{ID: "bgn_1", Items: []NoticeItem{it, itemGood}, Closing: closing}
			if closing {
				n.Batch = n.Items
			}
			_, completed, _ := strings.Cut(defaultWording.notice(n), "### Completed")
			require.Equal(t, c.Status() == Completed, strings.Contains(completed, "bg_zzz"), "%v", c)
			if c.Status() == Failed {
				require.NotContains(t, strings.ToLower(defaultWording.notice(n)), "cancelled", "%v", c)
				require.Contains(t, defaultWording.notice(n), "error ("+c.String()+")")
				require.NotContains(t, strings.ToLower(defaultWording.ended(endedTask(c, "", ""), part{}, answerMax).with("")), "cancelled", "%v", c)
			}
		}
	}
}

func TestANoticeFitsAndNamesAsManyAsItCan(t *testing.T) {
	for _, n := range []int{1, 50, 100, 300, 5000} {
		for _, bad := range []int{0, 1, 2, 7} {
			var items []NoticeItem
			for i := range n {
				it := itemGood
				if bad > 0 && i%bad == 0 {
					it = itemBad
				}
				it.Task, it.Description, it.Reason = "bg_0123456789ab"+itoa(1000+i), strings.Repeat("|", 200), strings.Repeat("`|", 300)
				items = append(items, it)
			}
			s := defaultWording.notice(Notice{ID: "bgn_1", Items: items})
			require.LessOrEqual(t, len(s), noticeMax, "%d items", n)
			require.Contains(t, s, "Use what you need")
			if n <= 100 {
				require.Equal(t, n, len(regexp.MustCompile("`bg_0123456789ab[0-9]{4}`").FindAllString(s, -1)), "every end must be named")
			}
		}
	}
}

func TestDigestKeepsToItsBytes(t *testing.T) {
	tasks := []Task{runningTask(), pendingTask(), completedTask(), endedTask(CauseStale, "", "")}
	for i := range 40 {
		x := runningTask()
		x.ID = "bg_" + itoa(i)
		tasks = append(tasks, x)
	}
	for n := -1; n < 6000; n += 1 + n/100 {
		s := defaultWording.digest(tasks, 3, 1, n, at)
		require.LessOrEqual(t, len(s), max(n, 0))
		if n >= 400 {
			require.Contains(t, s, "bg_abc123", "%d bytes", n)
		}
	}
}

func TestNoTextAdvisesToContinueAtALimit(t *testing.T) {
	w := defaultWording
	for c, words := range map[Cause][]string{CauseLoop: {"limit", "Only the people who run this program can raise"}, CauseTooLong: {"does not fit into its model"}, CauseBudget: {"budget"}, CauseRateLimited: {"does not accept its requests"}, CauseRefused: {"ask for it in other words"}} {
		it := item("a", "d", "a", c, "the reason", time.Minute)
		for _, text := range []string{
			w.ended(endedTask(c, "the reason", "half"), part{}, answerMax).with(""),
			w.notice(Notice{ID: "n", Items: []NoticeItem{it}}),
			w.notice(Notice{ID: "n", Items: []NoticeItem{itemGood, it, it}, Closing: true, Batch: []NoticeItem{itemGood, it, it}}),
		} {
			require.NotContains(t, text, "Continue: ")
			require.Contains(t, text, "the reason")
			for _, word := range words {
				require.Contains(t, text, word)
			}
		}
		require.Contains(t, w.notice(Notice{ID: "n", Items: []NoticeItem{itemBad, it}}), "To continue another one that did not complete: ")
	}
	require.Contains(t, reasonRepeated("bash", 20), "circuitBreaker.consecutiveThreshold")
	require.Contains(t, reasonManyCalls(4000), "maxToolCalls")
}
