package bgagent

import "time"

// ProviderError reports that a request to the model provider failed. If a turn fails for this
// reason, the client returns a ProviderError from RunTurn or StartTurn, wrapped or not, or sets it
// in [Message].Provider and [HostEvent].Provider. The manager uses it to decide how to handle the
// failure. For example, a turn that was refused because of a rate limit does not end the attempt.
//
// A client sets the fields from error fields, exit codes and the text of failure lines. It never
// sets them from the text of an answer or from a tool result.
type ProviderError struct {
	Kind   ProviderErrorKind
	Status int // HTTP status of the answer; 0 if unknown

	// RetryAt is the time at which the provider will accept requests again, as stated by the
	// provider. It is zero if the provider did not give a time. Do not set it from the text of a
	// message, such as "try again at 11:16 PM", because the text contains neither a date nor a
	// time zone. The manager treats a time that has passed, or that is more than 366 days away,
	// as unknown.
	RetryAt time.Time

	Tries   int              // how often the agent's program sent the failed request; 0 or less if unknown
	Scope   ProviderScope    // which models the failure concerns
	Next    ProviderNextStep // how the client can continue the turn
	Message string           // one line for people; if the failure ends the attempt, the reason for the end
}

// Error returns Message. If Message is empty, Error returns the name of the kind.
func (e *ProviderError) Error() string {
	if e.Message != "" {
		return e.Message
	}
	return "the provider: " + e.Kind.String()
}

// clone returns a copy, so that the client cannot change the manager's data. It returns nil if e is
// nil.
func (e *ProviderError) clone() *ProviderError {
	if e == nil {
		return nil
	}
	copied := *e
	return &copied
}

// ProviderErrorKind is the kind of a [ProviderError].
type ProviderErrorKind uint8

// The kinds of a ProviderError. After the first three kinds, the turn is continued later. After
// ProviderQuota, it is continued if RetryAt is known.
const (
	_                      ProviderErrorKind = iota
	ProviderRateLimited                      // too many requests or tokens; usually status 429
	ProviderOverloaded                       // the provider or the model has no capacity; usually status 503 or 529
	ProviderBroken                           // the provider failed, or the stream of its answer was cut off; usually status 500 or none
	ProviderQuota                            // a quota, a credit or a plan's usage limit is used up
	ProviderUnknownModel                     // the model does not exist, was withdrawn, or is not allowed
	ProviderAuthentication                   // the key was rejected; usually status 401 or 403
	ProviderTooLong                          // the input is too long for the model
)

var providerErrorKindNames = [...]string{"", "rate limit", "overload", "broken", "quota", "unknown model", "authentication", "too long"}

// String returns the name of the kind in lower case, or "" for zero.
func (k ProviderErrorKind) String() string { return enumName(providerErrorKindNames[:], uint8(k)) }

// MarshalText implements [encoding.TextMarshaler].
func (k ProviderErrorKind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (k *ProviderErrorKind) UnmarshalText(b []byte) error {
	return enumOf(k, providerErrorKindNames[:], "kind of a provider error", b)
}

// ProviderScope determines which models a [ProviderError] concerns.
type ProviderScope uint8

// The scopes of a ProviderError.
const (
	ScopeModel    ProviderScope = iota // the model of the turn
	ScopeProvider                      // all models of the provider, for example because the account has a limit
)

// ProviderNextStep determines how a client can continue a turn that the provider refused. A model
// must not see the same prompt twice. Most programs keep an unanswered prompt in the conversation; for
// them, NextRepeat would be wrong.
type ProviderNextStep uint8

// The next steps after a ProviderError.
const (
	// NextNone means that the client cannot continue the turn. The attempt ends.
	NextNone ProviderNextStep = iota
	// NextContinue means that the session contains the prompt and everything that the turn has done
	// so far. The next turn of the session has [Prompt].Unanswered set.
	NextContinue
	// NextRepeat means that the session does not contain any part of the turn, and that the turn
	// can safely be repeated. The session gets the same prompt again. For example, a Go function
	// that can be called again with the same prompt returns NextRepeat.
	NextRepeat
	// NextNewSession means that the session no longer exists. A new session gets the same prompt.
	NextNewSession
)

// FallbackReporter is implemented by clients that know how an agent continues with another model
// after its model provider has refused a turn; see [Config].Fallback. For a client that is not a
// FallbackReporter, the agent's session continues with the other model.
type FallbackReporter interface {
	// Fallback returns how the agent continues with another model. It must not block.
	Fallback(agent string) FallbackWay
}

// FallbackWay says how an agent continues with another model.
type FallbackWay uint8

// The values that a [FallbackReporter] can return.
const (
	FallbackInSession    FallbackWay = iota // the session continues with the model in [Prompt].Model
	FallbackInNewSession                    // a session keeps its model, so a new session gets the prompt
	FallbackByItself                        // the agent's runtime switches to another model on its own, so the manager does not
)
