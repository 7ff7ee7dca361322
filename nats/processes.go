package bgnats

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bgagent/bgagent"
)

// Process is a process of a cluster.
type Process struct {
	Name  string             `json:"name"`
	Owner bgagent.StoreOwner `json:"owner"` // the manager that has the tasks of this process, or had them last
	Lives bool               `json:"lives"`

	// TakenBy is the name of the process that has taken over the tasks of this process, or "". If it is set,
	// Owner and Lives describe the process that it names. See [Cluster.TakeOver].
	TakenBy string `json:"taken_by,omitempty"`
}

// String describes the process for use in messages.
func (p Process) String() string {
	name := p.Name
	if p.TakenBy != "" {
		name += ", taken over by " + p.TakenBy + ","
	}
	return fmt.Sprintf("the process %s of the cluster (%s, process %d on %s)", name, p.Owner.Program, p.Owner.PID, p.Owner.Host)
}

// ProcessTasks are the tasks of a process, without prompts, results and metadata.
type ProcessTasks struct {
	Process
	Tasks []bgagent.Task `json:"tasks"` // tasks that have not ended come first
	More  bool           `json:"more"`  // there are further ended tasks, which the list does not contain
	Err   error          `json:"-"`     // why the list is not complete, or nil
}

// The type "other" holds what this process knows about the store of one process, which can be this
// process itself.
type other struct {
	name string
	w    wire

	mu   sync.Mutex
	kept *Store // what was read from the stream of a dead process; nil if nothing was read
}

// The type "found" extends the type "other" with the content of the message about the store. This message
// names the owner.
type found struct {
	*other
	meta meta
	err  error // why its stream cannot be read, or nil
}

func (f *found) process(lives bool) Process {
	return Process{Name: f.name, Owner: f.meta.Owner, Lives: lives, TakenBy: f.meta.Adopter}
}

// metaTime is the maximum time for reading the message about the store from one stream. Without this limit, a
// stream whose only server is down would delay the list of all processes.
const metaTime = 5 * time.Second

// processes returns all processes that have ever kept tasks in the cluster, in the order of their
// names. A stream that cannot be read does not affect the other processes.
func (c *Cluster) processes(ctx context.Context) ([]*found, error) {
	var names []string
	for {
		var page struct {
			Total   int      `json:"total"`
			Streams []string `json:"streams"`
		}
		err := c.w.patiently(ctx, func(ctx context.Context) error {
			return c.w.call(ctx, "STREAM.NAMES", map[string]any{"offset": len(names)}, &page)
		})
		if err != nil {
			return nil, fmt.Errorf("bgnats: the processes of the cluster cannot be listed: %w", err)
		}
		names = append(names, page.Streams...)
		if len(page.Streams) == 0 || len(names) >= page.Total {
			break
		}
	}
	var all []*found
	for _, stream := range names {
		if process, is := strings.CutPrefix(stream, "BGAGENT_"+storeName(c.name, "")); is && validProcess.MatchString(process) {
			all = append(all, &found{other: c.other(process)})
		}
	}
	each(all, func(_ int, f *found) error {
		ctx, cancel := context.WithTimeout(ctx, metaTime)
		defer cancel()
		if f.meta, f.err = f.w.readMeta(ctx); f.err != nil {
			f.err = fmt.Errorf("bgnats: the process %s of the cluster cannot be read: %w", f.name, f.err)
		}
		return nil
	})
	all = slices.DeleteFunc(all, func(f *found) bool {
		deleted := isCode(f.err, codeNoStream)            // the stream was deleted after the streams were listed
		return deleted || f.err == nil && f.meta.seq == 0 // the stream exists, but its first manager has not opened the store yet
	})
	slices.SortFunc(all, func(a, b *found) int { return cmp.Compare(a.name, b.name) })
	return all, nil
}

// The method "other" returns what this process knows about the named process.
func (c *Cluster) other(process string) *other {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := c.others[process]
	if o == nil {
		n, _ := namesOf(storeName(c.name, process)) // cannot fail, because both names have been checked
		o = &other{name: process, w: wire{nc: c.nc, names: n}}
		o.w.watch()
		c.others[process] = o
	}
	return o
}

