package bgagent

import "time"

// ProviderError reports that a request to the provider of the model has failed. If a turn has
// failed for this reason, the client returns a ProviderError from RunTurn or StartTurn, wrapped or
// not, or sets it in [Message].Provider and [HostEvent].Provider. The manager decides from it what
// to do about the failure. For example, a turn that was refused because of a rate limit does not
// end the attempt.
//
// A client sets the fields from error fields, exit codes and the text of failure lines. It never
// sets them from the text of an answer or from the result of a tool.
type ProviderError struct {
	Kind   ProviderErrorKind
	Status int // HTTP status of the answer; 0 if unknown

	// RetryAt is the time from which the provider accepts requests again, as the provider has
	// stated it. It is zero if the provider has given no time. Do not set it from the text of a
	// message, such as "try again at 11:16 PM", because the text has no date and no time zone. The
	// manager treats a time that has passed, or that is more than 366 days away, as unknown.
	RetryAt time.Time

	Tries   int              // number of times that the agent's program has sent the failed request; 0 or less if unknown
	Scope   ProviderScope    // which models the failure concerns
	Next    ProviderNextStep // how the client can go on with the turn
	Message string           // one line for people; the reason of the end, if the attempt ends because of the failure
}

// Error returns Message. If Message is empty, Error returns the name of the kind.
func (e *ProviderError) Error() string {
	if e.Message != "" {
		return e.Message
	}
	return "the provider: " + e.Kind.String()
}

// clone returns a copy, so that the client cannot change what the manager keeps. It returns nil for
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
	ProviderBroken                           // the provider failed, or the stream of its answer broke off; usually status 500 or none
	ProviderQuota                            // a quota, a credit or a plan's usage limit is used up
	ProviderUnknownModel                     // the model does not exist, was withdrawn, or may not be used
	ProviderAuthentication                   // the key was rejected; usually status 401 or 403
	ProviderTooLong                          // the input is too long for the model
)

var providerErrorKindNames = [...]string{"", "rate limit", "overload", "broken", "quota", "unknown model", "authentication", "too long"}

// String returns the name of the kind in lower case; empty for zero.
func (k ProviderErrorKind) String() string { return enumName(providerErrorKindNames[:], uint8(k)) }

// MarshalText implements [encoding.TextMarshaler].
func (k ProviderErrorKind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (k *ProviderErrorKind) UnmarshalText(b []byte) error {
	return enumOf(k, providerErrorKindNames[:], "kind of a provider error", b)
}

// ProviderScope says which models a [ProviderError] concerns.
type ProviderScope uint8

// The scopes of a ProviderError.
const (
	ScopeModel    ProviderScope = iota // the model of the turn
	ScopeProvider                      // all models of the provider, for example because the account has a limit
)

// ProviderNextStep says how a client can go on with a turn that the provider has refused. A model
// must not see the same prompt twice. Most programs keep an unanswered prompt in the conversation.
type ProviderNextStep uint8

// The next steps after a ProviderError.
const (
	// NextNone means that the client cannot go on with the turn. The attempt ends.
	NextNone ProviderNextStep = iota
	// NextContinue means that the session has the prompt, and everything that the turn has done so
	// far. The next turn of the session has [Prompt].Unanswered set.
	NextContinue
	// NextRepeat means that nothing of the turn is left in the session, and that the turn had no
	// effect that must not happen twice. The session gets the same prompt again. A Go function that
	// can be called again with the same prompt returns NextRepeat.
	NextRepeat
	// NextNewSession means that the session no longer exists. A new session gets the same prompt.
	NextNewSession
)

// FallbackReporter is the ability of a client to say how an agent goes on with another model after
// the provider of its model has refused a turn; see [Config].Fallback. Without this ability, the
// session of the agent goes on with the other model.
type FallbackReporter interface {
	// Fallback returns how the agent goes on with another model. It must return at once.
	Fallback(agent string) FallbackWay
}

// FallbackWay is the way in which an agent goes on with another model.
type FallbackWay uint8

// The ways of a [FallbackReporter].
const (
	FallbackInSession    FallbackWay = iota // the session goes on with the model in [Prompt].Model
	FallbackInNewSession                    // a session keeps its model, so a new session gets the prompt
	FallbackByItself                        // the agent's runtime takes another model by itself, so the manager does not
)
