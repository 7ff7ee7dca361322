package bgagent

import "context"

// BackgroundManager stub; replaced.
type BackgroundManager struct{}

func New(client SessionClient, cfg Config) (*BackgroundManager, error) { panic("stub") }
func (m *BackgroundManager) Launch(ctx context.Context, by Caller, in LaunchInput) (Task, error) {
	panic("stub")
}
func (m *BackgroundManager) Run(ctx context.Context, by Caller, in LaunchInput) (Task, error) {
	panic("stub")
}
func (m *BackgroundManager) Resume(ctx context.Context, by Caller, ref string, in ResumeInput) (Task, error) {
	panic("stub")
}

// RunResume is Resume in the foreground, as Run is Launch in the foreground.
func (m *BackgroundManager) RunResume(ctx context.Context, by Caller, ref string, in ResumeInput) (Task, error) {
	panic("stub")
}
func (m *BackgroundManager) Wait(ctx context.Context, by Caller, mode WaitMode, ids ...string) ([]Task, error) {
	panic("stub")
}

// WaitIdle waits until nothing that descends from the session is live.
func (m *BackgroundManager) Quiet(ctx context.Context, id string) error { panic("stub") }
func (m *BackgroundManager) Cancel(ctx context.Context, by Caller, id string, o CancelOptions) (Task, error) {
	panic("stub")
} // the task as it was right before
func (m *BackgroundManager) CancelAll(ctx context.Context, by Caller, o CancelOptions) ([]Task, error) {
	panic("stub")
}                                                          // as they were right before
func (m *BackgroundManager) SessionDeleted(session string) {}
func (m *BackgroundManager) Get(id string) (Task, error)   { panic("stub") }

// Read is Get on behalf of a caller: ErrNotDescendant; when the caller is the parent and the task has ended its notice counts as read.
func (m *BackgroundManager) Read(by Caller, id string) (Task, error) { panic("stub") }
func (m *BackgroundManager) List(q Query) []Task                     { panic("stub") }

// Messages reads the conversation of a task's session (for full_session). errors.ErrUnsupported when the client cannot.
func (m *BackgroundManager) Messages(ctx context.Context, by Caller, id string, after Cursor, max int) (Page, error) {
	panic("stub")
}
func (m *BackgroundManager) Outstanding(session string) (live, owed int) { panic("stub") }
func (m *BackgroundManager) NextNotice(ctx context.Context, session string) (Notice, error) {
	panic("stub")
}

// TakeNotice takes everything owed to the session now, without waiting.
func (m *BackgroundManager) TakeNotice(session string) (Notice, bool) { panic("stub") }

// Digest describes the tasks of a session in at most max bytes, for use after a compaction.
func (m *BackgroundManager) Digest(session string, max int) string        { panic("stub") }
func (m *BackgroundManager) Subscribe(buffer int) ([]Task, *Subscription) { panic("stub") }
func (m *BackgroundManager) Observe(e HostEvent)                          {}
func (m *BackgroundManager) Concurrency() *ConcurrencyManager             { panic("stub") }
func (m *BackgroundManager) Drain(ctx context.Context) error              { panic("stub") }
func (m *BackgroundManager) Close(ctx context.Context) error              { panic("stub") }

// Subscription stub.
type Subscription struct{}

// Next returns the next event, io.EOF after Close of the subscription or the manager.
func (s *Subscription) Next(ctx context.Context) (Event, error) { panic("stub") }
func (s *Subscription) Close()                                  {}

type callerKey struct{}

// WithCaller returns a context that carries the caller, for ToolDef.Call and for agents that run in the process.
func WithCaller(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// CallerFrom returns the caller that ctx carries.
func CallerFrom(ctx context.Context) (Caller, bool) {
	c, ok := ctx.Value(callerKey{}).(Caller)
	return c, ok
}
