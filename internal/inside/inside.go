// Package inside lets tests of other packages look into a manager. The root
// package fills it in; nothing but tests calls it. Managers are passed as any,
// because this package cannot import theirs.
package inside

// CheckNow returns an error when the state of a *bgagent.BackgroundManager
// breaks an invariant.
var CheckNow func(m any) error

// CheckAlways has the invariants of a *bgagent.BackgroundManager checked at the
// end of every update. It calls broken, with the manager's lock held, for every
// violation; nil panics, so that the test shows the update that broke them.
var CheckAlways func(m any, broken func(error))
