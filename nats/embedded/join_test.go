package embedded_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/inproc"
	"github.com/bgagent/bgagent/internal/tempdir"
	bgnats "github.com/bgagent/bgagent/nats"
	"github.com/bgagent/bgagent/nats/embedded"
)

// listening returns a new server that accepts connections from other processes.
func listening(t *testing.T, change func(*server.Options)) *embedded.Server {
	t.Helper()
	s, err := embedded.StartWith(embedded.Options{Dir: tempdir.New(t), Listen: "127.0.0.1:0"}, change)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// joined returns a process that has joined a cluster. When the test ends, any managers that it made
// after this call are closed before the cluster.
func joined(t *testing.T, url string, o bgnats.ClusterOptions) *bgnats.Cluster {
	t.Helper()
	warn := o.Warn
	o.Warn = func(err error) {
		t.Log(o.Process, "warns:", err)
		if warn != nil {
			warn(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, err := bgnats.Join(ctx, url, o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close(context.Background())) })
	return c
}

// managerOf returns a manager for a process of a cluster.
func managerOf(t *testing.T, c *bgnats.Cluster, agents map[string]inproc.Agent) *bgagent.BackgroundManager {
	t.Helper()
	m, err := bgagent.New(inproc.New(agents), bgagent.Config{Slots: c.Slots, Store: c.Store, Wake: bgagent.WakeNever})
	require.NoError(t, err)
	t.Cleanup(func() { _ = m.Close(context.Background()) })
	return m
}

func TestProcessesOfAClusterShareLimitsAndKeepTheirTasksUnderTheirNames(t *testing.T) {
	s := listening(t, func(*server.Options) {})
	one := joined(t, s.URL(), bgnats.ClusterOptions{Process: "one", Limits: bgagent.Limits{Default: 7}})
	until(t, one.Slots.IsAllocator) // the allocator has stored the limits of process one
	two := joined(t, s.URL(), bgnats.ClusterOptions{Process: "two", Limits: bgagent.Limits{Default: 1}})

	begun, end := make(chan string, 2), make(chan struct{})
	agents := map[string]inproc.Agent{"slow": func(ctx context.Context, turn *inproc.Turn) (string, error) {
		begun <- turn.Prompt.Text
		select {
		case <-end:
		case <-ctx.Done():
		}
		return "done", ctx.Err()
	}}
	m1, m2 := managerOf(t, one, agents), managerOf(t, two, agents)
	require.NoError(t, one.Serve(m1))
	require.NoError(t, two.Serve(m2))
	until(t, func() bool { return one.Slots.Limits().Default == 1 }) // the limits of process two apply, because it called Serve last
	first, err := m1.Launch(t.Context(), bgagent.Caller{Session: "s"}, bgagent.LaunchInput{Agent: "slow", Prompt: "first"})
	require.NoError(t, err)
	require.Equal(t, "first", within(t, begun))
	second, err := m2.Launch(t.Context(), bgagent.Caller{Session: "s"}, bgagent.LaunchInput{Agent: "slow", Prompt: "second"})
	require.NoError(t, err)
	until(t, func() bool {
		for _, p := range one.Slots.Pools() {
			if p.Waiting == 1 {
				return len(begun) == 0 // the second body has not begun, because the only slot is in use
			}
		}
		return false
	})
	close(end)
	require.Equal(t, "second", within(t, begun))
	_, err = m1.Wait(t.Context(), bgagent.Caller{}, bgagent.WaitAll, first.ID)
	require.NoError(t, err)
	_, err = m2.Wait(t.Context(), bgagent.Caller{}, bgagent.WaitAll, second.ID)
	require.NoError(t, err)

	require.NoError(t, m1.Suspend(t.Context()))
	_, err = bgagent.New(inproc.New(agents), bgagent.Config{Slots: one.Slots, Store: joined(t, s.URL(), bgnats.ClusterOptions{Process: "two", Limits: bgagent.Limits{Default: 5}}).Store})
	var owned *bgagent.StoreOwnedError
	require.ErrorAs(t, err, &owned, "the name is in use")
	require.Never(t, func() bool { return two.Slots.Limits().Default != 1 }, 2*time.Second, 20*time.Millisecond, "a process that cannot start has no limits")
	again := managerOf(t, joined(t, s.URL(), bgnats.ClusterOptions{Process: "one", Limits: bgagent.Limits{Default: 1}}), agents)
	kept, err := again.Read(bgagent.Caller{}, first.ID)
	require.NoError(t, err)
	require.Equal(t, "done", kept.Result)
	_, err = again.Read(bgagent.Caller{}, second.ID)
	require.ErrorIs(t, err, bgagent.ErrUnknownTask)
}

// credentials returns server options that accept only users of one account, and writes the
// credentials of such a user into a file.
func credentials(t *testing.T) (change func(*server.Options), file string) {
	t.Helper()
	operator, err := nkeys.CreateOperator()
	require.NoError(t, err)
	account, err := nkeys.CreateAccount()
	require.NoError(t, err)
	user, err := nkeys.CreateUser()
	require.NoError(t, err)
	key := func(k nkeys.KeyPair) string {
		public, err := k.PublicKey()
		require.NoError(t, err)
		return public
	}
	system, err := nkeys.CreateAccount()
	require.NoError(t, err)
	operates := jwt.NewOperatorClaims(key(operator))
	accounts := jwt.NewAccountClaims(key(account))
	accounts.Limits.JetStreamLimits = jwt.JetStreamLimits{MemoryStorage: -1, DiskStorage: -1, Streams: -1, Consumer: -1, MaxBytesRequired: false}
	systemToken, err := jwt.NewAccountClaims(key(system)).Encode(operator)
	require.NoError(t, err)
	accountToken, err := accounts.Encode(operator)
	require.NoError(t, err)
	userToken, err := jwt.NewUserClaims(key(user)).Encode(account)
	require.NoError(t, err)
	seed, err := user.Seed()
	require.NoError(t, err)
	text, err := jwt.FormatUserConfig(userToken, seed)
	require.NoError(t, err)
	file = filepath.Join(tempdir.New(t), "user.creds")
	require.NoError(t, os.WriteFile(file, text, 0o600))
	return func(o *server.Options) {
		resolver := &server.MemAccResolver{}
		require.NoError(t, resolver.Store(key(account), accountToken))
		require.NoError(t, resolver.Store(key(system), systemToken))
		o.SystemAccount = key(system)
		o.TrustedOperators, o.AccountResolver = []*jwt.OperatorClaims{operates}, resolver
	}, file
}

// certificate returns a certificate for 127.0.0.1, and writes it into a file.
func certificate(t *testing.T) (c tls.Certificate, file string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	file = filepath.Join(tempdir.New(t), "ca.pem")
	require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, file
}

func TestJoinUsesCredentialsAndCertificates(t *testing.T) {
	accept, creds := credentials(t)
	_, otherCreds := credentials(t)
	cert, ca := certificate(t)
	_, otherCA := certificate(t)
	s := listening(t, func(o *server.Options) {
		accept(o)
		o.TLSConfig, o.TLSTimeout, o.AuthTimeout = &tls.Config{Certificates: []tls.Certificate{cert}}, 30, 60
	})
	c := joined(t, s.URL(), bgnats.ClusterOptions{Process: "one", CredentialsFile: creds, CAFile: ca})
	m := managerOf(t, c, map[string]inproc.Agent{"quick": func(context.Context, *inproc.Turn) (string, error) { return "done", nil }})
	task, err := m.Run(t.Context(), bgagent.Caller{}, bgagent.LaunchInput{Agent: "quick", Prompt: "x"})
	require.NoError(t, err)
	require.Equal(t, "done", task.Result)
	for name, o := range map[string]bgnats.ClusterOptions{
		"without credentials":   {CAFile: ca},
		"with others":           {CAFile: ca, CredentialsFile: otherCreds},
		"with another CA":       {CAFile: otherCA, CredentialsFile: creds},
		"with the system's CAs": {CredentialsFile: creds},
	} {
		o.Process = "two"
		_, err := bgnats.Join(t.Context(), s.URL(), o) // fails at once, because the error is permanent; after any other error, Join retries
		require.Error(t, err, name)
	}
}

// The credentials of a process can be wrong for a while, for example while they are being replaced on the
// servers.
func TestAProcessReconnectsAfterItsCredentialsWereRefused(t *testing.T) {
	dir, listen := tempdir.New(t), "127.0.0.1:0"
	start := func(password string) *embedded.Server {
		s, err := embedded.StartWith(embedded.Options{Dir: dir, Listen: listen}, func(o *server.Options) { o.Username, o.Password = "u", password })
		require.NoError(t, err)
		return s
	}
	s := start("right")
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	url := s.URL()
	listen = strings.TrimPrefix(url, "nats://")
	tried, warned := make(chan int, 10000), make(chan error, 10000)
	c := joined(t, url, bgnats.ClusterOptions{
		Process: "one", Connect: []nats.Option{
			nats.UserInfo("u", "right"),
			nats.CustomReconnectDelay(func(n int) time.Duration { tried <- n; return 10 * time.Millisecond }),
		},
		Warn: func(err error) {
			if errors.Is(err, nats.ErrAuthorization) {
				warned <- err
			}
		},
	})
	managerOf(t, c, map[string]inproc.Agent{"quick": func(context.Context, *inproc.Turn) (string, error) { return "done", nil }})
	require.NoError(t, s.Close())
	s = start("other")
	within(t, warned)
	for len(tried) > 0 {
		<-tried
	}
	for range 5 { // the server is running, so it refuses each of these attempts
		within(t, tried)
	}
	require.NoError(t, s.Close())
	s = start("right")
	until(t, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		all, err := c.Tasks(ctx, 1)
		return err == nil && len(all) == 1
	})
	require.Empty(t, warned, "the same error again within a minute")
}
