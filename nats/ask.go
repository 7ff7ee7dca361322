package bgnats

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/bgagent/bgagent"
)

// The processes of a cluster ask each other on the subjects that [names.ask] returns. A question and
// an answer are JSON. An answer can be longer than a message, so it is split into pieces.

// headPiece is the header of a piece of an answer: its number, counted from 0, and the number of
// pieces.
const headPiece = "Bgagent-Piece"

// answerTime is how long a process waits for another process's answer. workTime is how long the other process
// may work on the answer. workTime is shorter than answerTime, so that an error can still be sent.
const (
	answerTime = 30 * time.Second
	workTime   = 25 * time.Second
)

// maxAsked is the maximum number of questions that a process answers at the same time. Further
// questions wait.
const maxAsked = 64

// maxEnded is the maximum number of ended tasks that an answer contains for one process.
const maxEnded = 1000

// atMostEnded returns the number of ended tasks to list when n of them are requested.
func atMostEnded(n int) int { return min(max(n, 0), maxEnded) }

// maxAnswer is the maximum size of an answer in bytes.
const maxAnswer = 64 << 20

// ErrUnanswered means that the other process's answer to a request did not arrive. The request can still take
// effect.
var ErrUnanswered = errors.New("it does not answer")

// ErrProcessDead means that a request was for a process that is not running, or has lost its connection to
// the servers. The request has no effect.
var ErrProcessDead = errors.New("its process is dead or has lost its connection")

// ErrNotServing means that a request was for a process that is running, but has not called [Cluster.Serve].
// The request has no effect.
var ErrNotServing = errors.New("it runs, but does not serve other processes, or is still starting")

// unasked reports whether the error means that the process has not received the request. In that case, the
// tasks of the process must be read from the servers.
func unasked(err error) bool { return errors.Is(err, ErrProcessDead) || errors.Is(err, ErrNotServing) }

// whyUnasked returns the reason why requests to a store's owner reach nobody.
func (w *wire) whyUnasked(ctx context.Context, owner string) error {
	if err := w.ping(ctx, owner); err != nil {
		return ErrProcessDead
	}
	return ErrNotServing
}

// answer is a process's answer to a question. It can contain both Out and Error.
type answer struct {
	Out   json.RawMessage `json:"out,omitempty"`
	Error *answerError    `json:"error,omitempty"`
}

// answerError is an error from another process.
type answerError struct {
	Text    string              `json:"text"`
	Matches []string            `json:"matches,omitempty"` // texts of the errors in the list "known" that this error matches
	Input   *bgagent.InputError `json:"input,omitempty"`
}

// The list "known" contains the errors that [errors.Is] can recognize in another process's answer.
var known = []error{bgagent.ErrUnknownTask, bgagent.ErrExpired, bgagent.ErrAlreadyEnded, bgagent.ErrNoQuestion, bgagent.ErrStore, bgagent.ErrClosed, bgagent.ErrQuestionOver, bgagent.ErrUncertain, bgagent.ErrMayNotPermit, ErrNotServing}

func answerErrorOf(err error) *answerError {
	e := &answerError{Text: err.Error()}
	for _, k := range known {
		if errors.Is(err, k) {
			e.Matches = append(e.Matches, k.Error())
		}
	}
	errors.As(err, &e.Input)
	return e
}

func (e *answerError) Error() string { return e.Text }

// Is reports whether the error matched target in the other process.
func (e *answerError) Is(target error) bool {
	for _, text := range e.Matches {
		for _, k := range known {
			if k == target && k.Error() == text {
				return true
			}
		}
	}
	return false
}

// As makes the error match a [*bgagent.InputError] from the other process.
func (e *answerError) As(target any) bool {
	in, ok := target.(**bgagent.InputError)
	if ok && e.Input != nil {
		*in = e.Input
		return true
	}
	return false
}

func reply(nc *nats.Conn, to string, out any, err error) error {
	var a answer
	text, bad := json.Marshal(out)
	if bad == nil {
		a.Out = text
	}
	if err = cmp.Or(err, bad); err != nil {
		a.Error = answerErrorOf(err)
	}
	body, err := json.Marshal(a)
	if err != nil {
		return err
	}
	count := partsOf(len(body))
	for i := range count {
		m := nats.NewMsg(to)
		m.Header.Set(headPiece, fmt.Sprintf("%d %d", i, count))
		m.Data = body[i*chunk : min(len(body), (i+1)*chunk)]
		if err := nc.PublishMsg(m); err != nil {
			return err
		}
	}
	return nil
}

