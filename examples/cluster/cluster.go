package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/bgagent/bgagent"
	bgnats "github.com/bgagent/bgagent/nats"
)

// runServer runs a NATS server with the configuration file until standard input ends. It takes the
// place of the command "nats-server -c FILE".
func runServer(file string) error {
	o, err := server.ProcessConfigFile(file)
	if err != nil {
		return err
	}
	o.NoLog, o.NoSigs = true, true
	s, err := server.NewServer(o)
	if err != nil {
		return err
	}
	s.Start()
	if !s.ReadyForConnections(time.Minute) {
		return errors.New("the server is not ready")
	}
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin) // standard input has no content
	s.Shutdown()
	s.WaitForShutdown()
	return nil
}

// configuration is the format of a server's configuration file. A configuration for three machines is
// in docs/cluster.md.
const configuration = `
server_name: n%d
listen: "127.0.0.1:%d"
jetstream {
  store_dir: %q
  sync_interval: always
}
cluster {
  name: tasks
  listen: "127.0.0.1:%d"
  routes: [%s]
}
`

// cluster holds the servers and workers.
type cluster struct {
	plan    plan
	dir     string
	url     string // addresses of all servers
	log     lines
	servers [3]*process
	workers [workers]*process
	nc      *nats.Conn
	js      jetstream.JetStream
}

// startCluster starts the servers. The caller must close the cluster if there is no error.
func startCluster(p plan) (c *cluster, err error) {
	c = &cluster{plan: p}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.close())
		}
	}()
	if c.dir, err = os.MkdirTemp("", "cluster-"); err != nil {
		return c, err
	}
	ports, err := freePorts(2 * len(c.servers))
	if err != nil {
		return c, err
	}
	var clients, routes []string
	for i := range c.servers {
		clients = append(clients, fmt.Sprintf("nats://127.0.0.1:%d", ports[2*i]))
		routes = append(routes, fmt.Sprintf("%q", fmt.Sprint("nats://127.0.0.1:", ports[2*i+1])))
	}
	c.url = strings.Join(clients, ",")
	for i := range c.servers {
		text := fmt.Sprintf(configuration, i, ports[2*i], filepath.Join(c.dir, fmt.Sprint("n", i)), ports[2*i+1], strings.Join(routes, ", "))
		if err := os.WriteFile(c.file(i), []byte(text), 0o600); err != nil {
			return c, err
		}
		if err := c.startServer(i); err != nil {
			return c, err
		}
	}
	for _, s := range c.servers {
		if err := s.untilReady(); err != nil {
			return c, err
		}
	}
	if c.nc, err = c.connect(); err != nil {
		return c, err
	}
	c.js, err = jetstream.New(c.nc)
	return c, err
}

func (c *cluster) file(i int) string { return filepath.Join(c.dir, fmt.Sprintf("n%d.conf", i)) }

func (c *cluster) startServer(i int) (err error) {
	c.servers[i], err = start(&lines{}, "server", c.file(i))
	return err
}

// startWorker starts a worker. If it has no tasks yet, it launches its share of them.
func (c *cluster) startWorker(i int) (err error) {
	c.workers[i], err = start(&c.log, "worker", fmt.Sprint(i), urlVariable+"="+c.url,
		fmt.Sprint(tasksVariable, "=", c.plan.tasks), fmt.Sprint(slowVariable, "=", max(1, 2*c.plan.kills-1)))
	return err
}

func (c *cluster) connect() (*nats.Conn, error) {
	return nats.Connect(c.url, nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond))
}

