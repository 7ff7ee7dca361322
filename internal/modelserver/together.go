package modelserver

import (
	"fmt"
	"sync"
)

// Together returns a handler that answers with h, except that the requests that
// filter picks wait until n of them are there at once, told apart by what by
// returns. From then on nobody waits any more. It makes a test exact that wants to
// see so many at the model at the same time, however slow the programs are that
// ask. A nil h is [Request.Scripted].
func Together(n int, filter func(Request) bool, by func(Request) string, h Handler) Handler {
	if n < 1 {
		panic(fmt.Sprintf("modelserver: Together takes at least one request, not %d", n))
	}
	if h == nil {
		h = Request.Scripted
	}
	var mu sync.Mutex
	here := map[string]int{}
	met := make(chan struct{})
	open := sync.OnceFunc(func() { close(met) })
	wait := func(r Request) {
		key := by(r)
		mu.Lock()
		if here[key]++; len(here) == n {
			open()
		}
		mu.Unlock()
		select {
		case <-met:
		case <-r.Context().Done():
		}
		mu.Lock()
		defer mu.Unlock()
		if here[key]--; here[key] == 0 {
			delete(here, key)
		}
	}
	return func(r Request) Reply {
		if filter(r) {
			wait(r)
		}
		return h(r)
	}
}
