package main

import "context"

// untilStopped returns what read returns. If ctx ends before that, it returns the cause
// at once, and read is left behind. All files that the user names are read through it,
// because opening or reading a pipe waits for another program, and that may never come.
func untilStopped[T any](ctx context.Context, read func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		value, err := read()
		done <- result{value, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		var none T
		return none, context.Cause(ctx)
	}
}
