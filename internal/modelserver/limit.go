package modelserver

import (
	"fmt"
	"sync"
	"time"
)

// Limited returns a handler that lets h answer up to n requests in any period of length span.
// It refuses further requests with status 429. A refusal states how long the client must wait
// until the next request is allowed. Refused requests do not count. A nil h means
// [Request.Scripted].
func Limited(n int, span time.Duration, h Handler) Handler {
	if n < 1 || span <= 0 {
		panic(fmt.Sprintf("modelserver: Limited must allow at least one request per span, not %d in %s", n, span))
	}
	if h == nil {
		h = Request.Scripted
	}
	var mu sync.Mutex
	var taken []time.Time // times of the last n accepted requests
	return func(r Request) Reply {
		mu.Lock()
		now := time.Now()
		if len(taken) == n {
			if free := taken[0].Add(span); now.Before(free) {
				mu.Unlock()
				return Reply{Error: &Error{Status: 429, RetryAfter: free.Sub(now),
					Message: fmt.Sprintf("rate limit reached: %d requests in %s", n, span)}}
			}
			taken = taken[1:]
		}
		taken = append(taken, now)
		mu.Unlock()
		return h(r)
	}
}
