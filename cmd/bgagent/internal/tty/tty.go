// Package tty keeps typed keys from disturbing a table that is drawn on a terminal.
// Typed keys are not echoed and are discarded. Keys that cause signals still work.
package tty

// GuardArgument is the only argument of a guard process, which is started to restore
// the terminal. With this argument, the main function must call only [Guard].
const GuardArgument = "--give-the-terminal-back"
