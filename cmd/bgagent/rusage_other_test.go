//go:build unix && !linux

package main

// perKiB is how many units of the maximum resident set size are a KiB.
const perKiB = 1 << 10
