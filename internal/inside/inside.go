// Package inside lets tests of other packages look into a manager. Only tests
// call its functions; the root package sets them. Managers are passed as any
// because this package cannot import the root package.
package inside

// CheckNow returns an error if the state of a *bgagent.BackgroundManager
// breaks an invariant.
var CheckNow func(m any) error

// CheckAlways makes a *bgagent.BackgroundManager check its invariants at the end
// of every update. It calls broken, with the manager's lock held, for every
// violation. If broken is nil, a violation panics, so that the test shows the
// update that caused it.
var CheckAlways func(m any, broken func(error))
