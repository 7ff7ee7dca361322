package bgagent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bgagent/bgagent/internal/cleantext"
	"github.com/bgagent/bgagent/internal/mdtext"
)

// QuestionKind is the kind of a [Question].
type QuestionKind uint8

// The kinds of questions.
const (
	_                  QuestionKind = iota
	QuestionPermission              // whether the agent may do what Subject describes; models may answer only with Config.ModelsMayPermit
	QuestionChoice                  // any other question with a fixed set of answers
)

var questionKindNames = [...]string{"none", "permission", "choice"}

// String returns the name of the kind in lower case.
func (k QuestionKind) String() string { return enumName(questionKindNames[:], uint8(k)) }

// MarshalText implements [encoding.TextMarshaler].
func (k QuestionKind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (k *QuestionKind) UnmarshalText(b []byte) error {
	return enumOf(k, questionKindNames[:], "kind of question", b)
}

// QuestionState is the state of a [Question].
type QuestionState uint8

// The states of a question. All states except QuestionOpen are final.
const (
	_                 QuestionState = iota
	QuestionOpen                    // the question can be answered
	QuestionAnswered                // the question has been answered
	QuestionExpired                 // nobody has answered the question in time
	QuestionWithdrawn               // the agent no longer asks, for example because its turn or its process has ended
)

var questionStateNames = [...]string{"none", "open", "answered", "expired", "no longer asked"}

// String returns the name of the state in lower case, such as "no longer asked".
func (s QuestionState) String() string { return enumName(questionStateNames[:], uint8(s)) }

// MarshalText implements [encoding.TextMarshaler].
func (s QuestionState) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (s *QuestionState) UnmarshalText(b []byte) error {
	return enumOf(s, questionStateNames[:], "state of a question", b)
}

// Question is a question that an agent asks in a turn. The turn waits for the answer. The client
// sets ID, Kind, Title, Subject, Options and Expires, and the manager sets the other fields.
type Question struct {
	// ID is the id that the agent runtime of a [TurnStarter] gave to the question. It must be
	// unique in its session. For a question from [Reporter.Ask], the manager makes the id.
	ID string `json:"id"`
	// Key identifies the question among the questions of its task. It contains ID and a digest of the
	// kind, the title, the subject and the options, so an answer with this key cannot answer a
	// different question.
	Key     string       `json:"key"`
	Kind    QuestionKind `json:"kind"`
	Title   string       `json:"title"`   // what the agent asks, in one line of at most 200 bytes
	Subject string       `json:"subject"` // exact subject, such as the whole command; at most 64 KiB; empty once the turn has ended
	// Options are the possible answers, at least 1 and at most 20. An option is not empty and has
	// at most 200 bytes. If the runtime offers an answer that also covers later questions, such as
	// "always", the client leaves it out.
	Options []string      `json:"options"`
	Asked   time.Time     `json:"asked"`
	Expires time.Time     `json:"expires"` // when the question expires; 24 h after Asked if the client leaves this field zero or sets a time more than 366 days away
	State   QuestionState `json:"state"`
	Answer  string        `json:"answer,omitempty"` // option that was chosen; only with QuestionAnswered
}

// clone returns a copy of q that does not share anything with q. It returns nil if q is nil.
func (q *Question) clone() *Question {
	if q == nil {
		return nil
	}
	c := *q
	c.Options = slices.Clone(q.Options)
	return &c
}

// isShown reports whether the subject is short enough to be shown to models.
func (q *Question) isShown() bool { return len(cleantext.String(q.Subject)) <= subjectShown }

// isForModels reports whether a model may answer the question. The argument "permits" is
// Config.ModelsMayPermit.
func (q *Question) isForModels(permits bool) bool {
	return (q.Kind != QuestionPermission || permits) && q.isShown()
}

// AnswerInput is the answer to a question.
type AnswerInput struct {
	Key    string // Question.Key of the question that the answering person or model saw
	Option string // one of Question.Options
}

// Limits for questions.
const (
	questionExpiry  = 24 * time.Hour   // default time after which a question expires
	questionPark    = time.Minute      // how long a runner's turn that waits for an answer may go without a report before it gives its slot back
	questionsOpen   = 20               // maximum number of a manager's open questions
	questionsKept   = 20               // minimum number of a task's questions whose outcomes are remembered
	questionTitle   = 200              // maximum number of bytes of a title
	questionSubject = 64 << 10         // maximum number of bytes of a subject
	subjectShown    = 2 << 10          // maximum number of bytes of a subject that is shown to models; if it is longer, only the host can answer
	questionOptions = 20               // maximum number of options
	questionOption  = 200              // maximum number of bytes of an option
	questionIDBytes = 200              // maximum number of bytes of an id from a client
	keyDigest       = 16               // maximum number of bytes that a key has in addition to the id
	answerPauseMost = 30 * time.Second // longest pause between two calls to AnswerQuestion
)

// Errors about questions.
var (
	// ErrNotAsked is returned by Reporter.Ask, and passed to an [Answerer], if nobody is asked. The text
	// of the error says why: [Config].Ask is not set, too many questions are open, or the question that
	// a [TurnStarter] reported is invalid.
	ErrNotAsked = errors.New("nobody was asked")

	// ErrQuestionExpired is returned by Reporter.Ask, and passed to an [Answerer], if nobody
	// answered the question in time. It does not mean that somebody denied a permission.
	ErrQuestionExpired = errors.New("nobody has answered the question in time")

	// ErrNoQuestion is returned by Answer if the task is not asking a question with the given key.
	// An [Answerer] returns it if the runtime is not asking the question.
	ErrNoQuestion = errors.New("the task does not ask this question")

	// ErrQuestionOver is returned by Answer, together with the question, if the question has
	// already been answered, has expired or is no longer asked.
	ErrQuestionOver = errors.New("the question cannot be answered any more")

	// ErrMayNotPermit is returned by Answer if a session answers a [QuestionPermission] and
	// [Config].ModelsMayPermit is not set. It is also returned if a session answers a question
	// whose subject has more than 2 KiB, because the subject is not shown to models.
	ErrMayNotPermit = errors.New("models may not answer this question")
)

// Answerer is implemented by a [TurnStarter] that can pass on the answers to the questions that it
// reports with [HostQuestion].
type Answerer interface {
	// AnswerQuestion passes the answer q.Answer to the agent runtime. If refusal is not nil, there
	// is no answer: the client then refuses what the agent asked for, and, if it can, gives the
	// agent the text of refusal as the reason. refusal matches [ErrNotAsked] or
	// [ErrQuestionExpired]. A question that was refused because it is invalid has only its ID, Kind
	// and Title. If its ID is also invalid, AnswerQuestion is not called.
	//
	// If the runtime no longer asks the question, AnswerQuestion returns an error that matches
	// [ErrNoQuestion]. If there is no way to tell the runtime the outcome, the error matches
	// [errors.ErrUnsupported]. After any other error, and after a call that took too long, the
	// manager repeats the call until the turn ends. Therefore, repeating an answer that the runtime
	// already has must be harmless.
	AnswerQuestion(ctx context.Context, session string, q Question, refusal error) error
}

// Answer answers a question that a task has asked. id is the id of the task or of its session.
// [Task].Questions contains the open questions of a task. A session can answer questions from the
// tasks that descend from it, but not from its own task. It can answer a [QuestionPermission] only
// with [Config].ModelsMayPermit. It cannot answer a question whose subject has more than 2 KiB,
// because such a subject is not shown to models. The host, which is the zero [Caller], can answer
// every question.
//
// Only the first answer counts, and only the call with that answer returns without an error. If the
// question has already been answered, has expired or is no longer asked, Answer returns the
// question and an error that matches [ErrQuestionOver]; Question.State and Question.Answer contain
// the outcome. A task remembers at least its last 20 questions.
//
// The error is an [*InputError] if the key is missing or if the option is not one of Question.Options.
// It matches [ErrNoQuestion] if the task is not asking a question with this key, and [ErrMayNotPermit]
// if the caller is not allowed to answer it. Otherwise it matches [ErrUnknownTask], [ErrExpired],
// [ErrNotDescendant] or [ErrClosed], or it is the context's error.
//
// With [Config].Store, Answer returns once the answer is durable, and the agent gets the answer after
// that. If this takes too long, the error matches [ErrStore] and [ErrUncertain]: the agent gets the
// answer once the store has recorded it. Another call with the same key then returns the outcome.
func (m *BackgroundManager) Answer(ctx context.Context, by Caller, id string, in AnswerInput) (Question, error) {
	m.heard(by.Session)
	q, err := m.answerQuestion(ctx, by, strings.TrimSpace(id), in)
	if err != nil {
		return q, fmt.Errorf("bgagent: answer: %w", err)
	}
	return q, nil
}

func (m *BackgroundManager) answerQuestion(ctx context.Context, by Caller, ref string, in AnswerInput) (q Question, err error) {
	if ctx == nil {
		return q, errNoContext
	}
	if err := cmpErr(m.start(ctx), ctx.Err()); err != nil {
		return q, err
	}
	if in.Key == "" {
		return q, &InputError{"Key", "is missing; it must be the key of the question"}
	}
	var t *task
	m.fetchFor(ctx, ref, func(st *state, now int64, _ error) { // if the record cannot be loaded, answerQuestion fails as it would without a store
		q, t, err = st.answerQuestion(by, ref, in, now)
	})
	if err != nil {
		return q, m.orLost(err)
	}
	if m.cfg.Store != nil {
		stored := false // set in the update that ends the wait, because the task can change right after that update
		err := m.untilKept(ctx, m.cfg.StoreTimeout, func(st *state) bool {
			stored = !t.hasRecord() || st.isRefused(t) || st.kept(t)
			return stored || st.storing.failing
		})
		if err == nil && !stored {
			err = errStoreSlow
		}
		if err != nil {
			return q, fmt.Errorf("%w: %w: %w", ErrStore, ErrUncertain, err)
		}
	}
	return q, nil
}

// Ask asks a question and returns the option that was chosen. It waits for the answer, which can
// take as long as the question is open. During the wait, the turn cannot become stale, and the wait
// does not count towards the time to live. If the turn does not report anything for a minute, the
// task is parked: it gives its slot back, and Ask returns only when the task has a slot again.
//
// Ask immediately returns an error that matches [ErrNotAsked] if [Config].Ask is not set, if 20
// questions are already open, or if the turn has ended. The client then refuses what the agent
// asked for, and gives the agent the text of the error as the reason. The error matches
// [ErrQuestionExpired] if nobody answered in time. If ctx ends first, Ask returns the context's error.
// If the turn ends first, the error matches [context.Canceled]. In both cases, the question is no
// longer asked. If ctx has ended before the call, nothing is asked. The error is an [*InputError] if
// the question is invalid.
//
// Unlike the other methods, Ask blocks. With a Reporter that [NewReporter] made, Ask reports the
// question as [ReportAsking] and returns ErrNotAsked.
func (r *Reporter) Ask(ctx context.Context, q Question) (option string, err error) {
	if err := q.check(false); err != nil {
		return "", fmt.Errorf("bgagent: ask: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return "", fmt.Errorf("bgagent: ask: %w", err)
	}
	if r == nil || r.m == nil {
		r.report(Report{Kind: ReportAsking, Text: q.Title})
		r.report(Report{Kind: ReportAsking})
		return "", fmt.Errorf("bgagent: ask: %w", ErrNotAsked)
	}
	q.Expires = onClock(q.Expires)
	option, err = r.m.ask(ctx, r, q)
	if err != nil {
		return "", fmt.Errorf("bgagent: ask: %w", err)
	}
	return option, nil
}

func (m *BackgroundManager) ask(ctx context.Context, r *Reporter, q Question) (option string, err error) {
	w := newWaiter()
	var x *asked
	m.update(func(st *state, now int64) { x, err = st.askFor(r.a, r.turn, q, &w, now) })
	if err != nil {
		return "", err
	}
	for over := false; !over; {
		gone := ctx.Err()
		m.update(func(st *state, now int64) {
			if gone != nil {
				st.withdrawQuestion(x, now)
			}
			if over = st.askReturns(x); over {
				q = x.Question
			}
		})
		switch {
		case over:
		case gone != nil: // the context has ended, but Ask must not return until the turn has a slot
			_ = waitFor(context.Background(), w.ch, -1)
		default:
			_ = waitFor(ctx, w.ch, -1)
		}
	}
	if m.cfg.Store != nil {
		m.awaitKept(r.a)
	}
	passed := false
	m.update(func(st *state, now int64) { passed = st.passed(x, now) })
	switch {
	case !passed: // the turn ended first, so the agent must not act on the answer
	case q.State == QuestionAnswered:
		return q.Answer, nil
	case q.State == QuestionExpired:
		return "", ErrQuestionExpired
	}
	if err := ctx.Err(); err != nil {
		return "", err
	}
	return "", fmt.Errorf("the turn has ended: %w", context.Canceled)
}

// passAnswer passes the outcome of a question to the client that reported it. It repeats a failed call
// until the turn has ended, because an accepted answer must not be lost.
func (m *BackgroundManager) passAnswer(x *asked) {
	logged := ""
	for failures := 1; ; failures++ {
		var call context.Context
		var answerer Answerer
		var q Question
		var refusal error
		session := ""
		if m.cfg.Store != nil {
			m.awaitKept(x.a)
		}
		m.view(func(st *state) {
			if st.mayPass(x) {
				session, answerer, call = x.a.t.sess.id, m.host(x.a.cl).answerer, m.contextOf(x.a.t)
				q, refusal = *x.Question.clone(), x.refusal()
			}
		})
		if session == "" {
			return
		}
		err := fmt.Errorf("the client is no Answerer: %w", errors.ErrUnsupported) // in an earlier process, the task might have had another client
		if answerer != nil {
			_, err = within(call, m, goCall, "AnswerQuestion", m.cfg.CallTimeout, func(ctx context.Context) (struct{}, error) {
				return struct{}{}, lookedAt(answerer.AnswerQuestion(ctx, session, q, refusal))
			})
		}
		over := err == nil || errors.Is(err, ErrNoQuestion) || errors.Is(err, errors.ErrUnsupported)
		quiet := err == nil || errors.Is(err, ErrNoQuestion) || errors.Is(err, ErrUnreachable) || errors.Is(err, errTookTooLong)
		m.update(func(st *state, now int64) {
			if !quiet && err.Error() != logged {
				logged = err.Error()
				st.logText(logAnswerFailed, session, logged)
			}
			if over {
				st.passed(x, now)
			}
		})
		if over || !m.sleep(min(backoff(failures), answerPauseMost)) {
			return
		}
	}
}

// check returns an error if a question that a client reports is invalid. If id is true, the
// question must have an id.
func (q *Question) check(id bool) error {
	bad := func(field, format string, a ...any) error {
		return &InputError{"Question." + field, fmt.Sprintf(format, a...)}
	}
	if err := q.checkID(); id && err != nil {
		return err
	}
	switch {
	case q.Kind != QuestionPermission && q.Kind != QuestionChoice:
		return bad("Kind", "is %d; it must be QuestionPermission or QuestionChoice", q.Kind)
	case strings.TrimSpace(q.Title) == "":
		return bad("Title", "is missing; it must say what the agent asks")
	case len(q.Subject) > questionSubject:
		return bad("Subject", "is %d bytes long; it must have at most %d, because it is shown as a whole", len(q.Subject), questionSubject)
	case len(q.Options) == 0 || len(q.Options) > questionOptions:
		return bad("Options", "has %d options; it must have from 1 to %d", len(q.Options), questionOptions)
	}
	for i, o := range q.Options {
		switch {
		case o == "" || len(o) > questionOption || mdtext.Valid(o) != o:
			return bad("Options", "contains %.80q; an option must be valid UTF-8 of 1 to %d bytes", o, questionOption)
		case slices.Contains(q.Options[:i], o):
			return bad("Options", "contains %q twice", o)
		}
	}
	return nil
}

// checkID returns an error if a client has reported the question with an invalid id.
func (q *Question) checkID() error {
	if q.ID == "" || len(q.ID) > questionIDBytes || mdtext.Valid(q.ID) != q.ID {
		return &InputError{"Question.ID", fmt.Sprintf("is %.80q; it must be valid UTF-8 of 1 to %d bytes", q.ID, questionIDBytes)}
	}
	return nil
}

// refusal returns the error that an [Answerer] gets with the question. It returns nil if the question
// was answered.
func (x *asked) refusal() error {
	switch {
	case x.State == QuestionAnswered:
		return nil
	case x.State == QuestionExpired:
		return ErrQuestionExpired
	case x.refused == questionInvalid:
		return fmt.Errorf("%w: the question is not valid: %s", ErrNotAsked, x.problem)
	default:
		return notAsked(x.refused)
	}
}

// notAsked returns the error for a question that was refused immediately.
func notAsked(why refusedQuestion) error {
	switch why {
	case questionsOff:
		return fmt.Errorf("%w: the host does not answer questions of its tasks (Config.Ask is not set)", ErrNotAsked)
	case questionsFull:
		return fmt.Errorf("%w: %d questions are already open, which is the maximum", ErrNotAsked, questionsOpen)
	case questionNotForModels:
		return fmt.Errorf("%w: only models can answer questions here, and none may answer this one", ErrNotAsked)
	default:
		return fmt.Errorf("%w: the turn has ended", ErrNotAsked)
	}
}

func noQuestion(id, key string) error {
	return fmt.Errorf("task %s: %w (key %.80q)", id, ErrNoQuestion, key)
}

func questionOver(id string, q *Question) error {
	if q.State == QuestionAnswered {
		return fmt.Errorf("task %s: %w: it has been answered with %q", id, ErrQuestionOver, q.Answer)
	}
	return fmt.Errorf("task %s: %w: it is %s", id, ErrQuestionOver, map[bool]string{true: "expired", false: "no longer asked"}[q.State == QuestionExpired])
}

// mayNotPermit returns the error for a session that is not allowed to answer the question. The
// argument "shown" is false if the subject is too long to be shown to models.
func mayNotPermit(id string, shown bool) error {
	if !shown {
		return fmt.Errorf("task %s: %w: its subject has more than %d bytes and is not shown to them", id, ErrMayNotPermit, subjectShown)
	}
	return fmt.Errorf("task %s: %w: it is for a permission, and Config.ModelsMayPermit is not set", id, ErrMayNotPermit)
}

func notOffered(option string, q *Question) error {
	return &InputError{"Option", fmt.Sprintf("is %.80q; it must be one of: %s", option, strings.Join(q.Options, ", "))}
}
