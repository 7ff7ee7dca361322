package bgnats

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAPanicOfAQuestionIsItsAnswer(t *testing.T) {
	var warned error
	c := &Cluster{warn: func(err error) { warned = err }}
	out, err := c.guarded(func(context.Context, []byte) (any, error) { panic("out of range") })(t.Context(), nil)
	require.ErrorContains(t, err, "panic: out of range")
	require.Nil(t, out)
	require.ErrorContains(t, warned, "ask_test.go", "the stack says where")
}
