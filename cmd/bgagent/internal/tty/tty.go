// Package tty keeps typed keys from disturbing a table that is drawn on a terminal. Typed keys are neither
// echoed nor kept. Keys that cause signals still work.
package tty

// GuardArgument is the only argument of a guard process, which is started to restore the terminal. If the
// program has this argument, its main function must call only [Guard].
const GuardArgument = "--give-the-terminal-back"
