package opencode

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"

	"github.com/bgagent/bgagent"
)

// lookups is the maximum number of sessions that are fetched concurrently.
const lookups = 8

// Statuses implements [bgagent.TurnStarter]. The answer to a request lists the busy sessions of
// one directory. Sessions that are not in such a list are fetched one by one, to distinguish an
// idle session from a session that does not exist. Sessions whose status could not be determined
// are missing from the result. Statuses returns an error only if it could not determine any
// status.
func (c *Client) Statuses(ctx context.Context, ids []string) (map[string]bgagent.SessionStatus, error) {
	q := statusQuery{c: c, out: make(map[string]bgagent.SessionStatus, len(ids)), fresh: map[string]bool{}}
	byDir, unknown := map[string][]string{}, []string{}
	c.mu.Lock()
	for _, id := range ids {
		if s := c.sessions[id]; s != nil && s.dir != "" {
			byDir[s.dir] = append(byDir[s.dir], id)
		} else {
			unknown = append(unknown, id)
		}
	}
	c.mu.Unlock()
	found := q.lookUp(ctx, unknown)
	for id, w := range found {
		byDir[w.Directory] = append(byDir[w.Directory], id)
		q.fresh[id] = true
	}
	var wg sync.WaitGroup
	var absent []string
	for dir, list := range byDir {
		wg.Go(func() {
			rest := q.directory(ctx, dir, list)
			q.mu.Lock()
			defer q.mu.Unlock()
			absent = append(absent, rest...)
		})
	}
	wg.Wait()
	for id := range q.lookUp(ctx, absent) {
		q.set(id, bgagent.SessionStatus{State: bgagent.SessionIdle})
		c.keepsUp(id)
		c.mu.Lock()
		if s := c.sessions[id]; s != nil && s.awaited == "" {
			c.rests(s)
		}
		c.mu.Unlock()
	}
	if len(q.out) == 0 && len(q.errs) > 0 {
		return nil, fmt.Errorf("asking for statuses: %w", errors.Join(q.errs[0]))
	}
	return q.out, nil
}

// statusQuery is one call to Statuses.
type statusQuery struct {
	c     *Client
	fresh map[string]bool // sessions that this call has already fetched

	mu   sync.Mutex
	out  map[string]bgagent.SessionStatus
	errs []error
}

func (q *statusQuery) set(id string, s bgagent.SessionStatus) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.out[id] = s
}

func (q *statusQuery) fail(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.errs = append(q.errs, err)
}

// lookUp returns the sessions that exist, and sets the status of those that do not exist to
// SessionGone. If it cannot find out whether a session exists, it only records the error.
func (q *statusQuery) lookUp(ctx context.Context, ids []string) map[string]wireSession {
	found := map[string]wireSession{}
	gate := make(chan struct{}, lookups)
	var wg sync.WaitGroup
	var ask []string
	for _, id := range ids {
		if q.fresh[id] {
			found[id] = wireSession{}
		} else {
			ask = append(ask, id)
		}
	}
	for _, id := range ask {
		gate <- struct{}{}
		wg.Go(func() {
			defer func() { <-gate }()
			w, err := q.c.fetch(ctx, id)
			q.mu.Lock()
			defer q.mu.Unlock()
			switch {
			case err == nil:
				found[id] = w
			case errors.Is(err, bgagent.ErrNoSession):
				q.out[id] = bgagent.SessionStatus{State: bgagent.SessionGone}
			default:
				q.errs = append(q.errs, err)
			}
		})
	}
	wg.Wait()
	return found
}

// directory requests the statuses of the sessions in one directory from the server. It returns the
// sessions that are absent from the answer or idle.
func (q *statusQuery) directory(ctx context.Context, dir string, ids []string) (absent []string) {
	var busy map[string]wireStatus
	if err := q.c.do(ctx, call{method: http.MethodGet, path: "/session/status", dir: dir, out: &busy}); err != nil {
		q.fail(err)
		return nil
	}
	for id := range busy {
		if !isSession(id) { // the answer is not a list of statuses, so it does not show that the sessions are idle
			q.fail(&ServerError{URL: q.c.base, Status: http.StatusOK, Detail: "the answer is not a list of statuses", Advice: adviceNotOpencode})
			return nil
		}
	}
	asking := false
	for _, id := range ids {
		w, ok := busy[id]
		if !ok || w.Type == "idle" {
			absent = append(absent, id)
			continue
		}
		asking = true
		q.set(id, w.status())
		q.c.mu.Lock()
		if s := q.c.sessions[id]; s != nil {
			q.c.works(s, w)
		}
		q.c.mu.Unlock()
	}
	if !asking {
		return absent
	}
	q.c.mu.Lock()
	up := q.c.stream
	q.c.mu.Unlock()
	if !up { // without a stream, the client has to request the questions
		q.c.findAsks(ctx, dir)
	}
	for _, id := range ids {
		if question := q.c.asked(id); question != "" {
			q.mu.Lock()
			if q.out[id].State == bgagent.SessionBusy {
				q.out[id] = bgagent.SessionStatus{State: bgagent.SessionAsking, Detail: question}
			}
			q.mu.Unlock()
		}
	}
	return absent
}
