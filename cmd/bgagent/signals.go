package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// stops are the two ways of being told to stop: soft ends with the first
// signal, hard with the second.
type stops struct{ soft, hard context.Context }

// watchSignals ends the contexts when signals come. Ctrl-C, SIGTERM and, unless
// the program was started to ignore it, SIGHUP count; and once, as the first of
// two, that nobody reads the output any more, which would otherwise kill the
// program and leave its children running. SIGPIPE alone does not say that: it
// also comes when a child or a caller has closed what is written to it.
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
