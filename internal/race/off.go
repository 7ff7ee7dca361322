//go:build !race

// Package race tells tests whether the race detector is enabled. With it, code takes up to ten times as
// long, so long tests do less.
package race

// Enabled is true if the race detector is enabled.
const Enabled = false
