package command

import (
	"cmp"
	"strconv"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/apifault"
)

// ProviderFailed reports that a request to the model provider failed, and that the program does not
// retry it. It does not end the turn. If the agent does nothing after the call and the turn ends with
// [bgagent.StopError], the error of RunTurn wraps e. Each call replaces the previous one. A call with a
// zero e.Kind means that the last failure was not the provider's. A decoder must fill in e from fields
// and messages that report an error, and never from an answer or from tool output.
//
// If e.Next is [bgagent.NextContinue], the program has kept the prompt in its session. If no
// session can be continued, the client replaces this step with [bgagent.NextNone] or
// [bgagent.NextNewSession]. It replaces any other step with [bgagent.NextNone] if the agent has
// called a tool. If e.RetryAt has passed or is more than 366 days away, the client ignores it. If
// e.Message is empty, the client uses the problem of the turn.
func (o *Output) ProviderFailed(e bgagent.ProviderError) {
	e = plausible(e)
	o.locked(func() {
		if o.failed = &e; e.Kind == 0 {
			o.failed = nil
		}
	})
}

// The function "plausible" returns the failure with its message on one line, and without a RetryAt
// that has passed or is too far away.
func plausible(e bgagent.ProviderError) bgagent.ProviderError {
	e.Message = oneLine(bounded(e.Message))
	e.RetryAt = apifault.Ahead(e.RetryAt, time.Now())
	return e
}

// Retrying reports that a request to the model provider failed, and that the program will retry it
// at the given time; see [bgagent.Reporter.Retrying]. A zero time means that the time is unknown.
// e.Tries is the number of requests so far. Do not call Retrying if this machine's network can be
// the cause, because the manager then holds back the other turns that use the model.
func (o *Output) Retrying(e bgagent.ProviderError, at time.Time) {
	o.Known()
	o.retries(e, at)
}

// The method "retries" does the same as Retrying, but does not mark a line as known. It is for
// standard error.
func (o *Output) retries(e bgagent.ProviderError, at time.Time) {
	e = plausible(e)
	o.tried(e.Tries)
	o.mu.Lock()
	over, session, called := o.end != nil, o.session, len(o.tools) > 0
	e.Tries = o.tries
	o.mu.Unlock()
	if over || e.Kind == 0 {
		return
	}
	if o.step != nil {
		e.Next = o.step(e.Next, session, called)
	}
	o.r.Retrying(e, at)
}

// The method "tried" records that the program has made n requests for the current answer. If a
// higher number was recorded before, that number stays.
func (o *Output) tried(n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tries = max(o.tries, n)
}

// The method "refused" records the status that standard error has just shown.
func (o *Output) refused(status int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.status = status
}

// triesAtEnd returns the number of requests that the program has made for the current answer,
// assuming that it does not make any more requests. The number is one more than the number of
// retries that the program has shown, because the first request is not a retry.
func (o *Output) triesAtEnd() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.tries + 1
}

// The method "step" returns how the client can continue the turn after a failure at the provider.
// want is the step that the decoder reported, session is the id that the program reported in the
// turn, and called is true if the agent has called a tool.
func (t *turn) step(want bgagent.ProviderNextStep, session string, called bool) bgagent.ProviderNextStep {
	switch {
	case want != bgagent.NextContinue && called: // a repeated prompt would not show the model that it has called tools
		return bgagent.NextNone
	case want != bgagent.NextContinue:
		return want
	case t.session.agent.Program.Resume.isZero():
		return bgagent.NextNone
	case t.forgets && !called:
		if t.follows { // the next turn begins a new session of the program, with all prompts so far
			return bgagent.NextContinue
		}
		return bgagent.NextNewSession
	case t.own != "" || session != "":
		return bgagent.NextContinue
	case called: // the calls would be lost with the program's session
		return bgagent.NextNone
	case t.follows: // the next turn repeats the conversation
		return bgagent.NextContinue
	}
	return bgagent.NextNewSession
}

// The method "provider" returns the failure at the provider that made the turn fail, or nil if the
// turn failed for another reason.
func (t *turn) provider(said said, x outcome, problem string) *bgagent.ProviderError {
	e := said.failed
	if explain := t.session.agent.Program.explain; explain != nil {
		e = explain(e, said, x)
	}
	if e == nil || e.Kind == 0 {
		return nil
	}
	failure := *e
	failure.Next = t.step(e.Next, said.session, len(said.tools) > 0)
	failure.Message = cmp.Or(failure.Message, problem)
	return &failure
}

// keepsNothing reports whether the program has lost its session because the turn failed before the
// agent's first whole answer.
func (t *turn) keepsNothing(said said) bool {
	return t.session.agent.Program.ForgetsUnanswered && len(said.tools) == 0 && said.end != nil && said.end.stop == bgagent.StopError
}

// failureOf returns the failure that a program has just shown. Its Message is empty, and its kind is zero
// if the provider is not the cause.
func failureOf(f apifault.Fault) bgagent.ProviderError {
	f.At = time.Now()
	return shownFailure(f.Error(), f.Status)
}

// retryOf is like failureOf, but for a failure after which the program retries the request. The
// kind is also zero if the retry must not be reported to the manager; see
// [apifault.Fault.Repeated].
func retryOf(f apifault.Fault) bgagent.ProviderError {
	f.At = time.Now()
	return shownFailure(f.Repeated(), f.Status)
}

func shownFailure(e *bgagent.ProviderError, status int) bgagent.ProviderError {
	failure := bgagent.ProviderError{Status: status}
	if e != nil {
		failure = *e
	}
	failure.Message, failure.Next = "", bgagent.NextContinue
	return failure
}

// digits converts a string of digits to a number. If the number is too large, the result is one
// million.
func digits(text string) int {
	n, _ := strconv.Atoi(text)
	return min(n, 1e6)
}

// The function "small" converts a count to a number of tries or an HTTP status.
func small(c count) int { return int(min(c.tokens(), 1e6)) }
