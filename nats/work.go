package bgnats

import "sync"

// work is a group of goroutines. The zero value is ready for use. Its methods are safe for concurrent use.
type work struct {
	mu    sync.Mutex
	ended bool
	wg    sync.WaitGroup
}

// The method "begin" calls f on a new goroutine. After a call to the method "end", it returns false and does
// not call f.
func (w *work) begin(f func()) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		return false
	}
	w.wg.Go(f)
	return true
}

// The method "end" makes "begin" refuse further functions, and waits for those that "begin" has started.
func (w *work) end() {
	w.mu.Lock()
	w.ended = true
	w.mu.Unlock()
	w.wg.Wait()
}
