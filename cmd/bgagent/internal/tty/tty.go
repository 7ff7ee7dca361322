// Package tty keeps typed keys from disturbing a picture that is drawn on a
// terminal. Nothing is echoed, and what was typed is discarded. Keys that make
// signals still work.
package tty

// GuardArgument is the only argument of this program if it is started to give a
// terminal back. Its main function then calls [Guard] and nothing else.
const GuardArgument = "--give-the-terminal-back"