// The function "each" calls f concurrently for all elements and their indices, and returns the errors.
func each[T any](all []T, f func(int, T) error) []error {
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for i := range all {
		wg.Go(func() { errs[i] = f(i, all[i]) })
	}
	wg.Wait()
	return errs
}

// Tasks returns the tasks of every process: all live tasks and, for each process, up to the given number of
// ended tasks, most recently launched first. It treats a number greater than 1000 as 1000, and a negative
// number as 0. It asks the processes that serve. If a process does not serve, or does not answer within
// three seconds, its tasks are read from the servers.
func (c *Cluster) Tasks(ctx context.Context, ended int) ([]ProcessTasks, error) {
	all, err := c.processes(ctx)
	if err != nil {
		return nil, err
	}
	ended = atMostEnded(ended)
	out := make([]ProcessTasks, len(all))
	each(all, func(i int, f *found) error {
		out[i] = f.tasks(ctx, ended)
		return nil
	})
	return out, nil
}

// listTime is the time that a process has to list its tasks before they are read from the servers.
const listTime = 3 * time.Second

func (f *found) tasks(ctx context.Context, ended int) ProcessTasks {
	if f.err != nil {
		return ProcessTasks{Process: f.process(false), Err: f.err}
	}
	var got tasksOutput
	asking, cancel := context.WithTimeout(ctx, listTime)
	err := f.ask(asking, askTasks, tasksInput{ended}, &got)
	cancel()
	out := ProcessTasks{Process: f.process(!errors.Is(err, ErrProcessDead)), Tasks: got.Tasks, More: got.More}
	var refused *answerError
	switch {
	case err == nil:
		return out
	case unasked(err):
	case errors.As(err, &refused):
		out.Err = err
		return out
	default:
		out.Err = err
	}
	kept, more, err := f.keptTasks(ctx, "", ended)
	out.Tasks, out.More, out.Err = kept, more, errors.Join(out.Err, err)
	return out
}

// The method "moved" reports whether somebody has written to the stream since it was last read. If so, the
// method also replaces f.meta with the new content.
func (f *found) moved(ctx context.Context) bool {
	m, err := f.w.readMeta(ctx)
	if err != nil || m.seq == f.meta.seq {
		return false
	}
	f.meta = m
	return true
}

// The method "repeatedly" calls the function "read" up to readTries times, until the function succeeds. It
// repeats a call only if somebody has written to the stream in the meantime.
func (f *found) repeatedly(ctx context.Context, read func() error) error {
	err := read()
	for try := 1; err != nil && try < readTries && f.moved(ctx); try++ {
		err = read()
	}
	return err
}

// keptTasks reads tasks from the servers. If root is not empty, it reads only the tasks with this root. The
// result "more" is true if there are further ended tasks. The error says which tasks are missing.
func (f *found) keptTasks(ctx context.Context, root string, ended int) (all []bgagent.Task, more bool, err error) {
	err = f.repeatedly(ctx, func() error {
		all, more, err = f.tryKeptTasks(ctx, root, ended)
		return err
	})
	return all, more, err
}

func (f *found) tryKeptTasks(ctx context.Context, root string, ended int) (all []bgagent.Task, more bool, err error) {
	kept, err := f.read(ctx)
	if err != nil {
		return nil, false, err
	}
	records, more, err := kept.page(ctx, root, ended)
	for _, r := range records {
		t, bad := bgagent.Task{}, r.err
		if bad == nil {
			t, bad = r.record.Task()
		}
		if bad != nil {
			err = errors.Join(err, bad)
			continue
		}
		t.Metadata = nil
		all = append(all, t)
	}
	return all, more, err
}

// ask sends a question to the process. The error names the process.
func (f *found) ask(ctx context.Context, verb string, in, out any) error {
	err := ErrProcessDead
	if f.meta.Token != "" {
		if err = f.w.ask(ctx, f.meta.Token, verb, in, out); errors.Is(err, ErrProcessDead) {
			err = f.w.whyUnasked(ctx, f.meta.Token)
		}
	}
	var refused *answerError
	if err == nil || errors.As(err, &refused) {
		return err
	}
	return fmt.Errorf("bgnats: %v: %w", f.process(false), err)
}

