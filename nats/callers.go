package bgnats

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/bgagent/bgagent"
)

// Callers gives this process's callers access to their tasks in the other processes of the cluster. A caller
// is the root of its tasks. A process treats a caller of another process as its own caller of the same name
// only if both processes have the same secret for this caller. Therefore, a caller finds only what it could
// also find by calling the other process directly.
//
// The tasks of a process that is dead or does not answer are read from the servers, but only if the process
// has confirmed the caller since it last opened its store. A process that has taken over these tasks serves
// only callers that the dead process had confirmed to it. For any other task, the error matches
// [bgagent.ErrUnknownTask].
//
// The methods are safe for concurrent use.
type Callers struct {
	c      *Cluster
	proofs map[string][]string // by caller name
	waits  chan struct{}       // contains an element for each question that waits for the end of a task
	asked  chan struct{}       // closed when the processes have been asked for the first time to confirm the callers

	mu        sync.Mutex
	confirmed map[string]confirmation // by process name
}

// confirmation contains the callers that a process has confirmed since it opened its store.
type confirmation struct {
	run   string // value of meta.Run; the confirmation is valid only for this run
	names map[string]bool
}

// CallerTask is a task of another process.
type CallerTask struct {
	Task    bgagent.Task
	Process Process

	// If the process has not answered, Task is in the state that was stored last, and Err is the reason. It
	// matches [ErrProcessDead], [ErrNotServing] or [ErrUnanswered]. If the process has answered, Err is nil.
	Err error
}

const (
	// callerTime is the time that a process has to answer before its tasks are read from the servers.
	callerTime = listTime
	// maxCallerWait is the maximum time for which a process lets a request wait for the end of a task.
	maxCallerWait = 10 * time.Second
	// maxCallerWaits is the maximum number of requests that wait in a process at the same time.
	maxCallerWaits = 32
	// confirmEvery is the pause before the other processes are asked again to confirm the callers.
	confirmEvery = 10 * time.Second
)

// These questions are asked on behalf of callers. Their names differ from those of the questions asked on
// behalf of the host. Otherwise, a process that runs an earlier version would answer them with the host's
// rights.
const (
	askCallers      = "callers"
	askCallerTasks  = "caller-tasks"
	askCallerRead   = "caller-read"
	askCallerCancel = "caller-cancel"
	askCallerAnswer = "caller-answer"
)

// callerInput is a question on behalf of a caller. Each kind of question uses some of the fields after Proofs.
type callerInput struct {
	Caller string   `json:"caller"`
	Proofs []string `json:"proofs"` // one proof for each secret of the caller

	ID     string `json:"id,omitempty"`
	Ended  int    `json:"ended,omitempty"`
	Wait   int64  `json:"wait,omitempty"` // milliseconds
	Key    string `json:"key,omitempty"`
	Option string `json:"option,omitempty"`
}

// proofOf returns what a process shows to others to prove that it knows the secret of a caller.
func proofOf(cluster, caller, secret string) string {
	h := hmac.New(sha256.New, []byte(secret))
	fmt.Fprintf(h, "bgagent caller %q %q", cluster, caller)
	return hex.EncodeToString(h.Sum(nil))
}

// ServeCallers lets callers use their tasks in all processes of the cluster. secrets maps the names of this
// process's callers to their secrets, for example their bearer tokens. Call it once, after [Cluster.Serve].
// In the background, this process repeatedly asks the other processes to confirm the callers. The first round
// takes at most three seconds.
func (c *Cluster) ServeCallers(secrets map[string][]string) (*Callers, error) {
	k := &Callers{c: c, proofs: map[string][]string{}, confirmed: map[string]confirmation{}, waits: make(chan struct{}, maxCallerWaits), asked: make(chan struct{})}
	for name, all := range secrets {
		for _, secret := range all {
			if name == "" || secret == "" {
				return nil, &bgagent.InputError{Field: "secrets", Problem: "contains an empty name or secret"}
			}
			k.proofs[name] = append(k.proofs[name], proofOf(c.name, name, secret))
		}
	}
	if len(k.proofs) == 0 || !c.work.begin(k.keepConfirmed) {
		close(k.asked)
	}
	c.callers.Store(k)
	return k, nil
}

