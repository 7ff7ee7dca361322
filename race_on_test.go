//go:build race

package bgagent_test

// raceEnabled is true if the race detector is enabled.
const raceEnabled = true
