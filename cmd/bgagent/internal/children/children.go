// Package children kills all processes below this one at once, without waiting for
// them to end by themselves.
package children