// The method "knows" reports whether this process has a caller with this name and one of the secrets.
func (k *Callers) knows(caller string, proofs []string) bool {
	return slices.ContainsFunc(k.proofs[caller], func(own string) bool {
		return slices.ContainsFunc(proofs, func(p string) bool { return hmac.Equal([]byte(own), []byte(p)) })
	})
}

// callerAnswers answers the questions that other processes ask on behalf of their callers. The questions
// concern the tasks of one manager.
type callerAnswers struct {
	c    *Cluster
	m    *bgagent.BackgroundManager
	only map[string]bool // callers that may have access; nil if there is no restriction
}

// check returns an error unless the caller is known and may have access.
func (a callerAnswers) check(caller string, proofs []string) error {
	k := a.c.callers.Load()
	switch {
	case k == nil:
		return ErrNotServing
	case a.only != nil && !a.only[caller], !k.knows(caller, proofs):
		return bgagent.ErrUnknownTask
	}
	return nil
}

// task returns a task of the caller with its prompt and result.
func (a callerAnswers) task(in callerInput) (t bgagent.Task, err error) {
	if err = a.check(in.Caller, in.Proofs); errors.Is(err, ErrNotServing) {
		return t, err
	}
	if err == nil {
		t, err = read(a.m, in.ID)
	}
	if err != nil || t.ID != in.ID || t.Root != in.Caller {
		return bgagent.Task{}, unknownTask(in.ID) // the same error in all cases, so that a caller cannot detect that another caller's task exists
	}
	t.Metadata = nil
	return t, nil
}

// await is like the method "task", but first waits for the end of the task for a limited time. If too many
// questions are already waiting, it does not wait.
func (a callerAnswers) await(ctx context.Context, in callerInput) (bgagent.Task, error) {
	t, err := a.task(in)
	if err != nil || in.Wait <= 0 || t.Status.Terminal() {
		return t, err
	}
	waits := a.c.callers.Load().waits
	select {
	case waits <- struct{}{}:
	default:
		return t, nil
	}
	defer func() { <-waits }()
	ctx, cancel := context.WithTimeout(ctx, min(time.Duration(in.Wait)*time.Millisecond, maxCallerWait))
	defer cancel()
	if _, err := a.m.Wait(ctx, bgagent.Caller{}, bgagent.WaitAny, in.ID); err != nil && ctx.Err() == nil {
		return t, nil
	}
	return a.task(in)
}

// The method "questions" returns, for the name of each question, the function that answers it.
func (a callerAnswers) questions() map[string]func(context.Context, []byte) (any, error) {
	return map[string]func(context.Context, []byte) (any, error){
		askCallers: question(func(_ context.Context, proofs map[string][]string) (names []string, _ error) {
			for name, proofs := range proofs {
				switch err := a.check(name, proofs); {
				case err == nil:
					names = append(names, name)
				case errors.Is(err, ErrNotServing):
					return nil, err
				}
			}
			return names, nil
		}),
		askCallerTasks: question(func(ctx context.Context, in callerInput) (out tasksOutput, err error) {
			if err := a.check(in.Caller, in.Proofs); err != nil {
				return out, err
			}
			return tasksOf(ctx, a.m, bgagent.Query{Under: in.Caller}, in.Ended)
		}),
		askCallerRead: question(func(ctx context.Context, in callerInput) (bgagent.Task, error) {
			return a.await(ctx, in)
		}),
		askCallerCancel: question(func(ctx context.Context, in callerInput) (bgagent.Task, error) {
			if t, err := a.task(in); err != nil {
				return t, err
			}
			return a.m.Cancel(ctx, bgagent.Caller{Session: in.Caller}, in.ID, bgagent.CancelOptions{})
		}),
		askCallerAnswer: question(func(ctx context.Context, in callerInput) (bgagent.Question, error) {
			if _, err := a.task(in); err != nil {
				return bgagent.Question{}, err
			}
			return a.m.Answer(ctx, bgagent.Caller{Session: in.Caller}, in.ID, bgagent.AnswerInput{Key: in.Key, Option: in.Option})
		}),
	}
}

