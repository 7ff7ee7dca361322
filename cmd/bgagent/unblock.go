package main

import "context"

// untilStopped calls the function "read" and returns its results. If ctx ends first, untilStopped
// immediately returns the cause and does not wait for the function. It is used to open and read lists,
// prompt files, secrets and logs. They can be pipes, and opening or reading a pipe waits for another
// program, which might never write.
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
