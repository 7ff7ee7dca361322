//go:build unix && !linux

package main

// perKiB is the size of a KiB in this system's unit for the maximum resident set size.
const perKiB = 1 << 10
