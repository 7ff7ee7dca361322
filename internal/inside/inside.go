// Package inside lets tests of other packages check the internal state of a manager. The root
// package sets the functions, and only tests call them. Managers are passed as values of type
// any, because this package cannot import the root package.
package inside

// CheckNow returns an error if the state of a *bgagent.BackgroundManager
// breaks an invariant.
var CheckNow func(m any) error

// CheckAlways makes a *bgagent.BackgroundManager check its invariants at the end of every update. For every
// violation, the manager calls the function "broken", and holds its lock during the call. If the function
// "broken" is nil, the manager panics instead, so that the stack trace shows the update that caused the
// violation.
var CheckAlways func(m any, broken func(error))

// CheckUnchanged returns an error if the records of the tasks that a *bgagent.BackgroundManager
// has loaded differ from the records in its store.
var CheckUnchanged func(m any) error

// Slots returns a source of slots that grants what the given *bgagent.ConcurrencyManager grants. If the
// variable is set, every manager that is configured only with limits gets its source from this function.
var Slots func(own any) any

// Store returns a new store. If the variable is set, every manager that has no store gets one from
// this function.
var Store func() any
