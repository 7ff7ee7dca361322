package main

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// pipeConn is one end of a connection without a buffer.
type pipeConn struct{ net.Conn }

func (pipeConn) CloseWrite() error { return nil }

func TestABridgeDoesNotWaitForEverForAServerThatReadsNothing(t *testing.T) {
	for _, x := range []struct {
		name  string
		reads time.Duration // time that the server takes to read each line; 0 means that it does not read
		stop  time.Duration // time until a signal asks the bridge to stop; 0 means never
		want  string        // part of the error; "" means that no error is expected
		took  time.Duration
	}{
		{name: "hangs", want: "the bgagent serve at http://x does not respond (it has read nothing for 30s); if it hangs, end it and start it again", took: bridgeWriteTime},
		{name: "hangs, and the bridge is asked to stop", stop: time.Second, took: time.Second + bridgeLeaveTime},
		{name: "slow", reads: bridgeWriteTime - time.Second, took: 3*(bridgeWriteTime-time.Second) + bridgeAnswerTime},
	} {
		t.Run(x.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server, conn := net.Pipe()
				defer server.Close()
				if x.reads > 0 {
					go func() {
						for b := make([]byte, 100); ; {
							time.Sleep(x.reads)
							if _, err := server.Read(b); err != nil {
								return
							}
						}
					}()
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if x.stop > 0 {
					time.AfterFunc(x.stop, cancel)
				}
				began := time.Now()
				lines := io.MultiReader(strings.NewReader("one\n"), strings.NewReader("two\n"), strings.NewReader("three\n"))
				err := viaFlags{Via: "http://x"}.pass(ctx, pipeConn{conn}, lines, io.Discard)
				if x.want == "" {
					require.NoError(t, err)
				} else {
					require.ErrorContains(t, err, x.want)
					var exit *exitError
					require.ErrorAs(t, err, &exit)
					require.Equal(t, exitInput, exit.Code)
				}
				require.Equal(t, x.took, time.Since(began))
				time.Sleep(x.reads) // the server then sees the end of the connection
				synctest.Wait()
			})
		})
	}
}
