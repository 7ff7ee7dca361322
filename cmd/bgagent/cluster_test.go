//go:build unix

package main

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/settings"
	"github.com/bgagent/bgagent/inproc"
	bgnats "github.com/bgagent/bgagent/nats"
	"github.com/bgagent/bgagent/storetest"
	"github.com/stretchr/testify/require"
)

// The tests with several processes and a NATS server are in the module nats/embedded, so that this module does
// not depend on the NATS server.

// The function "unused" returns an address on which nobody listens.
func unused(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	return "nats://" + l.Addr().String()
}

func TestServeRefusesAClusterThatCannotBeMeant(t *testing.T) {
	p := newPlace(t)
	require.NoError(t, os.Chmod(p.write("open.creds", "x"), 0o644))
	for _, x := range []struct {
		file string
		args []string
		want string
	}{
		{`{"cluster": {"url": "nats://me:hunter2@a"}}`, nil, `.bgagent.jsonc:1:21: cluster.url: contains a user name, a password or a token, and bgagent config prints this value; write the credentials into a file of mode 0600, and name it with credentialsFile`},
		{`{"cluster": {"url": "nats://a", "credentials": "x"}}`, nil, `cluster.credentials: is not a known key; the keys of a cluster are url, name, credentialsFile, caFile, certFile, keyFile, replicas, takeOver`},
		{`{"cluster": {"url": "nats://a", "credentialFile": "x"}}`, nil, `cluster.credentialFile: is not a known key; did you mean credentialsFile?`},
		{`{"cluster": {"url": "nats://a", "credentialsFile": "open.creds"}}`, nil, `open.creds: other users can access the file (its mode is 0644); chmod 600 it`},
		{`{"cluster": {"url": "nats://a", "credentialsFile": "none.creds"}}`, nil, `none.creds: no such file or directory`},
		{`{"cluster": {"url": "nats://a", "certFile": "open.creds", "keyFile": "open.creds"}}`, nil, `cluster.keyFile: ` + filepath.Join(p.project, "open.creds") + `: other users can access the file`},
		{`{"cluster": {"url": "nats://a"}}`, []string{"--state", "none"}, `cluster: keeps the tasks on NATS servers, and --state none keeps none; leave out one of the two`},
		{`{"cluster": {"url": "nats://a"}}`, []string{"--process", "a b"}, `--process is "a b"; it must have 1 to 39 letters, digits and hyphens`},
	} {
		p.write(".bgagent.jsonc", x.file)
		got := p.run(append([]string{"serve", "--addr", "127.0.0.1:0"}, x.args...)...)
		require.Equal(t, exitInput, got.code, got.stderr)
		require.Contains(t, got.stderr, x.want)
		require.NotContains(t, got.stderr, "hunter2")
	}
}

func TestServeTriesToReachTheServersOfItsClusterForAWhile(t *testing.T) {
	p := newPlace(t)
	p.write(".bgagent.jsonc", `{"cluster": {"url": "`+unused(t)+`"}, "agents": {"wait": {"kind": "inproc"}}}`)
	cmd := p.command("serve", "--addr", "127.0.0.1:0")
	problems := newOutput()
	cmd.Stderr = problems
	require.NoError(t, cmd.Start())
	problems.await(t, "bgagent: waiting for the servers of the cluster: nats://127.0.0.1:")
	require.NoError(t, cmd.Process.Signal(syscall.SIGINT))
	require.NoError(t, cmd.Wait(), "Ctrl-C ends the wait")

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	address := unused(t)
	err := (&serving{}).joinCluster(ctx, &settings.Cluster{URL: address}, bgnats.ClusterOptions{Process: "p"})
	var coded *exitError
	require.ErrorAs(t, err, &coded)
	require.Equal(t, exitFailed, coded.Code)
	require.ErrorContains(t, err, "cluster: cannot be joined: bgnats: join: no server can be reached after 0s; tried "+address)
}

// takenStore is a store that belongs to another process once "taken" is set.
type takenStore struct {
	*storetest.Process
	taken *atomic.Bool
}

func (s takenStore) Write(ctx context.Context, b *bgagent.StoreBatch) error {
	if s.taken.Load() {
		return &bgagent.StoreOwnedError{}
	}
	return s.Process.Write(ctx, b)
}

func TestAServeNoticesThatItsTasksWereTakenOver(t *testing.T) {
	var memory storetest.Memory
	var taken atomic.Bool
	taken.Store(true)
	m, err := bgagent.New(inproc.New(map[string]inproc.Agent{"a": func(context.Context, *inproc.Turn) (string, error) { return "", nil }}), bgagent.Config{Store: takenStore{memory.Process(), &taken}})
	require.NoError(t, err)
	defer m.Close(context.Background())
	_, events := m.Subscribe(16)
	s := &serving{cluster: &bgnats.Cluster{}, manager: m, lost: make(chan error, 1)}
	s.checkStore()
	require.Empty(t, s.lost)
	_, err = m.Launch(t.Context(), bgagent.Caller{Session: "root"}, bgagent.LaunchInput{Agent: "a", Prompt: "p"})
	require.ErrorIs(t, err, bgagent.ErrStoreLost)
	s.follow = make(chan struct{})
	go s.watch(nil, events)
	select {
	case err := <-s.lost:
		require.ErrorIs(t, err, bgagent.ErrStoreLost)
	case <-time.After(10 * time.Second):
		require.Fail(t, "the serve has not noticed it")
	}
	require.NoError(t, m.Close(context.Background()))
	<-s.follow
}

// In this test, the event about the store is lost, because later events fill the subscription.
func TestAServeThatMissedEventsNoticesThatItsTasksWereTakenOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var memory storetest.Memory
		var taken atomic.Bool
		m, err := bgagent.New(inproc.New(map[string]inproc.Agent{"a": func(context.Context, *inproc.Turn) (string, error) { return "done", nil }}), bgagent.Config{Store: takenStore{memory.Process(), &taken}})
		require.NoError(t, err)
		root := bgagent.Caller{Session: "root"}
		for range 3 {
			_, err := m.Run(t.Context(), root, bgagent.LaunchInput{Agent: "a", Prompt: "p"})
			require.NoError(t, err)
		}
		_, events := m.Subscribe(1)
		taken.Store(true)
		_, err = m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: "a", Prompt: "p"})
		require.ErrorIs(t, err, bgagent.ErrStoreLost)
		time.Sleep(2 * bgagent.DefaultRetention) // the ended tasks expire
		s := &serving{cluster: &bgnats.Cluster{}, manager: m, lost: make(chan error, 1), follow: make(chan struct{})}
		go s.watch(nil, events)
		defer func() {
			require.NoError(t, m.Close(context.Background()))
			<-s.follow
		}()
		synctest.Wait()
		require.Len(t, s.lost, 1)
	})
}
