// Package procs starts the programs of agents, finds the processes that those programs have
// started, and ends these processes. The clients of package command and of module acp run
// their programs with it. If a run of the command bgagent has died, the command uses this package
// to end the processes that the run left behind.
package procs