func unknownTask(id string) error {
	return fmt.Errorf("bgnats: task %q: %w", id, bgagent.ErrUnknownTask)
}

// keepConfirmed asks the other processes repeatedly to confirm the callers, until this process leaves the
// cluster.
func (k *Callers) keepConfirmed() {
	k.confirmAll()
	close(k.asked)
	for pause(k.c.life, confirmEvery) == nil {
		k.confirmAll()
	}
}

// confirmAll asks the other processes to confirm the callers. It ignores processes that do not answer.
func (k *Callers) confirmAll() {
	ctx, cancel := context.WithTimeout(k.c.life, callerTime)
	defer cancel()
	all, err := k.others(ctx)
	if err != nil {
		return
	}
	each(all, func(_ int, f *found) error {
		var names []string
		if f.err == nil && f.ask(ctx, askCallers, k.proofs, &names) == nil {
			k.confirm(f, names...)
		}
		return nil
	})
	k.forgetOthers(all)
}

// confirm records that the process has confirmed the callers. If another process has taken over its tasks,
// confirm records nothing, because the answer came from that other process, which cannot confirm callers on
// behalf of the first.
func (k *Callers) confirm(f *found, names ...string) {
	if f.meta.Adopter != "" {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if x, is := k.confirmed[f.name]; !is || x.run != f.meta.Run {
		k.confirmed[f.name] = confirmation{f.meta.Run, map[string]bool{}}
	}
	for _, name := range names {
		k.confirmed[f.name].names[name] = true
	}
}

// forgetOthers forgets the confirmations of processes whose streams no longer exist.
func (k *Callers) forgetOthers(all []*found) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for name := range k.confirmed {
		if !slices.ContainsFunc(all, func(f *found) bool { return f.name == name }) {
			delete(k.confirmed, name)
		}
	}
}

// confirmedBy returns the callers that the process has confirmed since it last opened its store. It first
// waits, for at most callerTime, until the first round of questions to the processes is over. The result is
// not nil. The receiver can be nil.
func (k *Callers) confirmedBy(f *found) map[string]bool {
	all := map[string]bool{}
	if k == nil || f.err != nil || f.meta.Run == "" {
		return all
	}
	<-k.asked
	k.mu.Lock()
	defer k.mu.Unlock()
	if x := k.confirmed[f.name]; x.run == f.meta.Run {
		maps.Copy(all, x.names)
	}
	return all
}

// others returns all processes of the cluster except this one.
func (k *Callers) others(ctx context.Context) ([]*found, error) {
	all, err := k.c.processes(ctx)
	return slices.DeleteFunc(all, func(f *found) bool { return f.name == k.c.process }), err
}

// ask sends a question on behalf of a caller. The result "answered" is false if the process does not answer
// or does not serve. If the process answers with an error, the error matches the same errors as in that
// process. If the process does not answer and has not confirmed the caller, the error matches
// [bgagent.ErrUnknownTask].
func (k *Callers) ask(ctx context.Context, f *found, verb string, in callerInput, out any) (answered bool, err error) {
	in.Proofs = k.proofs[in.Caller]
	err = f.ask(ctx, verb, in, out)
	var refused *answerError
	switch {
	case err == nil:
		k.confirm(f, in.Caller)
		return true, nil
	case errors.Is(err, bgagent.ErrUnknownTask):
		return true, unknownTask(in.ID)
	case errors.As(err, &refused) && !errors.Is(err, ErrNotServing):
		return true, err
	case !k.confirmedBy(f)[in.Caller]:
		return false, unknownTask(in.ID)
	}
	return false, err
}

// Tasks returns the caller's tasks in the other processes, without prompts and results. It returns all tasks
// that have not ended and, for each process, up to the given number of ended tasks, most recently launched
// first. It treats a number greater than 1000 as 1000, and a negative number as 0. A process has three
// seconds to answer before its tasks are read from the servers. The error says which tasks might be missing.
func (k *Callers) Tasks(ctx context.Context, caller string, ended int) ([]CallerTask, error) {
	if len(k.proofs[caller]) == 0 {
		return nil, nil
	}
	all, err := k.others(ctx)
	if err != nil {
		return nil, err
	}
	ended = atMostEnded(ended)
	tasks := make([][]CallerTask, len(all))
	errs := each(all, func(i int, f *found) (err error) {
		tasks[i], err = k.tasks(ctx, f, caller, ended)
		return err
	})
	return slices.Concat(tasks...), errors.Join(errs...)
}

