// Package procs starts agent programs, finds the processes that those programs have started, and
// terminates them. The clients of package command and of module acp use it to run their programs.
// If a run of the command bgagent has died, the command uses this package to terminate the
// processes that the run left behind.
package procs