// ask sends a question to the owner of a store and decodes its answer. The errors do not name the
// process.
func (w *wire) ask(ctx context.Context, owner, verb string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	if most := w.nc.MaxPayload(); int64(len(body)) > most {
		return &bgagent.InputError{Field: "request", Problem: fmt.Sprintf("has %d bytes; a request to another process can have at most %d", len(body), most)}
	}
	if err := w.ready(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	ctx, done := w.connection(ctx)
	defer done()
	inbox := w.nc.NewInbox()
	sub, err := w.nc.SubscribeSync(inbox)
	if err != nil {
		return err
	}
	defer func() { _ = sub.Unsubscribe() }() // fails only if the connection was closed, which ends its subscriptions
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		return err
	}
	if err := w.nc.PublishRequest(w.names.ask(owner, verb), inbox, body); err != nil {
		return err
	}
	var whole []byte
	for next, count := 0, 1; next < count; next++ {
		m, err := sub.NextMsgWithContext(ctx)
		switch {
		case errors.Is(err, nats.ErrNoResponders), err == nil && m.Header.Get("Status") == "503":
			return ErrProcessDead
		case err != nil:
			return fmt.Errorf("%w: %w", ErrUnanswered, err)
		}
		var number int
		if _, err := fmt.Sscanf(m.Header.Get(headPiece), "%d %d", &number, &count); err != nil || number != next {
			return fmt.Errorf("%w: piece %s of its answer is missing", ErrUnanswered, strconv.Itoa(next))
		}
		if len(whole)+len(m.Data) > maxAnswer {
			return fmt.Errorf("%w: its answer has more than %d bytes", ErrUnanswered, maxAnswer)
		}
		whole = append(whole, m.Data...)
	}
	var a answer
	if err := json.Unmarshal(whole, &a); err != nil {
		return fmt.Errorf("its answer cannot be read: %w", err)
	}
	if len(a.Out) > 0 {
		err = json.Unmarshal(a.Out, out)
	}
	if a.Error != nil {
		return a.Error
	}
	return err
}

// These questions are asked on behalf of the host. Those asked on behalf of callers are in the file
// callers.go.
const (
	askTasks  = "tasks"
	askRead   = "read"
	askCancel = "cancel"
	askAnswer = "answer"
	askReturn = "return" // asks a process to give back a store that it has taken over
)

type tasksInput struct {
	Ended int `json:"ended"`
}

type tasksOutput struct {
	Tasks []bgagent.Task `json:"tasks"`
	More  bool           `json:"more,omitempty"`
}

type readInput struct {
	ID string `json:"id"`
}

type cancelInput struct {
	ID     string `json:"id"`
	Reason string `json:"reason,omitempty"`
}

type answerInput struct {
	ID     string `json:"id"`
	Key    string `json:"key"`
	Option string `json:"option"`
}

// limitsTime limits how long Serve can take to store the limits.
const limitsTime = 30 * time.Second

// Serve makes this process's ClusterOptions.Limits the limits for all processes. Until the cluster is closed,
// it also answers other processes' questions about the manager's tasks. The manager must have been made with
// c.Store. Serve must be called only once.
func (c *Cluster) Serve(m *bgagent.BackgroundManager) error {
	token := c.Store.owner()
	if token == "" {
		return errors.New("bgnats: serve: no manager has opened the store of the cluster")
	}
	ctx, cancel := context.WithTimeout(c.life, limitsTime)
	defer cancel()
	if err := c.Slots.replaceLimits(ctx); err != nil { // done here and not in Join: a process that joins but cannot open its store, for example because its name is in use, must not replace the limits
		return fmt.Errorf("bgnats: serve: %w", err)
	}
	isOver := func() bool { return c.Store.owner() != token }
	subs, err := c.answerFor(callerAnswers{c: c, m: m}, c.Store.w.names, token, isOver)
	c.subs = append(c.subs, subs...)
	if err != nil {
		return fmt.Errorf("bgnats: serve: %w", err)
	}
	_ = c.nc.FlushTimeout(pingWithin) // makes sure that the servers know the subscriptions; if it fails, the client subscribes again when it reconnects
	return nil
}

