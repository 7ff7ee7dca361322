package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// stops are the contexts that tell the program to stop. The first signal ends soft,
// the second ends hard.
type stops struct{ soft, hard context.Context }

// watchSignals ends the contexts when signals come. Ctrl-C and SIGTERM count, and so
// does SIGHUP unless the program was started to ignore it. Output that nobody reads
// any more counts as a first signal. Otherwise it would kill the program and leave
// its children running. SIGPIPE alone does not mean that: it also comes when a child
// or a caller closes a pipe that the program writes to.
func watchSignals() stops {
	soft, stopSoft := context.WithCancel(context.Background())
	hard, stopHard := context.WithCancel(context.Background())
	asked := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		asked = append(asked, syscall.SIGHUP)
	}
	signals, unread := make(chan os.Signal, 8), make(chan os.Signal, 1)
	signal.Notify(signals, asked...)
	signal.Notify(unread, syscall.SIGPIPE)
	go func() {
		for {
			select {
			case <-unread:
				if outputGone() {
					stopSoft()
				}
			case <-signals:
				if soft.Err() != nil {
					stopHard()
				}
				stopSoft()
			}
		}
	}()
	return stops{soft, hard}
}
