// Package children immediately kills all processes below this one. It does not wait for them to exit on their
// own.
package children
