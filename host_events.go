package bgagent

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// follow runs the event stream of a client until the manager closes.
func (m *BackgroundManager) follow(cl *hostClient) {
	emit := func(e HostEvent) {
		e.Client = cl.rec.name
		m.Observe(e)
	}
	for failures := 1; m.base.Err() == nil; failures++ {
		began := time.Now()
		err := m.followOnce(cl, emit)
		emit(HostEvent{Kind: HostStreamGap})
		if errors.Is(err, errors.ErrUnsupported) {
			return
		}
		if time.Since(began) > time.Minute {
			failures = 1
		}
		if !m.sleep(min(backoff(failures), 30*time.Second)) {
			return
		}
	}
}

// followOnce calls Events on a separate goroutine. If Events ends its goroutine or ignores its
// context, this one continues.
func (m *BackgroundManager) followOnce(cl *hostClient, emit func(HostEvent)) error {
	const forever = 100 * 365 * 24 * time.Hour
	_, err := within(m.base, m, goEvents, "Events", forever, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, lookedAt(cl.events.Events(ctx, emit))
	})
	if err != nil && m.base.Err() == nil {
		m.update(func(st *state, _ int64) {
			st.logText(logStreamBroke, fmt.Sprintf("client %q", cl.rec.name), err.Error())
		})
	}
	return err
}
