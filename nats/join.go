package bgnats

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/bgagent/bgagent"
)

// ClusterOptions contains the settings of a process that joins a cluster. Only Process is required.
type ClusterOptions struct {
	// Name is the name of the cluster, which all its processes share. It has 1 to 24 letters, digits
	// and hyphens. Default "bgagent".
	Name string

	// Process is the name of this process. Its tasks are kept under this name, so it must be the same
	// after a restart, and no two processes may have the same name. It has 1 to 39 letters, digits
	// and hyphens.
	Process string

	// Home says where the sessions of this process are kept, for example the address of a server, or the name
	// of a machine and a user; see [bgagent.SessionHome]. Processes with the same Home can continue each
	// other's sessions, so only such processes take over each other's tasks; see [Cluster.TakeOver]. If Home
	// is empty, the process does not take over tasks, and no process takes over its tasks.
	Home string

	// TakeOverSuspended is the time after which other processes can take over the tasks of this process if it
	// was suspended, for example for a deploy, and has not started again. Zero means 5 minutes, and a
	// negative value means that the tasks wait for this process.
	TakeOverSuspended time.Duration

	// Limits are the limits for all processes together. [Cluster.Serve] stores them on the servers, so the
	// limits of the process that called it last apply. Join does not replace stored limits, because its
	// process might still fail to open the store, for example if the name is in use.
	Limits bgagent.Limits

	// Lease is the duration of the slot lease; see [SlotOptions].
	Lease time.Duration

	// Replicas is the number of servers that keep a copy of each stream that Join or the store creates. It is
	// 1, 3 or 5. Zero means 3 if the address names at least three servers, and otherwise 1.
	Replicas int

	// These are paths of files: the credentials, the certificates of the authorities that sign the
	// servers' certificates, and the certificate and key of this process. Each of them can be
	// empty.
	CredentialsFile, CAFile, CertFile, KeyFile string

	// Connect contains further options for the connection.
	Connect []nats.Option

	// Store contains settings of the store. Its fields Replicas and Warn are replaced with those of
	// ClusterOptions.
	Store StoreOptions

	// Warn is called for problems that occur outside of calls. It must not block, and must not call
	// the cluster's methods. If Warn is nil, the problems are dropped.
	Warn func(error)
}

// Cluster is this process's part in a group of processes that share their limits and keep their
// tasks in JetStream. Call [Join] to make a Cluster. Its methods are safe for concurrent use.
type Cluster struct {
	// Slots are the slots that the processes share, and Store keeps the tasks of this process. They are meant
	// for the fields with the same names in a manager's Config.
	Slots *Slots
	Store *Store

	name    string
	process string
	home    string
	store   StoreOptions
	w       wire // for requests that do not concern a stream
	nc      *nats.Conn
	warn    func(error)
	subs    []*nats.Subscription // what Serve subscribes to
	life    context.Context      // ends when the cluster is closed
	end     context.CancelFunc
	work    work // answers to other processes

	mu     sync.Mutex
	others map[string]*other
	taking *takeOver // nil until TakeOver is called

	callers atomic.Pointer[Callers] // nil until ServeCallers is called
}

// These patterns match the valid names of clusters and processes. Names must not contain underscores, because
// the name of a store consists of the two names, separated by an underscore.
var (
	validCluster = regexp.MustCompile(`^[A-Za-z0-9-]{1,24}$`)
	validProcess = regexp.MustCompile(`^[A-Za-z0-9-]{1,39}$`)
)

// storeName returns the name of a process's store.
func storeName(cluster, process string) string { return cluster + "_" + process }

// DefaultCluster is the name of the cluster if ClusterOptions.Name is empty.
const DefaultCluster = "bgagent"

