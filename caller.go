package bgagent

import "context"

type callerKey struct{}

// WithCaller returns a context that carries the caller. It is for [ToolDef.Call], and for agents
// that run in the process and call the tools themselves.
func WithCaller(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// CallerFrom returns the caller that ctx carries.
func CallerFrom(ctx context.Context) (Caller, bool) {
	c, ok := ctx.Value(callerKey{}).(Caller)
	return c, ok
}
