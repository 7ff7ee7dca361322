// Command notify shows how a host notifies a root session that the session's tasks have ended. The
// manager calls Config.Notify, and the host prompts the session with the notice. If the session is
// in a turn, the host returns ErrBusy, and the manager calls Config.Notify again later.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/inproc"
)

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "notify:", err)
		os.Exit(1)
	}
}

// session is the host's conversation with the model that delegates.
type session struct {
	inTurn atomic.Bool
	asked  chan struct{} // receives a value when a notice is refused because a turn is running
	seen   sync.Map      // ids of the accepted notices
	inbox  chan bgagent.Notice
}

// The method "notify" implements Config.Notify: it queues the notice as the session's next prompt.
func (s *session) notify(_ context.Context, _ string, n bgagent.Notice) error {
	if s.inTurn.Load() {
		select {
		case s.asked <- struct{}{}:
		default:
		}
		return bgagent.ErrBusy // the manager calls notify again after Config.PollInterval
	}
	if _, again := s.seen.LoadOrStore(n.ID, true); !again { // a repeated notice has the same id
		s.inbox <- n
	}
	return nil
}

func run(ctx context.Context, w io.Writer) (err error) {
	// The channel "launched" is closed when all tasks have been launched. No task ends before that,
	// so the output is always the same.
	launched := make(chan struct{})
	explore := func(ctx context.Context, t *inproc.Turn) (string, error) {
		select {
		case <-launched:
			return "the answer to: " + t.Prompt.Text, nil
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	parent := &session{asked: make(chan struct{}, 1), inbox: make(chan bgagent.Notice, 1)}
	parent.inTurn.Store(true) // the model is in a turn and delegates
	m, err := bgagent.New(inproc.New(map[string]inproc.Agent{"explore": explore}), bgagent.Config{
		Notify:       parent.notify,
		Limits:       bgagent.Limits{Default: 1},
		PollInterval: 50 * time.Millisecond, // also the pause after ErrBusy
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close(context.Background())) }()

	for _, prompt := range []string{"where is it made?", "where is it used?"} {
		t, err := m.Launch(ctx, bgagent.Caller{Session: "main"}, bgagent.LaunchInput{Agent: "explore", Prompt: prompt})
		if err != nil {
			return err
		}
		fmt.Fprintln(w, "launched:", t.Description)
	}
	close(launched)
	<-parent.asked
	fmt.Fprintln(w, "the session is in a turn and gets its notice later")
	parent.inTurn.Store(false)

	select {
	case n := <-parent.inbox:
		// A real host would prompt its model with n.Text here.
		fmt.Fprintf(w, "notified of %d ends\n", len(n.Items))
		for _, item := range n.Items {
			fmt.Fprintf(w, "%s: %s\n", item.Description, item.Status)
		}
	case <-ctx.Done():
		return ctx.Err()
	}
	return m.Drain(ctx) // returns when the manager knows that the notice was accepted
}
