package main

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// pipes is a listener for in-memory connections.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	c, ok := <-p
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (p pipes) Close() error   { return nil }
func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

func (p pipes) dial() net.Conn {
	here, there := net.Pipe()
	p <- there
	return here
}

// The function "served" executes f with a server in a synctest bubble.
func served(t *testing.T, most int, h http.HandlerFunc, f func(t *testing.T, p pipes)) {
	synctest.Test(t, func(t *testing.T) {
		p := make(pipes)
		s := newServer(h)
		go func() { _ = serveBounded(s, p, most, writeTime) }()
		f(t, p)
		close(p)
		require.NoError(t, s.Shutdown(context.Background()))
	})
}

// closedAfter waits until the server closes a connection. It returns how long this took.
func closedAfter(c net.Conn) time.Duration {
	begin := time.Now()
	_, _ = io.Copy(io.Discard, c)
	_ = c.Close()
	return time.Since(begin)
}

func echo(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }

func TestASilentConnectionIsClosed(t *testing.T) {
	served(t, 10, echo, func(t *testing.T, p pipes) {
		require.Equal(t, headerTime, closedAfter(p.dial()))

		slow := p.dial()
		_, err := io.WriteString(slow, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nbegin")
		require.NoError(t, err)
		require.LessOrEqual(t, closedAfter(slow), bodyTime+time.Second)

		idle := p.dial()
		_, err = io.WriteString(idle, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		require.NoError(t, err)
		require.Equal(t, idleTime, closedAfter(idle))
	})
}

func TestAStreamLastsLongerThanAllTimeouts(t *testing.T) {
	stream := func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		for range 60 {
			select {
			case <-r.Context().Done():
				return
			case <-time.After(50 * time.Second):
			}
			_, _ = io.WriteString(w, "tick\n")
			_ = http.NewResponseController(w).Flush()
		}
		_, _ = io.WriteString(w, "done\n")
	}
	served(t, 10, stream, func(t *testing.T, p pipes) {
		c := p.dial()
		_, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody")
		require.NoError(t, err)
		b, err := io.ReadAll(c)
		require.NoError(t, err)
		require.Contains(t, string(b), "done\n")
		require.NoError(t, c.Close())
	})
}

func TestAReaderThatStopsReadingIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		defer here.Close()
		begin := time.Now()
		_, err := (&held{Conn: there, b: &bounded{patience: writeTime}}).Write([]byte("x"))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.Equal(t, writeTime, time.Since(begin))
	})
}

// The function "large" returns a handler that writes more than all buffers together can hold. When the
// handler stops, it sends the error of its last write, or nil, on the channel "ended".
func large(ended chan<- error) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		var err error
		for i := 0; i < 64 && err == nil; i++ {
			_, err = w.Write(make([]byte, 1<<20))
		}
		ended <- err
	}
}

func TestAResponseLastsAsLongAsItIsRead(t *testing.T) {
	ended := make(chan error, 2)
	served(t, 10, large(ended), func(t *testing.T, p pipes) {
		c := p.dial()
		_, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		require.NoError(t, err)
		begin, n := time.Now(), int64(0)
		for err == nil { // the server writes in pieces of 4 KiB
			var got int64
			got, err = io.CopyN(io.Discard, c, 4<<10)
			n += got
			if n%(1<<20) < 4<<10 {
				time.Sleep(writeTime - time.Second)
			}
		}
		require.Equal(t, io.EOF, err)
		require.Greater(t, n, int64(64<<20))
		require.Greater(t, time.Since(begin), 50*writeTime)
		require.NoError(t, <-ended)
		require.NoError(t, c.Close())
	})
}

// The kernel's buffers hold only part of the response. Writing the rest blocks until the client
// reads.
func TestAResponseThatNobodyReadsEndsOnARealConnection(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ended := make(chan error, 1)
	s := newServer(large(ended))
	go func() { _ = serveBounded(s, l, 10, 200*time.Millisecond) }()
	defer s.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	defer c.Close()
	_, err = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	require.NoError(t, err)
	require.ErrorIs(t, <-ended, os.ErrDeadlineExceeded)
	n, _ := io.Copy(io.Discard, c) // Copy returns when the connection is closed
	require.Less(t, n, int64(64<<20))
}

func TestTheLongestWaitingConnectionMakesRoom(t *testing.T) {
	served(t, 3, echo, func(t *testing.T, p pipes) {
		busy := p.dial()
		_, err := io.WriteString(busy, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n")
		require.NoError(t, err)
		synctest.Wait()
		first, second := p.dial(), p.dial()
		synctest.Wait()
		third := p.dial()
		synctest.Wait()
		require.Zero(t, closedAfter(first))
		_, err = io.WriteString(third, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		require.NoError(t, err)
		line, err := bufio.NewReader(third).ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, "HTTP/1.1 200 OK\r\n", line)
		for _, c := range []net.Conn{busy, second, third} {
			require.NoError(t, c.Close())
		}
	})
}