// Join connects to the servers and joins a cluster. The address has the form
// "nats://10.0.0.1,nats://10.0.0.2". While no server can be reached, Join keeps trying all of them until ctx
// ends. If the servers refuse the credentials, or a file cannot be used, Join fails at once.
//
//	c, err := bgnats.Join(ctx, "nats://10.0.0.1,nats://10.0.0.2,nats://10.0.0.3", bgnats.ClusterOptions{
//		Process: "m1", CredentialsFile: "/etc/myprogram/nats.creds", Limits: limits,
//	})
//	m, err := bgagent.New(client, bgagent.Config{Slots: c.Slots, Store: c.Store})
//	err = c.Serve(m)
//
// The caller must close the cluster after it closes the manager.
func Join(ctx context.Context, address string, o ClusterOptions) (*Cluster, error) {
	if o.Name == "" {
		o.Name = DefaultCluster
	}
	if o.Warn == nil {
		o.Warn = func(error) {}
	}
	if o.Replicas == 0 {
		if o.Replicas = 1; strings.Count(address, ",") >= 2 {
			o.Replicas = 3
		}
	}
	switch {
	case !validCluster.MatchString(o.Name):
		return nil, &bgagent.InputError{Field: "ClusterOptions.Name", Problem: fmt.Sprintf("is %q; it must have 1 to 24 letters, digits and hyphens", o.Name)}
	case !validProcess.MatchString(o.Process):
		return nil, &bgagent.InputError{Field: "ClusterOptions.Process", Problem: fmt.Sprintf("is %q; it must have 1 to 39 letters, digits and hyphens", o.Process)}
	case (o.CertFile == "") != (o.KeyFile == ""):
		return nil, &bgagent.InputError{Field: "ClusterOptions.CertFile", Problem: "and KeyFile belong together; name both files or neither"}
	}
	if err := o.checkFiles(); err != nil {
		return nil, fmt.Errorf("bgnats: join: %w", err)
	}
	nc, err := connect(ctx, address, o.connectOptions())
	if err != nil {
		return nil, fmt.Errorf("bgnats: join: %w", err)
	}
	slots, err := newSlots(ctx, nc, o.Name, SlotOptions{Limits: o.Limits, Lease: o.Lease, Replicas: o.Replicas, Warn: o.Warn}, true)
	if err != nil {
		nc.Close()
		return nil, err
	}
	o.Store.Replicas, o.Store.Warn = o.Replicas, o.Warn
	c := &Cluster{Slots: slots, Store: NewStore(nc, storeName(o.Name, o.Process), o.Store), name: o.Name, process: o.Process, home: o.Home, store: o.Store, w: wire{nc: nc}, nc: nc, warn: o.Warn, others: map[string]*other{}}
	c.Store.home, c.Store.patience = o.Home, cmp.Or(o.TakeOverSuspended, suspendedFor)
	c.life, c.end = context.WithCancel(context.Background())
	if nc.ClosedHandler() == nil {
		nc.SetClosedHandler(func(nc *nats.Conn) {
			if c.life.Err() == nil {
				c.warn(fmt.Errorf("bgnats: the connection is closed, and the process must join again: %w", cmp.Or(nc.LastError(), nats.ErrConnectionClosed)))
			}
		})
	}
	c.w.watch()
	return c, nil
}

// checkFiles returns an error if a file cannot be used. The client library would report the error
// only after it has reached a server.
func (o *ClusterOptions) checkFiles() error {
	if o.CredentialsFile != "" {
		text, err := os.ReadFile(o.CredentialsFile)
		if err == nil {
			_, err = nkeys.ParseDecoratedUserNKey(text)
		}
		if err != nil {
			return fmt.Errorf("the credentials file %s cannot be used: %w", o.CredentialsFile, err)
		}
	}
	if o.CAFile != "" {
		text, err := os.ReadFile(o.CAFile)
		if err == nil && !x509.NewCertPool().AppendCertsFromPEM(text) {
			err = errors.New("it contains no certificate")
		}
		if err != nil {
			return fmt.Errorf("the file %s cannot be used: %w", o.CAFile, err)
		}
	}
	if o.CertFile != "" {
		if _, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile); err != nil {
			return fmt.Errorf("the certificate %s with the key %s cannot be used: %w", o.CertFile, o.KeyFile, err)
		}
	}
	return nil
}

