package modelserver

import (
	"fmt"
	"sync"
	"time"
)

// Bucket is a token bucket. This is how providers usually limit requests. Each request takes a token. The
// bucket is full at first, and gets another token at regular intervals, up to its size. A Bucket is safe for
// concurrent use.
type Bucket struct {
	size  int
	every time.Duration

	mu     sync.Mutex
	tokens int
	filled time.Time // time of the last token, or of the last call that found the bucket full
}

// NewBucket returns a bucket that holds up to "size" tokens, and that gets a token each time the
// duration "every" has passed.
func NewBucket(size int, every time.Duration) *Bucket {
	if size < 1 || every <= 0 {
		panic(fmt.Sprintf("modelserver: a bucket must hold at least one token and get tokens, not %d, %s", size, every))
	}
	return &Bucket{size: size, every: every, tokens: size}
}

// Take takes a token and returns 0. If there is none, Take returns the time until the next token. Successive
// calls must not pass decreasing times.
func (b *Bucket) Take(now time.Time) (wait time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := int(now.Sub(b.filled) / b.every)
	b.filled = b.filled.Add(time.Duration(n) * b.every)
	if b.tokens = min(b.tokens+n, b.size); b.tokens == b.size { // the interval before the next token begins when a token is taken
		b.filled = now
	}
	if b.tokens == 0 {
		return b.filled.Add(b.every).Sub(now)
	}
	b.tokens--
	return 0
}

// Limit returns a handler that lets h answer the requests that get a token. It refuses the others with status
// 429. Refusals are numbered from 1. The function "tells" gets this number and decides whether the refusal
// contains the time until the next token. If "tells" is nil, every refusal contains this time. A nil h
// means [Request.Scripted].
func (b *Bucket) Limit(h Handler, tells func(refusal int) bool) Handler {
	if h == nil {
		h = Request.Scripted
	}
	var mu sync.Mutex
	refusals := 0
	return func(r Request) Reply {
		wait := b.Take(time.Now())
		if wait == 0 {
			return h(r)
		}
		mu.Lock()
		refusals++
		n := refusals
		mu.Unlock()
		e := &Error{Status: 429, Message: fmt.Sprintf("rate limit reached: a request every %s", b.every)}
		if tells == nil || tells(n) {
			e.RetryAfter = wait
		}
		return Reply{Error: e}
	}
}
