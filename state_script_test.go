package bgagent

import (
	"bufio"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"hash/maphash"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bgagent/bgagent/internal/slots"
	"github.com/stretchr/testify/require"
)

var updateScripts = flag.Bool("state.update", false, "write what the scripts in testdata/state print into them")

// The scripts in testdata/state drive the state directly. Each line is an input,
// and the indented lines below it are the events and effects that the input
// causes. The scripts show the protocols of stopping, delivery and resuming step
// by step, without goroutines, hosts or clocks. The method "do" lists the inputs.
func TestStateScripts(t *testing.T) {
	names, err := filepath.Glob("testdata/state/*.txt")
	require.NoError(t, err)
	require.NotEmpty(t, names)
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(name)
			require.NoError(t, err)
			got := runScript(t, string(text))
			if *updateScripts {
				require.NoError(t, os.WriteFile(name, []byte(got), 0o600))
				return
			}
			require.Equal(t, string(text), got)
		})
	}
}

// The type "script" is one run of a script, with the state that the script drives.
type script struct {
	t     *testing.T
	st    *state
	sub   *Subscription
	cl    *client
	now   int64
	tasks map[string]*task // keyed by the names that the script gave them
	runs  map[string]*attempt
	envs  map[string]*envelope
	job   job
	out   strings.Builder
}

func runScript(t *testing.T, text string) string {
	x := &script{t: t, now: 1, tasks: map[string]*task{}, runs: map[string]*attempt{}, envs: map[string]*envelope{}}
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		switch {
		case strings.HasPrefix(line, "    "): // output of an earlier run
		case line == "" || strings.HasPrefix(line, "#"):
			x.out.WriteString(line + "\n")
		default:
			x.out.WriteString(line + "\n")
			x.step(strings.Fields(line))
		}
	}
	return x.out.String()
}

// The method "configure" creates the state: limit is the number of slots, starter is true if the
// client is a TurnStarter, and notifies is true if notices reach root sessions.
func (x *script) configure(limit int, starter, notifies bool) {
	c, err := Config{}.withDefaults()
	require.NoError(x.t, err)
	m := &BackgroundManager{cfg: c, cm: &ConcurrencyManager{slots: slots.New(rules{Limits{Default: limit}}), epoch: time.Unix(0, 0)}, seed: maphash.MakeSeed(), epoch: time.Unix(0, 0)}
	m.cfg.MaxDepth = 3
	st := m.newState()
	st.cfg.notifies, st.ids = notifies, bufio.NewReader(rand.Reader)
	cl := &client{runner: !starter, starter: starter, reads: true, followed: map[*attempt]struct{}{}, parents: map[*node]struct{}{}}
	x.cl = cl
	x.sub = &Subscription{waiter: newWaiter(), max: 1000}
	st.subs = []*Subscription{x.sub}
	x.st = &st
}

// The method "step" carries out one line of the script and prints its events and effects.
func (x *script) step(words []string) {
	arg := map[string]string{}
	var plain []string
	for _, w := range words[1:] {
		if name, value, ok := strings.Cut(w, "="); ok {
			if name == "text" || name == "error" {
				value = strings.ReplaceAll(value, "_", " ")
			}
			arg[name] = value
		} else {
			plain = append(plain, w)
		}
	}
	if words[0] == "config" {
		limit := 1
		_, _ = fmt.Sscan(arg["limit"], &limit)
		x.configure(limit, slices.Contains(plain, "starter"), slices.Contains(plain, "notifies"))
		return
	}
	x.st.now = x.now
	x.do(words[0], plain, arg)
	x.st.settle(x.now)
	x.print()
	require.NoError(x.t, x.st.checkInvariants(), "after %q", strings.Join(words, " "))
}

