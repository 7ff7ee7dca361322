// Package procs starts the programs of agents, finds the processes that they
// have started, and ends them. The clients of package command and of module acp
// run their programs with it. Command bgagent uses it to end what its own dead
// runs have left.
package procs
