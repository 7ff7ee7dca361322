// Package tty keeps what is typed into a terminal from a picture that is drawn
// there: nothing is echoed, and what was typed is thrown away. The keys that make
// signals go on to.
package tty

// GuardArgument is the only argument of this program when it is started to give a
// terminal back: its main function calls [Guard] then, and nothing else.
const GuardArgument = "--give-the-terminal-back"