func (o *ClusterOptions) connectOptions() []nats.Option {
	all := []nats.Option{
		nats.Name("bgagent " + o.Process), nats.MaxReconnects(-1),
		nats.IgnoreAuthErrorAbort(), // otherwise, the second refusal would close the connection forever
		nats.ErrorHandler(o.connectionError()),
	}
	if o.CredentialsFile != "" {
		all = append(all, nats.UserCredentials(o.CredentialsFile))
	}
	if o.CAFile != "" {
		all = append(all, nats.RootCAs(o.CAFile))
	}
	if o.CertFile != "" {
		all = append(all, nats.ClientCert(o.CertFile, o.KeyFile))
	}
	return append(all, o.Connect...)
}

// sameErrorAfter is the time after which the same connection error is reported again.
const sameErrorAfter = time.Minute

// connectionError returns a function that reports connection errors. Because the servers can refuse the
// credentials at every attempt to reconnect, the function drops an error that it has just reported; see
// sameErrorAfter.
func (o *ClusterOptions) connectionError() nats.ErrHandler {
	var mu sync.Mutex
	var last string
	var at time.Time
	return func(_ *nats.Conn, _ *nats.Subscription, err error) {
		mu.Lock()
		defer mu.Unlock()
		if err.Error() == last && time.Since(at) < sameErrorAfter {
			return
		}
		last, at = err.Error(), time.Now()
		o.Warn(fmt.Errorf("bgnats: the connection to the servers: %w", err))
	}
}

// connectEvery is the pause before all servers are tried again.
const connectEvery = 500 * time.Millisecond

// The function "connect" connects to one of the servers. It retries until ctx ends, unless the error is
// permanent.
func connect(ctx context.Context, address string, options []nats.Option) (*nats.Conn, error) {
	began := time.Now()
	for {
		nc, err := connectOnce(ctx, address, options)
		if err == nil || permanent(err) {
			return nc, err
		}
		if pause(ctx, connectEvery) != nil {
			return nil, fmt.Errorf("no server can be reached after %v; tried %s: %w", time.Since(began).Round(time.Second/10), address, err)
		}
	}
}

// connectOnce tries each server once, and returns early if ctx ends.
func connectOnce(ctx context.Context, address string, options []nats.Option) (*nats.Conn, error) {
	type result struct {
		nc  *nats.Conn
		err error
	}
	done := make(chan result, 1)
	go func() {
		nc, err := nats.Connect(address, options...)
		done <- result{nc, err}
	}()
	select {
	case r := <-done:
		return r.nc, r.err
	case <-ctx.Done():
		go func() {
			if r := <-done; r.err == nil {
				r.nc.Close()
			}
		}()
		return nil, ctx.Err()
	}
}

// The function "permanent" reports whether another attempt to connect would fail in the same way.
func permanent(err error) bool {
	var (
		authority x509.UnknownAuthorityError
		host      x509.HostnameError
		invalid   x509.CertificateInvalidError
	)
	return errors.Is(err, nats.ErrAuthorization) || errors.Is(err, nats.ErrSecureConnWanted) || errors.Is(err, nats.ErrSecureConnRequired) ||
		errors.As(err, &authority) || errors.As(err, &host) || errors.As(err, &invalid)
}

// Self returns this process. It does not ask the servers. The owner is empty if no manager has opened
// the store.
func (c *Cluster) Self() Process {
	c.Store.mu.Lock()
	defer c.Store.mu.Unlock()
	return Process{Name: c.process, Owner: c.Store.meta.Owner, Lives: true}
}

// Close leaves the cluster and closes the connection. Close the manager first. If this process has taken
// over tasks of other processes, Close suspends the managers of these tasks, and another process can take
// over the tasks immediately. Each of these steps takes a limited time even if ctx has no deadline and the
// servers cannot be reached; see [bgagent.BackgroundManager.Suspend] and [Slots.Close]. The error is that
// of Slots.Close.
func (c *Cluster) Close(ctx context.Context) error {
	c.stopTakeOver(ctx)
	c.leave()
	defer c.nc.Close()
	return c.Slots.Close(ctx)
}
