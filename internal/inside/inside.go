// Package inside lets tests of other packages check the internal state of a manager.
// The root package sets the functions, and only tests call them. Managers are passed as
// any, because this package cannot import the root package.
package inside

// CheckNow returns an error if the state of a *bgagent.BackgroundManager
// breaks an invariant.
var CheckNow func(m any) error

// CheckAlways makes a *bgagent.BackgroundManager check its invariants at the end of
// every update. The manager calls broken for every violation while it holds its lock. If
// broken is nil, the manager panics instead, so that the stack trace shows the update
// that caused the violation.
var CheckAlways func(m any, broken func(error))
