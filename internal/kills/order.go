package kills

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"time"
)

// variable is the name of the environment variable that contains the order for the process.
const variable = "BGAGENT_KILL_ORDER"

// Order tells a process what to do.
type Order struct {
	Dir  string // folder of the log and of the store
	Life int    // number of the process
	Seed uint64
	Last bool   // whether this is the last process, which is not killed
	Kind string `json:",omitempty"` // kind of the test
	More []byte `json:",omitempty"` // data for this kind of test

	Env []string `json:"-"` // nil means the environment of this process
}

// Ordered returns the order for this process. It returns false if the process is an ordinary test.
func Ordered() (o Order, ok bool) {
	text := os.Getenv(variable)
	if text == "" {
		return o, false
	}
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		panic(err)
	}
	return o, true
}

// Host returns a host for the order and the lines of the earlier processes.
func (o Order) Host() (*Host, []Line, error) {
	lines, err := ReadLog(o.Dir)
	if err != nil {
		return nil, nil, err
	}
	log, err := OpenLog(o.Dir, o.Life)
	return &Host{Log: log, Life: o.Life, Last: o.Last, Rand: rand.New(rand.NewPCG(o.Seed, uint64(o.Life)))}, lines, err
}

// Command returns a command that runs this executable with the order.
func (o Order) Command(ctx context.Context) (*exec.Cmd, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, exe)
	if cmd.Env = o.Env; cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	cmd.Env = append(cmd.Env[:len(cmd.Env):len(cmd.Env)], variable+"="+string(text))
	return cmd, nil
}

// Kill starts a process and kills it with SIGKILL when the function "until" returns. The context
// passed to this function ends when the process has written the given number of lines, or has ended
// by itself. If the process writes to standard error, Kill returns an error.
func (o Order) Kill(ctx context.Context, lines int, until func(context.Context)) error {
	cmd, err := o.Command(ctx)
	if err != nil {
		return err
	}
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	read := make(chan struct{})
	go func() {
		defer close(read)
		_, _ = io.CopyN(io.Discard, out, int64(lines)) // returns early if the process ends first
		cancel()
		_, _ = io.Copy(io.Discard, out) // returns when the process has ended
	}()
	until(ctx)
	_ = cmd.Process.Kill() // an error means that the process has already ended, and Wait reports this
	<-read
	if err := cmd.Wait(); complaints.Len() > 0 {
		return fmt.Errorf("process %d ended without being killed: %v: %s", o.Life, err, bytes.TrimSpace(complaints.Bytes()))
	}
	return nil
}

// Finish runs the last process.
func (o Order) Finish(ctx context.Context) error {
	o.Last = true
	cmd, err := o.Command(ctx)
	if err != nil {
		return err
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("the last process: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// Sleep returns after the duration d, or as soon as the context ends.
func Sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