// readTries is the maximum number of attempts to read the stream of a process that was believed to be dead
// but writes to the stream.
const readTries = 3

// readTime limits how long reading the stream of a dead process can take.
const readTime = 20 * time.Second

// The method "read" returns a dead process's store, for reading only. It changes nothing in the stream. The
// result is kept until somebody writes to the stream.
func (f *found) read(ctx context.Context) (*Store, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	for try := 1; ; try++ {
		if f.kept != nil && f.kept.meta.seq == f.meta.seq {
			return f.kept, nil
		}
		s := &Store{w: wire{nc: f.w.nc, names: f.w.names}, meta: f.meta}
		s.meta.before = f.meta.seq
		s.w.watch()
		all, err := s.scan(ctx)
		if err == nil {
			s.index.install(all.entries)
			f.forget()
			f.kept = s
			continue
		}
		s.w.unwatch()
		var owned *bgagent.StoreOwnedError
		if !errors.As(err, &owned) || try == readTries {
			return nil, fmt.Errorf("bgnats: the tasks of %v cannot be read: %w", f.process(false), err)
		}
		if f.meta, err = f.w.readMeta(ctx); err != nil {
			return nil, err
		}
	}
}

// forget drops what was read. The caller holds o.mu.
func (o *other) forget() {
	if o.kept != nil {
		o.kept.w.unwatch()
		o.kept = nil
	}
}

// page reads the records of all tasks that have not ended, and of up to the given number of ended tasks, but
// at most maxEnded. If root is not empty, it reads only the tasks with this root. The result "more" is true
// if there are further ended tasks.
func (s *Store) page(ctx context.Context, root string, ended int) (out []reading, more bool, err error) {
	ended = atMostEnded(ended)
	var live []*entry
	s.index.mu.RLock()
	for e := range intact(s.index.entries) {
		if e.kind == bgagent.StoreTask && e.ended.IsZero() && (root == "" || e.root == root) {
			live = append(live, e)
		}
	}
	s.index.mu.RUnlock()
	slices.SortFunc(live, later)
	over, err := s.index.page(bgagent.StoreQuery{Root: root, Limit: ended + 1})
	if err != nil {
		return nil, false, err
	}
	if more = len(over) > ended; more {
		over = over[:ended]
	}
	out, err = s.records(ctx, append(live, over...))
	return out, more, err
}

// The method "find" returns the process that has the task. ref is the id of the task or of its session. It
// also finds the tasks of a dead process.
func (c *Cluster) find(ctx context.Context, ref string) (*found, string, error) {
	all, err := c.processes(ctx)
	if err != nil {
		return nil, "", err
	}
	f, problem := holder(ctx, all, ref)
	if f != nil {
		return f, ref, nil
	}
	for _, f := range all { // ref can be the id of a session
		if id, err := f.taskOf(ctx, ref); f.err == nil && err == nil && id != "" {
			return f, id, nil
		}
	}
	return nil, "", problem
}

// holder returns the process that has the task with the given id. Otherwise, it returns an error, which
// matches [bgagent.ErrUnknownTask] if it is certain that none of the processes has the task.
func holder(ctx context.Context, all []*found, id string) (*found, error) {
	var problems []error
	all = slices.DeleteFunc(slices.Clone(all), func(f *found) bool {
		if f.err != nil {
			problems = append(problems, f.err)
		}
		return f.err != nil
	})
	has := make([]bool, len(all)) // by process
	errs := each(all, func(i int, f *found) error {
		m, is, err := f.w.last(ctx, f.w.record(id))
		if is && err == nil && m.header.Get(headDeleted) == "" {
			has[i] = true
		}
		return err
	})
	if i := slices.Index(has, true); i >= 0 {
		return all[i], nil
	}
	if err := errors.Join(append(problems, errs...)...); err != nil { // a process that did not answer might have the task
		return nil, fmt.Errorf("bgnats: the task cannot be looked up: %w", err)
	}
	return nil, unknownTask(id)
}

