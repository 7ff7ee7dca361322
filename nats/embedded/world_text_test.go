//go:build linux

package embedded_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	bgnats "github.com/bgagent/bgagent/nats"
)

const childText = "BGAGENT_NATS_TEST_TEXT" // makes the process read tasks of all processes; the value is a workerPlan

func init() { roles[childText] = runText }

// unreadableResult is the size, in bytes, of the longest result that a manager keeps if the session cannot be
// read again.
const unreadableResult = 1 << 20

// The type "mute" is a client whose sessions cannot be read. Its agent answers with a long text.
type mute struct{}

func (mute) CreateSession(_ context.Context, s bgagent.SessionSpec) (string, error) {
	return "session of " + s.Task, nil
}
func (mute) Abort(context.Context, string) error { return nil }
func (mute) RunTurn(context.Context, string, bgagent.Prompt, *bgagent.Reporter) (bgagent.TurnEnd, error) {
	return bgagent.TurnEnd{Text: text(unreadableResult)}, nil
}

// runText joins a cluster. For each id that it reads, it prints the status of the task and the checksum of
// the result. If it reads "new" instead of an id, it launches a task.
func runText(plan string) error {
	var p workerPlan
	if err := json.Unmarshal([]byte(plan), &p); err != nil {
		return err
	}
	ctx := context.Background()
	c, err := bgnats.Join(ctx, p.URL, bgnats.ClusterOptions{Process: p.Name, Lease: worldLease})
	if err != nil {
		return err
	}
	m, err := newManager(time.Minute, mute{}, bgagent.Config{Slots: c.Slots, Store: c.Store, Wake: bgagent.WakeNever}) // New fails while the servers have no leader
	if err != nil {
		return err
	}
	if err := c.Serve(m); err != nil {
		return err
	}
	fmt.Println("ready")
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		if in.Text() == "new" {
			t, err := m.Run(ctx, bgagent.Caller{}, bgagent.LaunchInput{Agent: "x", Prompt: "x"})
			fmt.Println("new", t.ID, err)
			continue
		}
		t, by, err := c.Read(ctx, in.Text())
		fmt.Println("read", t.Status, by.Name, by.Lives, t.Cut, fmt.Sprintf("%x", sha256.Sum256([]byte(t.Result))), err)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return errors.Join(m.Close(ctx), c.Close(ctx))
}

func TestAResultOf1MiBIsReadByteForByteInEveryOSProcess(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "127.0.0.1", here, workerPlan{})
	all := w.three(childText)
	id := w.tell(all[0], "new", "new")[1]
	read := func(l *life, lives bool) {
		t.Helper()
		require.Equal(t, fmt.Sprintf("read completed one %v false %x <nil>", lives, sha256.Sum256([]byte(text(unreadableResult)))), strings.Join(w.tell(l, id, "read"), " "))
	}
	for _, l := range all {
		read(l, true)
	}
	all[0].kill()
	for _, l := range all[1:] {
		read(l, false)
	}
}
