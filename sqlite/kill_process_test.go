package sqlite

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/inproc"
)

// This file contains the process that TestNoKillLosesOrRepeatsWork kills. The process runs tasks of
// Go functions on a store, and writes everything that is visible outside the manager to a log.

const (
	killDir  = "BGAGENT_SQLITE_KILL_DIR"
	killLife = "BGAGENT_SQLITE_KILL_LIFE" // number of the process, counted from 1, among the processes on the store
	killLast = "BGAGENT_SQLITE_KILL_LAST" // set for the process that is not killed
	killSeed = "BGAGENT_SQLITE_KILL_SEED"

	killLive  = 50     // number of live tasks of the session "main"
	killLimit = 8      // number of turns that may run at the same time
	killCap   = 2      // number of turns of the agent "again" that may run at the same time
	killNames = 10_000 // the tasks of process n have the numbers from n times killNames
	killModel = "model"
	killRoot  = "main"
)

// killLine is one line of the log.
type killLine struct {
	What   string // see the constants
	Life   int
	Task   string `json:",omitempty"` // id
	Name   string `json:",omitempty"` // description of the task
	Prompt string `json:",omitempty"` // prompt id
	Text   string `json:",omitempty"` // text of the prompt, or the answer
	Item   string `json:",omitempty"` // id of the item of a notice

	// The end of an attempt, as it was reported.
	Attempt int            `json:",omitempty"`
	Status  bgagent.Status `json:",omitempty"`
	Cause   bgagent.Cause  `json:",omitempty"`
}

// The values of killLine.What.
const (
	lineOpened    = "opened"    // the manager has opened the store
	lineAccepted  = "accepted"  // Launch has returned the task
	lineBegin     = "begin"     // a turn begins
	lineEnd       = "end"       // a turn ends
	lineTold      = "told"      // the parent is notified that an attempt has ended
	lineEnded     = "ended"     // a subscriber learns that an attempt has ended
	lineCancelled = "cancelled" // Cancel has returned without an error
	lineUnknown   = "unknown"   // Cancel does not know an accepted task
	lineClosed    = "closed"    // the manager was closed
)

// killLog appends lines to a file. For each line, it also writes an empty line to the standard
// output.
type killLog struct {
	life int
	f    *os.File
}

func (l *killLog) add(x killLine) {
	x.Life = l.life
	b, err := json.Marshal(x)
	if err == nil {
		_, err = l.f.Write(append(b, '\n')) // one call, so that the line is written as a whole
	}
	if err != nil {
		panic(err)
	}
	fmt.Println()
}