// freePorts returns ports that are not in use now. They are chosen in advance because the servers
// must know each other's ports.
func freePorts(n int) (ports []int, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

// The constant "within" is the time limit for waiting.
const within = 5 * time.Minute

// The method "until" waits until f returns true. If a worker exits first, the method returns an
// error.
func (c *cluster) until(what string, f func() bool) error {
	for over := time.Now().Add(within); !f(); time.Sleep(20 * time.Millisecond) {
		for _, p := range c.workers {
			select {
			case <-p.ended:
				return fmt.Errorf("worker %s exited unexpectedly", p.name)
			default:
			}
		}
		if time.Now().After(over) {
			return fmt.Errorf("gave up after waiting for %v until %s", within, what)
		}
	}
	return nil
}

// untilEnded waits until the bodies of n tasks have ended.
func (c *cluster) untilEnded(n int) error {
	return c.until(fmt.Sprint(n, " bodies have ended"), func() bool { return c.log.count("end") >= n })
}

// killWorker kills one worker. If allocator is true, this is the worker that grants slots to all
// workers. Otherwise, it is the one of the other workers that is running the most bodies. killWorker
// first waits, for up to 5 s, until that worker is running a body. After the kill, it restarts the
// worker, which finds its tasks on the servers and continues them.
func (c *cluster) killWorker(say func(string, ...any), allocator bool) error {
	i, soon := 0, time.Now().Add(5*time.Second)
	err := c.until("a worker can be killed", func() bool {
		most := -1
		for j, p := range c.workers {
			if n := len(unfinished(c.log.all(), p)); n > most && c.isAllocator(p) == allocator {
				i, most = j, n
			}
		}
		return most > 0 || most == 0 && time.Now().After(soon) // the worker might have no tasks left
	})
	if err != nil {
		return err
	}
	victim := c.workers[i]
	victim.kill()
	role := ""
	if allocator {
		role = ", which grants the slots,"
	}
	say("Worker %d%s was killed. Bodies that were running: %d. It is restarted.", i, role, len(unfinished(c.log.all(), victim)))
	return c.startWorker(i)
}

// isAllocator reports whether the process grants the slots.
func (c *cluster) isAllocator(p *process) (is bool) {
	for _, x := range c.log.all() {
		if x.life == p && x.words[0] == "allocator" {
			is = x.words[1] == "true"
		}
	}
	return is
}

// killServer kills the server that leads the stream with the slots. It waits until the given number
// of further bodies have ended without this server, and then restarts the server.
func (c *cluster) killServer(ctx context.Context, say func(string, ...any), bodies int) error {
	if err := c.untilCurrent(ctx); err != nil {
		return err
	}
	leader := ""
	for leader == "" { // there is no leader during an election, which can begin at any time
		s, err := c.js.Stream(ctx, "BGSLOTS_agents")
		if err != nil {
			return err
		}
		leader = s.CachedInfo().Cluster.Leader
	}
	i := int(leader[1] - '0')
	c.servers[i].kill()
	before := c.log.count("end")
	say("Server n%d, which leads the slots, was killed.", i)
	if err := c.untilEnded(min(before+bodies, c.plan.tasks)); err != nil {
		return err
	}
	say("%d more bodies have ended without it. It is restarted.", bodies)
	if err := c.startServer(i); err != nil {
		return err
	}
	return c.servers[i].untilReady()
}

// untilCurrent waits until all servers have all messages. Only then can the cluster survive the
// loss of one of them.
func (c *cluster) untilCurrent(ctx context.Context) error {
	return c.until("all servers have all messages", func() bool {
		names := c.js.StreamNames(ctx)
		n := 0
		for name := range names.Name() {
			s, err := c.js.Stream(ctx, name)
			if err != nil || s.CachedInfo().Cluster.Leader == "" || len(s.CachedInfo().Cluster.Replicas) != len(c.servers)-1 {
				return false
			}
			for _, r := range s.CachedInfo().Cluster.Replicas {
				if !r.Current || r.Offline {
					return false
				}
			}
			n++
		}
		return names.Err() == nil && n == 1+workers
	})
}

// endWorkers lets the workers exit, so that another process can open their stores.
func (c *cluster) endWorkers() (err error) {
	for _, p := range c.workers {
		err = errors.Join(err, p.end())
	}
	return err
}

// record is a task as recorded on the servers.
type record struct {
	task   bgagent.Task
	result string
}

// The method "records" returns the tasks of all workers, as the servers have stored them.
func (c *cluster) records(ctx context.Context) (all []record, err error) {
	for i := range workers {
		s := store(c.nc, fmt.Sprint(i))
		contents, err := s.Open(ctx, bgagent.StoreOwner{Instance: "judge", PID: os.Getpid(), Program: "cluster", Since: time.Now()})
		if err != nil {
			return nil, err
		}
		ended, err := s.History(ctx, bgagent.StoreQuery{Limit: 1000})
		if err != nil {
			return nil, err
		}
		for _, r := range append(ended, contents.Records...) {
			if r.Kind != bgagent.StoreTask {
				continue
			}
			t, err := r.Task()
			if err != nil {
				return nil, err
			}
			result, err := s.Text(ctx, t.ID, fmt.Sprint("result.", t.Attempt))
			if err != nil && !errors.Is(err, bgagent.ErrNoText) {
				return nil, err
			}
			all = append(all, record{t, result})
		}
		if err := s.Close(); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// store returns the store of a worker.
func store(nc *nats.Conn, worker string) *bgnats.Store {
	// Grace can be short: a worker is restarted only after its process has died, so the store is never taken
	// from a living process.
	return bgnats.NewStore(nc, "worker-"+worker, bgnats.StoreOptions{Replicas: 3, Grace: time.Second})
}

// The method "close" stops all processes that are still running, and deletes the files.
func (c *cluster) close() (err error) {
	for _, p := range c.workers {
		if p != nil {
			p.kill()
		}
	}
	if c.nc != nil {
		c.nc.Close()
	}
	for _, s := range c.servers {
		if s != nil {
			s.kill()
		}
	}
	return os.RemoveAll(c.dir)
}