// answerFor answers other processes' questions about a manager's tasks. The manager owns the given store
// under the given token. The function "isOver" reports whether the manager might no longer own its store. If
// so, the manager might not find all tasks, so the answer is [ErrNotServing].
func (c *Cluster) answerFor(a callerAnswers, store names, token string, isOver func() bool) (subs []*nats.Subscription, err error) {
	m := a.m
	questions := map[string]func(context.Context, []byte) (any, error){
		askTasks: question(func(ctx context.Context, in tasksInput) (tasksOutput, error) {
			return tasksOf(ctx, m, bgagent.Query{}, in.Ended)
		}),
		askRead: question(func(_ context.Context, in readInput) (bgagent.Task, error) { return read(m, in.ID) }),
		askCancel: question(func(ctx context.Context, in cancelInput) (bgagent.Task, error) {
			return m.Cancel(ctx, bgagent.Caller{}, in.ID, bgagent.CancelOptions{Reason: in.Reason})
		}),
		askAnswer: question(func(ctx context.Context, in answerInput) (bgagent.Question, error) {
			return m.Answer(ctx, bgagent.Caller{}, in.ID, bgagent.AnswerInput{Key: in.Key, Option: in.Option})
		}),
	}
	maps.Copy(questions, a.questions())
	room := make(chan struct{}, maxAsked)
	for verb, do := range questions {
		sub, err := c.nc.Subscribe(store.ask(token, verb), func(q *nats.Msg) {
			room <- struct{}{}
			if !c.work.begin(func() {
				defer func() { <-room }()
				ctx, cancel := context.WithTimeout(c.life, workTime)
				defer cancel()
				out, err := c.guarded(do)(ctx, q.Data)
				reads := verb == askRead || verb == askTasks || verb == askCallerRead || verb == askCallerTasks
				if (reads || errors.Is(err, bgagent.ErrUnknownTask)) && isOver() { // the manager no longer owns the store, so tasks and results might be missing
					out, err = nil, ErrNotServing
				}
				if err := reply(c.nc, q.Reply, out, err); err != nil {
					c.warn(fmt.Errorf("bgnats: the answer to another process cannot be sent: %w", err))
				}
			}) {
				<-room
			}
		})
		if err != nil {
			return subs, err
		}
		subs = append(subs, sub)
	}
	return subs, nil
}

// guarded returns a function that calls the function "do". If "do" panics, the returned function warns, and
// returns an error that contains the panic.
func (c *Cluster) guarded(do func(context.Context, []byte) (any, error)) func(context.Context, []byte) (any, error) {
	return func(ctx context.Context, body []byte) (out any, err error) {
		defer func() {
			if p := recover(); p != nil {
				out, err = nil, fmt.Errorf("the process cannot answer the question: panic: %v", p)
				c.warn(fmt.Errorf("bgnats: a question of another process: panic: %v\n%s", p, debug.Stack()))
			}
		}()
		return do(ctx, body)
	}
}

// read returns a task of the manager with its prompt and result. ref is the id of the task or of its session.
func read(m *bgagent.BackgroundManager, ref string) (bgagent.Task, error) {
	t, err := m.Get(ref)
	if errors.Is(err, bgagent.ErrUnknownTask) {
		for _, live := range m.List(bgagent.Query{}) {
			if live.Session == ref {
				ref = live.ID
				t, err = m.Get(ref)
				break
			}
		}
	}
	if err != nil || t.Status.Terminal() { // the task, or at least its result, might be only in the store
		t, err = m.Read(bgagent.Caller{}, ref)
	}
	return t, err
}

// question returns a function that decodes the text of a question and calls the function "do" with the
// result.
func question[In, Out any](do func(context.Context, In) (Out, error)) func(context.Context, []byte) (any, error) {
	return func(ctx context.Context, body []byte) (any, error) {
		var in In
		if err := json.Unmarshal(body, &in); err != nil {
			return nil, err
		}
		return do(ctx, in)
	}
}

// tasksOf returns the manager's tasks that the query selects, without their texts: all live tasks, and up
// to the given number of ended tasks, but at most maxEnded. If the store cannot be read, it returns the
// tasks in memory and an error.
func tasksOf(ctx context.Context, m *bgagent.BackgroundManager, q bgagent.Query, ended int) (out tasksOutput, err error) {
	ended = atMostEnded(ended)
	q.Status = []bgagent.Status{bgagent.Pending, bgagent.Running}
	out.Tasks = m.List(q)
	q.Status, q.Limit = nil, ended+1
	page, err := m.History(ctx, q, "")
	if len(page) > ended {
		page, out.More = page[:ended], true
	}
	live := map[string]bool{}
	for i := range out.Tasks {
		live[out.Tasks[i].ID] = true
	}
	for _, t := range page {
		if !live[t.ID] {
			out.Tasks = append(out.Tasks, t)
		}
	}
	for i := range out.Tasks {
		t := &out.Tasks[i]
		t.Prompt, t.Result, t.Metadata = "", "", nil
	}
	return out, err
}