func (k *Callers) tasks(ctx context.Context, f *found, caller string, ended int) (out []CallerTask, err error) {
	if f.err != nil {
		return nil, f.err
	}
	var got tasksOutput
	asking, cancel := context.WithTimeout(ctx, callerTime)
	answered, why := k.ask(asking, f, askCallerTasks, callerInput{Caller: caller, Ended: ended}, &got)
	cancel()
	switch {
	case errors.Is(why, bgagent.ErrUnknownTask):
		return nil, nil
	case answered:
		err, why = why, nil // an answer can contain both tasks and an error
	default:
		got.Tasks, _, err = f.keptTasks(ctx, caller, ended)
	}
	for _, t := range got.Tasks {
		if t.Root == caller {
			t.Prompt, t.Result = "", ""
			out = append(out, CallerTask{t, f.process(!errors.Is(why, ErrProcessDead)), why})
		}
	}
	return out, err
}

// holder returns the other process that has the task.
func (k *Callers) holder(ctx context.Context, caller, id string) (*found, error) {
	if len(k.proofs[caller]) == 0 {
		return nil, unknownTask(id)
	}
	all, err := k.others(ctx)
	if err != nil {
		return nil, err
	}
	return holder(ctx, all, id)
}

// Read returns a task of the caller with its prompt and result. If the task has not ended, Read waits up to
// the given time for it to end, but at most ten seconds.
func (k *Callers) Read(ctx context.Context, caller, id string, wait time.Duration) (out CallerTask, err error) {
	f, err := k.holder(ctx, caller, id)
	if err != nil {
		return out, err
	}
	wait = min(max(wait, 0), maxCallerWait)
	asking, cancel := context.WithTimeout(ctx, wait+callerTime)
	answered, err := k.ask(asking, f, askCallerRead, callerInput{Caller: caller, ID: id, Wait: wait.Milliseconds()}, &out.Task)
	cancel()
	if !answered && !errors.Is(err, bgagent.ErrUnknownTask) {
		out.Err = err
		out.Task, err = f.keptTask(ctx, id)
		out.Task.Metadata = nil
	}
	if err == nil && (out.Task.ID != id || out.Task.Root != caller) {
		err = unknownTask(id)
	}
	if err != nil {
		return CallerTask{}, err
	}
	out.Process = f.process(!errors.Is(out.Err, ErrProcessDead))
	return out, nil
}

// Cancel cancels one of the caller's tasks, and returns a snapshot of the task, taken right before the
// cancellation. If the request can still take effect, the error matches [bgagent.ErrUncertain].
func (k *Callers) Cancel(ctx context.Context, caller, id string) (t bgagent.Task, err error) {
	err = k.change(ctx, askCallerCancel, callerInput{Caller: caller, ID: id}, &t)
	return t, err
}

// Answer answers a question from one of the caller's tasks, with the caller's rights. If the request can
// still take effect, the error matches [bgagent.ErrUncertain].
func (k *Callers) Answer(ctx context.Context, caller, id string, in bgagent.AnswerInput) (q bgagent.Question, err error) {
	err = k.change(ctx, askCallerAnswer, callerInput{Caller: caller, ID: id, Key: in.Key, Option: in.Option}, &q)
	return q, err
}

func (k *Callers) change(ctx context.Context, verb string, in callerInput, out any) error {
	f, err := k.holder(ctx, in.Caller, in.ID)
	if err != nil {
		return err
	}
	answered, err := k.ask(ctx, f, verb, in, out)
	if !answered && !errors.Is(err, bgagent.ErrUnknownTask) {
		if t, bad := f.keptTask(ctx, in.ID); bad == nil && t.Root != in.Caller {
			return unknownTask(in.ID)
		}
	}
	if errors.Is(err, ErrUnanswered) {
		err = fmt.Errorf("%w: %w", bgagent.ErrUncertain, err)
	}
	return err
}