// taskOf returns the id of the task that has the given session, or "".
func (f *found) taskOf(ctx context.Context, session string) (string, error) {
	var t bgagent.Task
	err := f.ask(ctx, askRead, readInput{session}, &t)
	if err == nil || !unasked(err) {
		return t.ID, err
	}
	kept, err := f.read(ctx)
	if err != nil {
		return "", err
	}
	kept.index.mu.RLock()
	defer kept.index.mu.RUnlock()
	for e := range intact(kept.index.entries) {
		if e.kind == bgagent.StoreTask && e.session == session {
			return e.key, nil
		}
	}
	return "", nil
}

// Read returns a task of any process, with its prompt and result, and also returns that process. ref is the
// id of the task or of its session. If the process is dead or does not serve, the task is read from the
// servers, in the state that was stored last.
func (c *Cluster) Read(ctx context.Context, ref string) (t bgagent.Task, p Process, err error) {
	f, id, err := c.find(ctx, ref)
	if err != nil {
		return t, p, err
	}
	err = f.ask(ctx, askRead, readInput{id}, &t)
	lives := !errors.Is(err, ErrProcessDead)
	if err == nil || !unasked(err) {
		return t, f.process(lives), err
	}
	t, err = f.keptTask(ctx, id)
	return t, f.process(lives), err
}

// keptTask reads a task of a dead process.
func (f *found) keptTask(ctx context.Context, id string) (t bgagent.Task, err error) {
	err = f.repeatedly(ctx, func() error {
		t, err = f.tryKeptTask(ctx, id)
		return err
	})
	return t, err
}

func (f *found) tryKeptTask(ctx context.Context, id string) (t bgagent.Task, err error) {
	kept, err := f.read(ctx)
	if err != nil {
		return t, err
	}
	e := kept.index.get(id)
	if e == nil {
		return t, fmt.Errorf("bgnats: task %q: %w", id, bgagent.ErrUnknownTask)
	}
	all, err := kept.records(ctx, []*entry{e})
	if err == nil {
		err = all[0].err
	}
	if err == nil {
		t, err = all[0].record.Task()
	}
	for _, text := range []struct {
		name string
		to   *string
	}{{"prompt", &t.Prompt}, {"result", &t.Result}} {
		if err != nil {
			break
		}
		if *text.to, err = kept.text(ctx, id, fmt.Sprintf("%s.%d", text.name, t.Attempt)); errors.Is(err, bgagent.ErrNoText) {
			err = nil
		}
	}
	if err != nil {
		return t, fmt.Errorf("bgnats: task %q of %v cannot be read: %w", id, f.process(false), err)
	}
	return t, nil
}

// Cancel cancels a task of any process, on behalf of the host. Like the manager's method, it returns a
// snapshot of the task, taken right before the cancellation, and it returns when the cancellation is durable.
// ref is the id of the task or of its session. If the task's process is dead, the error matches
// [ErrProcessDead], and the task can be cancelled only after the process has started again, or after another
// process has taken over its tasks.
func (c *Cluster) Cancel(ctx context.Context, ref, reason string) (t bgagent.Task, err error) {
	f, id, err := c.find(ctx, ref)
	if err == nil {
		err = f.ask(ctx, askCancel, cancelInput{id, reason}, &t)
	}
	return t, err
}

// Answer answers a question from a task of any process, on behalf of the host. ref is the id of the task or
// of its session. If the task's process is dead, the error matches [ErrProcessDead].
func (c *Cluster) Answer(ctx context.Context, ref string, in bgagent.AnswerInput) (q bgagent.Question, err error) {
	f, id, err := c.find(ctx, ref)
	if err == nil {
		err = f.ask(ctx, askAnswer, answerInput{id, in.Key, in.Option}, &q)
	}
	return q, err
}

// leave ends the cluster's subscriptions and goroutines, and stops watching its connections. It does not close
// the connections.
func (c *Cluster) leave() {
	for _, sub := range c.subs {
		_ = sub.Unsubscribe() // fails only if the connection was closed, which ends its subscriptions
	}
	c.end()
	c.work.end() // waits for answers in progress; managers that took over tasks might still get questions later, but those are ignored
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, o := range c.others {
		o.mu.Lock()
		o.forget()
		o.mu.Unlock()
		o.w.unwatch()
	}
	c.others = map[string]*other{}
	c.w.unwatch()
}
