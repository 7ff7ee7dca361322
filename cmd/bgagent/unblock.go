package main

import "context"

// untilStopped calls read and returns its results. If ctx ends first, untilStopped returns the
// cause at once and does not wait for read. Lists, prompt files, secrets and logs can be pipes.
// They are opened and read through untilStopped, because opening or reading a pipe waits for
// another program, which might never write.
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