// The method "do" executes one line of the script. A NAME stands for a task, or for its latest attempt.
func (x *script) do(what string, plain []string, arg map[string]string) {
	st, now, name := x.st, x.now, plain[0]
	a := x.runs[name]
	if t := x.tasks[name]; t != nil && t.run != nil {
		a = t.run
		x.runs[name] = a
	}
	failed := hostFailure{}
	if arg["error"] != "" {
		failed = hostFailure{kind: failedSomehow, text: arg["error"], reason: arg["error"]}
	}
	by := Caller{Session: "root"}
	if arg["by"] != "" {
		by.Session = arg["by"]
	}
	switch what {
	case "launch": // NAME [by=SESSION]: a session delegates a task
		t, err := st.admit(by, &plan{in: LaunchInput{Description: name, Prompt: "do " + name}, key: kindKey{agent: "agent", model: "m"}, cl: x.cl}, false, now)
		x.tasks[name] = t
		x.said(err)
	case "resume": // NAME: a session resumes the task
		_, err := st.resume(launchValues{}, by, nil, x.tasks[name].id(), ResumeInput{Prompt: "go on with " + name}, false, now)
		x.said(err)
	case "call": // NAME: a goroutine makes the host call that is due
		if st.beginCall(a, &x.job, now) {
			x.printf("host call: %s", [...]string{callCreate: "create a session", callRun: "run a turn", callStart: "hand over the prompt"}[x.job.call])
		} else {
			x.printf("no host call")
		}
	case "created": // NAME SESSION [error=TEXT]: CreateSession returns
		st.created(a, append(plain, "")[1], &failed, now)
	case "started": // NAME [error=TEXT]: StartTurn returns
		st.turnStarted(a, &failed, now)
	case "returned": // NAME [text=TEXT] [error=TEXT]: RunTurn returns
		st.turnReturned(a, &TurnEnd{Text: arg["text"]}, &failed, now)
	case "idle": // NAME: a sweep reports that the session is idle
		st.swept(&looked{a: a, epoch: a.epoch, status: SessionStatus{State: SessionIdle}}, "", now)
	case "cancel": // NAME [by=SESSION]: a session cancels the task
		st.cancel(by, x.tasks[name], CancelOptions{}, now)
	case "abort": // NAME: the goroutine for Abort calls asks for the next session to abort
		if session := st.nextAbort(a, now); session != "" {
			x.printf("host call: abort %s", session)
		} else {
			x.printf("no more aborts")
		}
	case "aborted": // NAME: Abort returns
		st.abortReturned(a, now)
	case "after": // DURATION: time passes, and alarms ring
		d, err := time.ParseDuration(name)
		require.NoError(x.t, err)
		x.now += int64(d)
		st.now = x.now
		st.ringDue(x.now)
	case "deliver": // SESSION ready|busy|unsure|untold: the status of the session was queried for a delivery
		seen := map[string]parentState{"ready": parentReady, "busy": parentBusy, "unsure": parentUnsure, "untold": parentSilent}[plain[1]]
		env := st.beginDelivery(st.nodes[name], seen, x.cl, now)
		if x.envs[name] = env; env == nil {
			x.printf("no notice")
			return
		}
		x.printf("host call: notify %s of %s", name, x.items(env.notice))
	case "answer": // SESSION taken|busy|nobody|failed: Notify returns
		answer := map[string]noticeAnswer{"taken": noticeRecorded, "busy": noticeBusy, "nobody": noticeNobody, "failed": noticeFailed}[plain[1]]
		st.endDelivery(st.nodes[name], x.envs[name], answer, "", now)
	case "rested": // SESSION: a busy parent has become idle
		st.parentIdle(st.nodes[name])
	case "take": // SESSION: the host takes the notice that the session is owed
		n, ok := st.take(st.nodes[name], true, now)
		x.printf("taken: %v %s", ok, x.items(n))
	case "read": // NAME: the parent reads the task's result
		st.settleTask(x.tasks[name], NoticeRead, now)
	default:
		x.t.Fatalf("the script contains %q, which is not an input", what)
	}
}

func (x *script) said(err error) {
	if err != nil {
		for { // print only the innermost error, without the ids in the outer ones
			inner := errors.Unwrap(err)
			if inner == nil {
				break
			}
			err = inner
		}
		x.printf("refused: %v", err)
	}
}

// The method "name" returns the name that the script gave to the task.
func (x *script) name(id string) string {
	for name, t := range x.tasks {
		if t.id() == id {
			return name
		}
	}
	return id
}

func (x *script) items(n Notice) string {
	var list []string
	for _, it := range n.Items {
		list = append(list, fmt.Sprintf("%s.%d %s", x.name(it.Task), it.Attempt, it.Status))
	}
	if n.Closing {
		list = append(list, "and the batch is over")
	}
	return strings.Join(list, ", ")
}

func (x *script) printf(format string, args ...any) {
	x.out.WriteString("    " + fmt.Sprintf(format, args...) + "\n")
}

// The method "print" prints the events and effects of one update, and removes them.
func (x *script) print() {
	for e, ok := x.sub.next(); ok; e, ok = x.sub.next() {
		line := fmt.Sprintf("event: %s %s.%d", e.Kind, x.name(e.Task.ID), e.Task.Attempt)
		switch e.Kind {
		case EventEnded:
			line += fmt.Sprintf(" %s, %s", e.Task.Status, e.Task.Cause)
			if e.Task.Reason != "" {
				line += ": " + e.Task.Reason
			}
		case EventPhase:
			line += fmt.Sprintf(" %s", e.Task.Phase)
		case EventNotice:
			line += fmt.Sprintf(" %s", e.Task.Notice)
		}
		x.printf("%s", line)
	}
	fx := x.st.takeEffects()
	of := func(a *attempt) string { return fmt.Sprintf("%s.%d", x.name(a.t.id()), a.no) }
	for a := fx.now.cancels; a != nil; a = a.nextCancel {
		x.printf("now: end the context of %s", of(a))
	}
	r := fx.rare
	if r == nil {
		r = &rareEffects{}
	}
	for _, a := range r.now.aborts {
		x.printf("now: abort %s", of(a))
	}
	for s := r.now.strays; s != nil; s = s.next {
		x.printf("now: abort %s", of(s.a))
	}
	for _, n := range r.after.deliver {
		x.printf("after: tell %s", n.session)
	}
	for range r.after.poll {
		x.printf("after: poll")
	}
	for _, l := range r.after.looks {
		x.printf("after: look at %s", of(l.a))
	}
	for a := fx.after.start; a != nil; {
		x.printf("after: call for %s", of(a))
		a, a.nextRun = a.nextRun, nil
	}
}
