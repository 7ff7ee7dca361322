package modelserver

import (
	"fmt"
	"sync"
)

// Together returns a handler that answers with h. The handler first holds back the requests that the function
// "filter" selects until n of them are waiting at the same time. Requests for which the function "by" returns
// the same value count as one. After that, the handler holds back no more requests. In this way, a test can
// have n requests open at once, regardless of how fast the programs are. A nil h means [Request.Scripted].
func Together(n int, filter func(Request) bool, by func(Request) string, h Handler) Handler {
	if n < 1 {
		panic(fmt.Sprintf("modelserver: Together needs at least one request, not %d", n))
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
