package main

import (
	"context"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
)

// The type "stops" holds the contexts that end when the program must stop. The first signal ends "soft", and
// the second ends "hard".
type stops struct {
	soft, hard  context.Context
	interrupted *atomic.Bool // whether the first signal was SIGINT, which Ctrl-C sends
}

// watchSignals returns contexts that end when signals arrive. The signals are SIGINT (Ctrl-C), SIGTERM and,
// unless it was ignored when the program started, SIGHUP. A SIGPIPE is treated as the first signal if
// standard output can no longer be read. Without a handler, SIGPIPE would kill the program and leave its
// children running. A SIGPIPE for another pipe, such as a child's input, is ignored.
func watchSignals() stops {
	soft, stopSoft := context.WithCancel(context.Background())
	hard, stopHard := context.WithCancel(context.Background())
	asked := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		asked = append(asked, syscall.SIGHUP)
	}
	interrupted := new(atomic.Bool)
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
			case s := <-signals:
				if soft.Err() != nil {
					stopHard()
				} else if s == os.Interrupt {
					interrupted.Store(true)
				}
				stopSoft()
			}
		}
	}()
	return stops{soft, hard, interrupted}
}
