package modelserver_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	ms "github.com/bgagent/bgagent/internal/modelserver"
)

// The function "bubble" starts a server for a test in virtual time. It returns a client that
// reaches the server over pipes.
func bubble(t *testing.T, h ms.Handler) (client *http.Client, end func()) {
	s := ms.NewUnstarted(h)
	l := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	server := http.Server{Handler: s}
	go server.Serve(l)
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		select {
		case l.conns <- theirs:
			return ours, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}}
	return &http.Client{Transport: transport}, func() {
		transport.CloseIdleConnections()
		s.Close()
		server.Close()
	}
}

type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { close(p.closed); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{} }

func TestScriptsTakeExactlyTheTimeTheySay(t *testing.T) {
	for _, w := range wires {
		t.Run(string(w.name), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, end := bubble(t, nil)
				defer end()
				began := time.Now()
				body := w.encode("", true, user("@sleep 2s\n@slow 5 100ms\n@say abcde"), nil)
				resp, err := client.Post("http://model"+w.path(true), "application/json", strings.NewReader(body))
				require.NoError(t, err)
				defer resp.Body.Close()
				require.Equal(t, 2*time.Second, time.Since(began))
				text, err := io.ReadAll(resp.Body)
				require.NoError(t, err)
				require.Equal(t, 2400*time.Millisecond, time.Since(began))
				require.Equal(t, "abcde", w.hear(true, string(text)).Text)
			})
		})
	}
}

func TestASlowStreamLastsAsLongWithFewLetters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, end := bubble(t, nil)
		defer end()
		began := time.Now()
		resp, err := client.Post("http://model/v1/chat/completions", "", strings.NewReader(chatWire.encode("", true, user("@slow 20 1s\n@say hi"), nil)))
		require.NoError(t, err)
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.Equal(t, 19*time.Second, time.Since(began))
		require.Equal(t, "hi", chatWire.hear(true, string(text)).Text)
	})
}

func TestABucketLetsThroughARequestForEachToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket := ms.NewBucket(3, 10*time.Second)
		client, end := bubble(t, bucket.Limit(nil, func(refusal int) bool { return refusal != 2 }))
		defer end()
		ask := func() (status int, after string) {
			resp, err := client.Post("http://model/v1/messages", "", strings.NewReader(messagesWire.encode("", false, user("@say hi"), nil)))
			require.NoError(t, err)
			defer resp.Body.Close()
			_, err = io.Copy(io.Discard, resp.Body)
			require.NoError(t, err)
			return resp.StatusCode, resp.Header.Get("Retry-After")
		}
		for range 3 {
			status, _ := ask()
			require.Equal(t, 200, status)
			time.Sleep(time.Second)
		}
		for i := range 7 {
			status, after := ask()
			require.Equal(t, 429, status)
			if i == 1 {
				require.Empty(t, after)
			} else {
				require.Equal(t, fmt.Sprint(7-i), after)
			}
			time.Sleep(time.Second)
		}
		status, _ := ask()
		require.Equal(t, 200, status, "10 s after the first request, there is a token")
		time.Sleep(9 * time.Second)
		status, after := ask()
		require.Equal(t, 429, status)
		require.Equal(t, "1", after)

		time.Sleep(time.Hour)
		for range 3 {
			require.Zero(t, bucket.Take(time.Now()))
		}
		require.Equal(t, 10*time.Second, bucket.Take(time.Now()), "the bucket holds no more")
	})
}

func TestThoseWhoAreToBeThereTogetherWaitForEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		waits := func(r ms.Request) bool { return !strings.Contains(r.LastUser(), "not me") }
		client, end := bubble(t, ms.Together(2, waits, ms.Request.LastUser, nil))
		defer end()
		var answered atomic.Int32
		ask := func(ctx context.Context, text string) {
			req, err := http.NewRequestWithContext(ctx, "POST", "http://model/v1/messages", strings.NewReader(messagesWire.encode("", false, user(text), nil)))
			require.NoError(t, err)
			resp, err := client.Do(req)
			if err == nil {
				answered.Add(1)
				_ = resp.Body.Close()
			}
		}
		gone, leave := context.WithCancel(t.Context())
		go ask(gone, "a client that leaves")
		synctest.Wait()
		leave()
		synctest.Wait()
		go ask(t.Context(), "one")
		go ask(t.Context(), "one")
		synctest.Wait()
		require.Zero(t, answered.Load(), "two requests with the same key count once, and a client that left does not count")
		ask(t.Context(), "not me")
		require.EqualValues(t, 1, answered.Load())
		go ask(t.Context(), "two")
		synctest.Wait()
		require.EqualValues(t, 4, answered.Load())
		ask(t.Context(), "three")
		require.EqualValues(t, 5, answered.Load(), "no request waits after n requests have met")
	})
}
