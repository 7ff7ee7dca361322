package bgnats

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
)

func TestJoinRefusesWrongOptions(t *testing.T) {
	long := strings.Repeat("a", 40)
	for field, o := range map[string]ClusterOptions{
		"ClusterOptions.Name":     {Name: "a_b", Process: "p"},
		"ClusterOptions.Process":  {Process: long},
		"ClusterOptions.CertFile": {Process: "p", CertFile: "x"},
	} {
		_, err := Join(t.Context(), "nats://127.0.0.1:1", o)
		var input *bgagent.InputError
		require.ErrorAs(t, err, &input)
		require.Equal(t, field, input.Field)
	}
	// Even the longest names of a cluster and a process together make a valid name for a store.
	_, err := namesOf(storeName(long[:24], long[:39]))
	require.NoError(t, err)
}

// freePort returns an address on which nobody listens.
func freePort(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	return l.Addr().String()
}

func TestJoinTriesAllServersUntilItsTimeIsOver(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	servers := "nats://" + freePort(t) + ",nats://" + freePort(t)
	_, err := Join(ctx, servers, ClusterOptions{Process: "p"})
	require.ErrorContains(t, err, "no server can be reached after ")
	require.ErrorContains(t, err, "; tried "+servers+": ")
}

func TestJoinDoesNotRepeatWhatCannotSucceed(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(bad, nil, 0o600))
	missing := bad + ".missing"
	for _, o := range []ClusterOptions{{CAFile: missing}, {CredentialsFile: missing}, {CertFile: missing, KeyFile: missing}, {CAFile: bad}, {CredentialsFile: bad}} {
		o.Process = "p"
		_, err := Join(t.Context(), "nats://"+freePort(t), o) // Join must not retry, because the error is permanent
		require.Error(t, err)
		require.NotContains(t, err.Error(), "no server can be reached")
	}
	require.True(t, permanent(nats.ErrAuthorization))
}
