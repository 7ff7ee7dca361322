package main

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
)

func TestThePageIsServedUntilInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	out, in := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, []string{"-addr", "127.0.0.1:0"}, in, io.Discard)
		_ = in.Close()
	}()
	lines := bufio.NewReader(out)
	url, err := lines.ReadString('\n')
	require.NoError(t, err)
	url = strings.TrimSpace(url)

	page, err := http.Get(url)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, page.StatusCode)
	require.NoError(t, page.Body.Close())
	events, err := http.Get(url + "events")
	require.NoError(t, err)
	defer events.Body.Close()
	stream := bufio.NewReader(events.Body)
	for line := ""; !strings.Contains(line, `"rows":[{`); {
		line, err = stream.ReadString('\n')
		require.NoError(t, err)
	}
	cancel()
	rest, err := io.ReadAll(lines)
	require.NoError(t, err)
	require.Contains(t, string(rest), "tasks were launched")
	require.NoError(t, <-ended, "an open page does not block the shutdown")
}

func TestTheSceneHasEverythingToLookAt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := newScene(1)
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		s.play(ctx)
		have := map[bgagent.Status]int{}
		deep := 0
		for _, task := range s.m.List(bgagent.Query{}) {
			have[task.Status]++
			deep = max(deep, task.Depth)
		}
		for _, status := range []bgagent.Status{bgagent.Pending, bgagent.Running, bgagent.Completed, bgagent.Failed, bgagent.Cancelled} {
			require.NotZero(t, have[status], status)
		}
		require.GreaterOrEqual(t, deep, 2)
		require.NoError(t, s.close())
	})
}

func TestWrongArgumentsAreRefused(t *testing.T) {
	require.ErrorContains(t, run(t.Context(), []string{"-speed", "0"}, io.Discard, io.Discard), "-speed")
	require.Error(t, run(t.Context(), []string{"-addr", "nowhere:nothing"}, io.Discard, io.Discard))
}
