// Package children ends all processes below this one at once, for somebody who
// does not want to wait until they have ended by themselves.
package children
