// Package recordings contains the expected error kinds of the provider responses in the recordings of agent
// programs. The tests of all clients use this package, so all clients must classify a response as the table
// says.
package recordings

import (
	"strings"

	"github.com/bgagent/bgagent"
)

// row contains the kind of a response. For some programs, the kind differs, because the provider's responses
// have another form or because the program shows less of the response. Kind 0 means that the provider is not
// the cause.
type row struct {
	kind   bgagent.ProviderErrorKind
	except map[string]bgagent.ProviderErrorKind // by program
}

// Short names for the table below.
const (
	limited, overloaded, broken, quota    = bgagent.ProviderRateLimited, bgagent.ProviderOverloaded, bgagent.ProviderBroken, bgagent.ProviderQuota
	unknownModel, authentication, tooLong = bgagent.ProviderUnknownModel, bgagent.ProviderAuthentication, bgagent.ProviderTooLong
)

type except = map[string]bgagent.ProviderErrorKind

var rows = map[string]row{
	"401": {kind: authentication},
	// In the recordings of codex and opencode, the provider refuses the model. In the recordings of the other
	// programs, it refuses the key.
	"403": {unknownModel, except{"claude": authentication, "gemini": authentication}},
	"429": {kind: limited},
	"500": {kind: broken},
	"503": {kind: overloaded},
	"529": {kind: overloaded},

	"credit":  {quota, except{"gemini": limited}}, // Google reports missing credit with the same names as a limit per minute
	"cut":     {kind: broken},
	"inerr":   {overloaded, except{"gemini": broken}}, // gemini shows only that the stream ended
	"model":   {kind: unknownModel},
	"toolong": {kind: tooLong},
	// With an API key, Claude Code reports the limits of a plan as rate limits.
	"usage":         {quota, except{"claude": limited}},
	"unified":       {quota, except{"claude": limited, "gemini": limited}}, // for gemini, the recording contains a limit per minute
	"oauth-unified": {kind: quota},
	"oauth-429":     {kind: limited},
	"oauth-529":     {kind: overloaded},
	"quota-400":     {kind: quota},
	"aftertool":     {kind: limited},

	"opt-503plain":        {kind: overloaded},
	"opt-anthropic-529":   {kind: overloaded},
	"opt-anthropic-usage": {kind: limited},
	"opt-attempts1":       {kind: overloaded},
	"opt-attempts2":       {kind: limited},
	"opt-claude-ra60":     {kind: limited},
	"opt-claude-retries0": {kind: broken},
	"opt-claude-retries1": {kind: limited},
	"opt-codex-3600req0":  {kind: limited},
	"opt-codex-529req0":   {kind: overloaded},
	"opt-codex-cutreq0":   {kind: broken},
	"opt-codex-req0":      {kind: overloaded},
	"opt-codex-stallidle": {kind: broken},
	"opt-fallback":        {kind: overloaded},
	"opt-watchdog":        {kind: limited},
	"permabort":           {},
	"400":                 {}, // a bad request
	"own":                 {}, // a fault of the program
	"day":                 {kind: quota},
	"minute":              {kind: limited},
	"fetch":               {kind: broken},
	"internal":            {kind: broken},
}

// Kind returns the kind of the response in a recording. The name of the recording is the name of its row, and
// can be followed by a hyphen and more words: the recording "429-ra2" contains the response "429". If there
// is no such row, known is false.
func Kind(program, recording string) (kind bgagent.ProviderErrorKind, known bool) {
	r, known := rows[recording]
	if !known {
		answer, _, _ := strings.Cut(recording, "-")
		r, known = rows[answer]
	}
	if kind, other := r.except[program]; other {
		return kind, known
	}
	return r.kind, known
}
