package bgagent

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTurnContextBehavesLikeOneOfTheStandardLibrary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type key struct{}
		c := &turnContext{values: valuesOf(context.WithValue(t.Context(), key{}, "v"))}
		require.Equal(t, "v", c.Value(key{}))
		require.Nil(t, (&turnContext{}).Value(key{}))
		require.NoError(t, c.Err())

		child, cancel := context.WithTimeout(c, time.Hour)
		defer cancel()
		other, cancelOther := context.WithCancel(c)
		cancelOther()
		require.Error(t, other.Err())
		var ran sync.WaitGroup
		ran.Add(1)
		stop := context.AfterFunc(c, ran.Done)
		require.False(t, func() bool {
			s := context.AfterFunc(c, func() { t.Error("the function must not run after it was stopped") })
			s()
			return s()
		}(), "stopped twice")

		c.end()
		c.end()
		<-c.Done()
		<-child.Done()
		ran.Wait()
		require.False(t, stop())
		require.ErrorIs(t, c.Err(), context.Canceled)
		require.ErrorIs(t, child.Err(), context.Canceled)
		require.Equal(t, "v", child.Value(key{}))

		late, cancelLate := context.WithCancel(c)
		defer cancelLate()
		<-late.Done()
		ended := &turnContext{}
		ended.end()
		<-ended.Done()
	})
}
