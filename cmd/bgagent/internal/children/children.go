// Package children kills all processes below this one at once, without waiting for them to exit on
// their own.
package children