func readKillLog(dir string) (lines []killLine, err error) {
	f, err := os.Open(filepath.Join(dir, "log"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r := bufio.NewReader(f)
	for {
		b, err := r.ReadBytes('\n')
		if len(b) == 0 {
			return lines, nil
		}
		var x killLine
		if err = errors.Join(err, json.Unmarshal(b, &x)); err != nil {
			return nil, err
		}
		lines = append(lines, x)
	}
}

// killAgent returns the agent of the task with the given number. The agents differ in their treatment of
// interrupted turns:
//
//   - For "once" and "delegate", the client knows from the log which prompts their sessions
//     have. The agent "delegate" launches two tasks of "once" and waits for them.
//   - The turns of "again" may be repeated.
//   - The client knows nothing about the sessions of "unknown".
func killAgent(n int) string {
	return [...]string{"once", "once", "again", "once", "delegate", "once", "again", "unknown", "once", "once"}[n%10]
}

// killCancels reports whether the process cancels the task with the given number.
func killCancels(n int) bool { return n%10 == 9 }

func killPrompt(name string) string { return "Answer " + name + ".\n" }

// killAnswer returns the answer of the task with the given name. Its length differs between tasks.
func killAnswer(name string) string {
	line := "Answer of " + name + ": é, 世界, \t\"quoted\" <&> \\u0000\n"
	return strings.Repeat(line, 1+len(name)*7%13*11) + "the end of " + name
}

// killWorld is the state of the process.
type killWorld struct {
	log    *killLog
	m      *bgagent.BackgroundManager
	before map[string]killLine // last line about a turn of an earlier process, by prompt id
	last   bool

	mu       sync.Mutex
	rnd      *rand.Rand
	launched map[string]bool // names of the accepted tasks
	next     int             // number of the next task
}

// killedProcess is the main function of the process.
func killedProcess(dir string) error {
	life, err := strconv.Atoi(os.Getenv(killLife))
	if err != nil {
		return err
	}
	seed, err := strconv.ParseUint(os.Getenv(killSeed), 10, 64)
	if err != nil {
		return err
	}
	lines, err := readKillLog(dir)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(dir, "log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	w := &killWorld{
		log: &killLog{life, f}, last: os.Getenv(killLast) != "", before: map[string]killLine{},
		rnd: rand.New(rand.NewPCG(seed, uint64(life))), launched: map[string]bool{}, next: life * killNames,
	}
	for _, x := range lines {
		switch x.What {
		case lineBegin, lineEnd:
			w.before[x.Prompt] = x
		case lineAccepted:
			w.launched[x.Name] = true
		}
	}
	return w.run(dir)
}

func (w *killWorld) run(dir string) error {
	client := inproc.New(map[string]inproc.Agent{"once": w.work, "again": w.work, "unknown": w.work, "delegate": w.delegate})
	client.Restore = w.restore
	var err error
	w.m, err = bgagent.New(client, bgagent.Config{
		Store:           New(filepath.Join(dir, "store"), Options{KeepFor: -1, KeepTasks: -1, KeepBytes: -1}),
		Limits:          bgagent.Limits{Default: killLimit, Agent: map[string]int{"again": killCap}},
		MaxDepth:        2,
		MaxTasksPerRoot: bgagent.Unlimited,
		Wake:            bgagent.WakeEach,
		NoticeWindow:    bgagent.Disabled,
		Notify:          w.notify,
	})
	if err != nil {
		return err
	}
	w.log.add(killLine{What: lineOpened})
	_, events := w.m.Subscribe(1 << 16)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		w.watch(events)
	}()
	w.m.Start()
	if !w.last {
		return w.keepBusy()
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err = errors.Join(w.untilAllHaveEnded(ctx), w.m.Drain(ctx)); err != nil {
		for _, t := range w.m.List(bgagent.Query{}) {
			fmt.Fprintln(os.Stderr, t.ID, t.Description, t.Status, t.Phase, t.Notice, t.Reason)
		}
	}
	err = errors.Join(err, w.m.Close(ctx))
	<-watched
	w.log.add(killLine{What: lineClosed})
	return err
}

func (w *killWorld) watch(events *bgagent.Subscription) {
	for {
		e, err := events.Next(context.Background())
		if err != nil {
			return // the manager was closed, and all events have been read
		}
		if e.Kind == bgagent.EventEnded {
			w.log.add(killLine{What: lineEnded, Task: e.Task.ID, Attempt: e.Task.Attempt, Status: e.Task.Status, Cause: e.Task.Cause})
		}
	}
}

// untilAllHaveEnded waits for all tasks. Unlike with Drain, the tasks can still delegate.
func (w *killWorld) untilAllHaveEnded(ctx context.Context) error {
	tasks, events := w.m.Subscribe(1 << 16)
	defer events.Close()
	live := map[string]bool{}
	for _, t := range tasks {
		if !t.Status.Terminal() {
			live[t.ID] = true
		}
	}
	for len(live) > 0 {
		e, err := events.Next(ctx)
		if err != nil {
			return err
		}
		switch e.Kind {
		case bgagent.EventLaunched:
			live[e.Task.ID] = true
		case bgagent.EventEnded:
			delete(live, e.Task.ID)
		}
	}
	return nil
}

// keepBusy launches tasks until the process is killed, so that there are always enough live tasks.
func (w *killWorld) keepBusy() error {
	failed := make(chan error, killLive)
	live := 0
	for _, t := range w.m.List(bgagent.Query{Parent: killRoot}) {
		if !t.Status.Terminal() {
			live++
		}
	}
	free := make(chan struct{}, killLive)
	for range killLive - live {
		free <- struct{}{}
	}
	_, events := w.m.Subscribe(1 << 16)
	go func() {
		for {
			e, err := events.Next(context.Background())
			if err != nil {
				return
			}
			if e.Kind == bgagent.EventEnded && e.Task.Parent == killRoot {
				select {
				case free <- struct{}{}:
				default: // enough tasks are live
				}
			}
		}
	}()
	for {
		select {
		case <-free:
			go func() { failed <- w.launch() }()
		case err := <-failed:
			if err != nil {
				return err
			}
		}
	}
}

func (w *killWorld) launch() error {
	w.mu.Lock()
	n := w.next
	w.next++
	w.mu.Unlock()
	t, err := w.accept(bgagent.Caller{Session: killRoot}, fmt.Sprint("task ", n), killAgent(n))
	if err != nil || !killCancels(n) {
		return err
	}
	w.pause(20 * time.Millisecond)
	_, err = w.m.Cancel(context.Background(), bgagent.Caller{Session: killRoot}, t.ID, bgagent.CancelOptions{})
	switch {
	case errors.Is(err, bgagent.ErrAlreadyEnded), errors.Is(err, bgagent.ErrExpired):
		return nil
	case err == nil:
		w.log.add(killLine{What: lineCancelled, Task: t.ID})
	case errors.Is(err, bgagent.ErrUnknownTask):
		w.log.add(killLine{What: lineUnknown, Task: t.ID})
		return nil
	}
	return err
}

func (w *killWorld) accept(by bgagent.Caller, name, agent string) (bgagent.Task, error) {
	t, err := w.m.Launch(context.Background(), by, bgagent.LaunchInput{Agent: agent, Model: killModel, Description: name, Prompt: killPrompt(name)})
	if err == nil {
		w.log.add(killLine{What: lineAccepted, Task: t.ID, Name: name})
		w.mu.Lock()
		w.launched[name] = true
		w.mu.Unlock()
	}
	return t, err
}

// pause waits for a random time that is shorter than the given one.
func (w *killWorld) pause(most time.Duration) {
	w.mu.Lock()
	d := time.Duration(w.rnd.Int64N(int64(most)))
	w.mu.Unlock()
	time.Sleep(d)
}

func (w *killWorld) notify(_ context.Context, session string, n bgagent.Notice) error {
	w.told(n)
	w.pause(2 * time.Millisecond)
	return nil
}

func (w *killWorld) told(n bgagent.Notice) {
	for _, i := range n.Items {
		w.log.add(killLine{What: lineTold, Task: i.Task, Item: i.ID, Attempt: i.Attempt, Status: i.Status, Cause: i.Cause})
	}
}

func (w *killWorld) begin(t *inproc.Turn) (end func(string) (string, error)) {
	p := t.Prompt
	w.log.add(killLine{What: lineBegin, Task: p.Task, Name: t.Title(), Prompt: p.ID, Text: p.Text})
	return func(answer string) (string, error) {
		w.log.add(killLine{What: lineEnd, Task: p.Task, Name: t.Title(), Prompt: p.ID, Text: answer})
		return answer, nil
	}
}

// work is the agent of all tasks that do not delegate.
func (w *killWorld) work(ctx context.Context, t *inproc.Turn) (string, error) {
	end := w.begin(t)
	w.pause(10 * time.Millisecond)
	if ctx.Err() != nil {
		_, err := end("")
		return "", errors.Join(err, ctx.Err())
	}
	return end(killAnswer(t.Title()))
}

// delegate launches two tasks and ends its turn. Its result is the answer of the last turn.
func (w *killWorld) delegate(ctx context.Context, t *inproc.Turn) (string, error) {
	if t.Prompt.Notice != nil {
		w.told(*t.Prompt.Notice) // before the turn begins, because a session with the prompt also has the notice
	}
	end := w.begin(t)
	if t.Prompt.Notice == nil {
		by, _ := bgagent.CallerFrom(ctx)
		for i := range 2 {
			name := fmt.Sprint(t.Title(), " part ", i)
			w.mu.Lock()
			done := w.launched[name]
			w.mu.Unlock()
			if done {
				continue
			}
			if _, err := w.accept(by, name, "once"); err != nil {
				_, _ = end("")
				return "", err
			}
		}
	}
	return end(killAnswer(t.Title()))
}

// restore reports whether a session has its last prompt, and how far its turn has got.
func (w *killWorld) restore(_ context.Context, r bgagent.SessionRestore) (inproc.Restored, error) {
	last, begun := w.before[r.Last.ID]
	switch {
	case r.Last.ID == "" || r.Spec.Agent == "again":
		return inproc.Restored{Prompt: bgagent.PromptMissing}, nil
	case r.Spec.Agent == "unknown":
		return inproc.Restored{Prompt: bgagent.PromptUnknown}, nil
	case !begun:
		return inproc.Restored{Prompt: bgagent.PromptMissing}, nil
	case last.What == lineBegin || last.Text == "": // killed, or stopped by a cancelled context
		return inproc.Restored{Prompt: bgagent.PromptInterrupted}, nil
	}
	return inproc.Restored{Prompt: bgagent.PromptAnswered, End: bgagent.TurnEnd{Text: last.Text}}, nil
}
