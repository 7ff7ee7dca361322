package peers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/bench"
	bgnats "github.com/bgagent/bgagent/nats"
	"github.com/bgagent/bgagent/nats/embedded"
)

// errNoPostgres means that no Postgres is installed.
var errNoPostgres = errors.New("the programs initdb and postgres are not installed")

// postgres is a running server with the default settings, so it syncs every commit.
type postgres struct {
	cmd *exec.Cmd
	dir string // folder of the server's socket
}

// startPostgres starts a server in a new folder. It does not listen on the network.
func startPostgres(dir string) (*postgres, error) {
	for _, program := range []string{"initdb", "postgres"} {
		if _, err := exec.LookPath(program); err != nil {
			return nil, errNoPostgres
		}
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	attributes := &syscall.SysProcAttr{}
	if os.Geteuid() == 0 { // the programs refuse to run as root
		if attributes.Credential, err = ordinaryUser(); err != nil {
			return nil, err
		}
		// The socket needs a short path, and the account that runs the programs must be able to reach the folder.
		if dir, err = os.MkdirTemp("", "pg"); err != nil {
			return nil, err
		}
		if err := os.Chown(dir, int(attributes.Credential.Uid), int(attributes.Credential.Gid)); err != nil {
			return nil, err
		}
	} else if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	command := func(name string, args ...string) *exec.Cmd {
		cmd := exec.Command(name, args...)
		cmd.Dir, cmd.SysProcAttr = dir, attributes
		return cmd
	}
	data := filepath.Join(dir, "data")
	if out, err := command("initdb", "-D", data, "-U", "bench", "-A", "trust", "-E", "UTF8").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w: %s", err, out)
	}
	p := &postgres{command("postgres", "-D", data, "-k", dir, "-c", "listen_addresses=", "-c", "log_min_messages=fatal"), dir}
	return p, p.cmd.Start()
}

// ordinaryUser returns the account "postgres", which the Debian package creates, or else "nobody".
func ordinaryUser() (*syscall.Credential, error) {
	u, err := user.Lookup("postgres")
	if err != nil {
		if u, err = user.Lookup("nobody"); err != nil {
			return nil, err
		}
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, err
}

// The method "connect" waits until the server accepts connections.
func (p *postgres) connect(ctx context.Context) (*pgxpool.Pool, error) {
	pool, err := pgxpool.New(ctx, "host="+p.dir+" user=bench dbname=postgres pool_max_conns=20")
	for over := time.Now().Add(time.Minute); err == nil; time.Sleep(50 * time.Millisecond) {
		if err = pool.Ping(ctx); err == nil || time.Now().After(over) {
			break
		}
		err = nil
	}
	return pool, err
}

// syncsFully returns an error if the server does not sync every commit.
func (p *postgres) syncsFully(ctx context.Context, pool *pgxpool.Pool) error {
	for _, setting := range []string{"fsync", "synchronous_commit"} {
		var value string
		if err := pool.QueryRow(ctx, "SHOW "+setting).Scan(&value); err != nil {
			return err
		}
		if value != "on" {
			return fmt.Errorf("the setting %s is %s, not on", setting, value)
		}
	}
	return nil
}

func (p *postgres) stop() error {
	_ = p.cmd.Process.Signal(os.Interrupt) // a fast shutdown
	return errors.Join(p.cmd.Wait(), os.RemoveAll(p.dir))
}

// riverOnPostgres are River jobs in Postgres.
type riverOnPostgres struct {
	riverJobs[pgx.Tx]
	server *postgres
	pool   *pgxpool.Pool
}

func openRiverOnPostgres(dir string, inFlight int) (system, error) {
	ctx := context.Background()
	server, err := startPostgres(dir)
	if err != nil {
		return nil, err
	}
	r := &riverOnPostgres{server: server}
	if r.pool, err = server.connect(ctx); err != nil {
		return nil, errors.Join(err, server.stop())
	}
	driver := riverpgxv5.New(r.pool)
	migrator, err := rivermigrate.New(driver, nil)
	if err == nil {
		_, err = migrator.Migrate(ctx, rivermigrate.DirectionUp, nil)
	}
	if err == nil {
		r.client, err = river.NewClient(driver, riverConfig(inFlight))
	}
	if err == nil {
		r.ended, _ = r.client.SubscribeConfig(riverEnds())
		err = r.client.Start(ctx)
	}
	if err != nil {
		r.pool.Close()
		return nil, errors.Join(err, server.stop())
	}
	return r, nil
}

func (r *riverOnPostgres) close() error {
	err := errors.Join(r.server.syncsFully(context.Background(), r.pool), r.client.Stop(context.Background()))
	r.pool.Close()
	return errors.Join(err, r.server.stop())
}

// ownOnNATS stands for bgagent with a store on JetStream, and with slots that other processes could share.
// The server runs inside this process and syncs every write.
type ownOnNATS struct {
	own
	server *embedded.Server
	nc     *nats.Conn
	slots  *bgnats.Slots
}

func openOwnOnNATS(dir string, inFlight int) (system, error) {
	ctx := context.Background()
	server, err := embedded.Start(embedded.Options{Dir: dir, Listen: "127.0.0.1:0"})
	if err != nil {
		return nil, err
	}
	o := ownOnNATS{server: server}
	if o.nc, err = nats.Connect(server.URL(), nats.MaxReconnects(-1)); err != nil {
		return nil, errors.Join(err, server.Close())
	}
	o.slots, err = bgnats.NewSlots(ctx, o.nc, "bench", bgnats.SlotOptions{Limits: bgagent.Limits{Default: inFlight}})
	if err == nil {
		o.StoreTasks, err = bench.NewStoreTasks(bgagent.Config{
			Store: bgnats.NewStore(o.nc, "bench", bgnats.StoreOptions{Grace: -1, KeepFor: -1, KeepTasks: -1, KeepBytes: -1}), Slots: o.slots,
		})
	}
	if err != nil {
		o.nc.Close()
		return nil, errors.Join(err, server.Close())
	}
	return o, nil
}

func (o ownOnNATS) close() error {
	err := errors.Join(o.own.close(), o.slots.Close(context.Background()))
	o.nc.Close()
	return errors.Join(err, o.server.Close())
}
