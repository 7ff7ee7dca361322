// Package procs starts the programs of agents, finds what they have started, and
// ends it. The clients of package command and of module acp run their programs
// with it, and command bgagent ends with it what its own dead runs have left.
package procs
