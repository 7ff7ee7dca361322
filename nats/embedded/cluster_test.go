package embedded_test

import (
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/tempdir"
	bgnats "github.com/bgagent/bgagent/nats"
	"github.com/bgagent/bgagent/nats/embedded"
	"github.com/bgagent/bgagent/storetest"
)

// cluster is three servers in this process.
type cluster struct {
	t       *testing.T
	servers [3]*embedded.Server
	dirs    [3]string
	ports   [3]int
}

func startCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{t: t}
	for i := range c.servers {
		l, err := net.Listen("tcp", "127.0.0.1:0") // finds a free port now, because each server must know the ports of the others when it starts
		require.NoError(t, err)
		c.ports[i], c.dirs[i] = l.Addr().(*net.TCPAddr).Port, tempdir.New(t)
		require.NoError(t, l.Close())
	}
	for i := range c.servers {
		c.start(i)
		t.Cleanup(func() { require.NoError(t, c.servers[i].Close()) })
	}
	return c
}

func (c *cluster) start(i int) {
	s, err := embedded.StartWith(embedded.Options{Dir: c.dirs[i], Listen: "127.0.0.1:0"}, func(o *server.Options) {
		o.ServerName = fmt.Sprint("n", i)
		o.Cluster = server.ClusterOpts{Name: "tasks", Host: "127.0.0.1", Port: c.ports[i]}
		for j, port := range c.ports {
			if j != i {
				o.Routes = append(o.Routes, server.RoutesFromStr(fmt.Sprint("nats://127.0.0.1:", port))...)
			}
		}
	})
	require.NoError(c.t, err)
	c.servers[i] = s
}

// InProcessConn implements [nats.InProcessConnProvider]. It connects to a server that is running.
func (c *cluster) InProcessConn() (net.Conn, error) {
	err := errors.New("no server is running")
	for _, s := range c.servers {
		var conn net.Conn
		if conn, err = s.InProcessConn(); err == nil {
			return conn, nil
		}
	}
	return nil, err
}

func TestAStoreOnThreeServersSurvivesTheLossOfItsLeader(t *testing.T) {
	c := startCluster(t)
	nc, err := nats.Connect("", nats.InProcessServer(c), nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond))
	require.NoError(t, err)
	defer nc.Close()
	s := bgnats.NewStore(nc, "tasks", bgnats.StoreOptions{Grace: -1, Replicas: 3, KeepFor: -1, KeepTasks: -1, KeepBytes: -1})
	open(t, s, 1) // waits until the servers have a leader
	all := storetest.NewScript(7, 60, time.Now())
	lost := false
	for n := 1; n <= all.Len(); {
		if n == 30 && !lost {
			lost = true
			js, err := jetstream.New(nc)
			require.NoError(t, err)
			stream, err := js.Stream(t.Context(), "BGAGENT_tasks")
			require.NoError(t, err)
			leader := stream.CachedInfo().Cluster.Leader
			require.Len(t, stream.CachedInfo().Cluster.Replicas, 2)
			require.NoError(t, c.servers[leader[1]-'0'].Close())
		}
		err := s.Write(t.Context(), all.Batch(n))
		if err == nil {
			n++
			continue
		}
		t.Logf("batch %d: %v", n, err)
		for {
			contents, err := s.Reopen(t.Context())
			if err == nil {
				require.NoError(t, all.Check(t.Context(), s, contents, n-1, n))
				n = int(contents.Batch) + 1
				break
			}
			require.NotErrorAs(t, err, new(*bgagent.StoreOwnedError))
			t.Logf("reopen: %v", err)
		}
	}
	require.NoError(t, s.Close())
	require.NoError(t, all.Check(t.Context(), s, open(t, s, 2), all.Len(), all.Len()))
}
