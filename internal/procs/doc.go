// Package procs starts the programs of agents, finds the processes that those
// programs have started, and ends these processes. The clients of package command
// and of module acp run their programs with it. Command bgagent uses it to end the
// processes that its own dead runs have left.
package procs
