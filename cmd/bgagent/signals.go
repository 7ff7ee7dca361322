package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// stops are the contexts that end when the program is to stop. The first signal ends
// the context soft, the second the context hard.
type stops struct{ soft, hard context.Context }

// watchSignals returns contexts that end when signals come. Ctrl-C and SIGTERM count,
// and so does SIGHUP unless it was ignored when the program started. A SIGPIPE counts
// as the first signal if standard output can no longer be read. Without a handler,
// that signal would kill the program and leave its children running. A SIGPIPE for
// another pipe, such as the input of a child, is ignored.
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
