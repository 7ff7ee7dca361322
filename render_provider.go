package bgagent

import (
	"fmt"
	"strconv"
	"time"

	"github.com/bgagent/bgagent/internal/mdtext"
)

// Texts about turns that a model provider refused.

// refusalOf describes a refusal in a few words.
func refusalOf(kind ProviderErrorKind, status int, message string) string {
	s := kind.String()
	if status != 0 {
		s += ", status " + strconv.Itoa(status)
	}
	s = "the provider of the model refused the turn (" + s + ")"
	if message != "" {
		s += ": " + mdtext.Joined(mdtext.Valid(message), reasonBytes/2)
	}
	return s
}

// The function "again" returns a phrase about when the provider will accept requests again. It returns "" for
// the zero time.
func again(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return "; it accepts requests again from " + at.UTC().Format(time.RFC3339)
}

// reasonProvider returns the reason for ending an attempt when the provider has refused its turn.
// The argument "at" is the time at which the provider will accept requests again, or zero.
func reasonProvider(e *ProviderError, at time.Time) string {
	return refusalOf(e.Kind, e.Status, e.Message) + again(at)
}

// reasonWaited returns the reason for ending an attempt that waited too long for the provider.
func reasonWaited(r *refused, at time.Time) string {
	return fmt.Sprintf("waited for the provider without progress; at last, %s%s", refusalOf(r.kind, r.status, r.message), again(at))
}

// reasonNotHalted returns the reason for ending an attempt when its next turn could not begin because
// the call that stops its previous turn had not returned.
func reasonNotHalted(most time.Duration) string {
	return limitStopTimeout.decided("the call that stops the last turn did not return within " + mdtext.Setting(most) + ", so that the next turn could not begin")
}

// reasonParked says what a parked attempt waits for.
func reasonParked(r *refused) string {
	if r.fell != "" {
		return r.fell + "; it waits for a slot of that model"
	}
	if r.kind == 0 {
		return "its turn has not begun, because the provider of its model refused other turns"
	}
	return refusalOf(r.kind, r.status, r.message) + "; the turn goes on when the provider accepts requests"
}

// reasonFellBack names the old model, the new model and the reason for a fallback.
func reasonFellBack(from, to string, r *refused) string {
	why := "the provider of the model refused other turns, and the turn could not begin"
	if r.kind != 0 {
		why = refusalOf(r.kind, r.status, r.message)
	}
	return fmt.Sprintf("fell back from the model %s to %s: %s", mdtext.OneLine(from, nameMax), mdtext.OneLine(to, nameMax), why)
}

// promptAfterRefusal returns the prompt that continues a session after the provider has refused a
// request. The session still contains the unanswered request.
func promptAfterRefusal(kind ProviderErrorKind) string {
	why := "the provider of your model refused a request (" + kind.String() + ")"
	if kind == ProviderBroken {
		why = "a request to the provider of your model failed"
	}
	return "Your last turn was cut off because " + why + ". Nobody stopped you on purpose. The request before this message still stands. " +
		"Go on where you were. Before you repeat a step, check whether it has been done."
}

// parkedRows writes the rows about a parked attempt.
func (b *text) parkedRows(t Task, now time.Time) {
	if t.Reason != "" {
		b.Row("Waits because", mdtext.OneLine(t.Reason, reasonMax))
	}
	switch {
	case t.asks(): // the questions are shown with the times at which they expire
	case t.Until.After(now):
		b.Row("Waits until", fmt.Sprintf("%s at least (in %s)", t.Until.UTC().Format(time.RFC3339), mdtext.Span(t.Until.Sub(now))))
	}
}

// waitsForProvider answers a call that does not wait for a task because the task itself waits for
// its provider.
func waitsForProvider(t Task) string {
	s := "It goes on in the background, because it waits for the provider of its model"
	if until := t.pause(); !until.IsZero() {
		s += " until " + until.UTC().Format(time.RFC3339) + " at least"
	}
	return s + ". Nothing is lost."
}

// pause returns the earliest time at which the task can stop waiting for its model provider, or
// zero.
func (t Task) pause() time.Time {
	if t.Queue != nil {
		return t.Queue.Pool.CoolUntil
	}
	return t.Until
}

// awaitsProvider reports whether the task waits for its model provider.
func (t Task) awaitsProvider() bool {
	return t.Phase == PhaseParked && !t.asks() || t.Queue != nil && !t.Queue.Pool.CoolUntil.IsZero()
}
