package main

import (
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

func TestOutput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b strings.Builder
		require.NoError(t, run(t.Context(), &b))
		require.Equal(t, `{"live":3,"stopping":0,"owed":0,"kept":3,"kept_text":0,"attempts":3,"completed":0,"error":0,"cancelled":0,"causes":{},"over_limit":0,"pools":[{"name":"default demo/small","limit":2,"in_use":2,"waiting":1}]}
{"live":0,"stopping":0,"owed":0,"kept":3,"kept_text":12,"attempts":3,"completed":2,"error":1,"cancelled":0,"causes":{"session error":1,"turn ended":2},"over_limit":0,"pools":[]}
turn of the program             0s +500ms
  task librarian                0s +200ms  error: session error
    queued                      0s +0s
    session                     0s +0s
    invoke_agent librarian      0s +200ms  error: session error  200 tokens
  task explore                  0s +300ms
    queued                      0s +0s
    session                     0s +0s
    invoke_agent explore        0s +300ms  300 tokens
  task oracle                   0s +400ms
    queued                      0s +200ms
    session                  200ms +0s
    invoke_agent oracle      200ms +200ms  200 tokens
`, b.String())
	})
}
