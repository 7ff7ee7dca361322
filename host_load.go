package bgagent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The code in this file loads the contents of a store.

// load fills the state of a new manager with the contents of the store.
func (m *BackgroundManager) load(c StoreContents) error {
	var tasks []*storedTask
	var nodes []*storedNode
	var instances []string // ids of earlier managers
	var last managerRecord // record of the earlier manager
	f, newer := &m.found, map[string]bool{}
	f.Outdated, f.Damage = c.Outdated, c.Damage
	aside := func(key string, problem error) {
		f.Damage = append(f.Damage, StoreDamage{Key: key, Problem: problem.Error()})
	}
	loaded, err := m.loadTasks(c.Records)
	if err != nil {
		return err
	}
	for i := range c.Records {
		r := &c.Records[i]
		switch r.Kind {
		case StoreTask:
			x := loaded[i].task
			if err := loaded[i].err; err != nil {
				aside(r.Key, err)
				continue
			}
			if x.Run != nil {
				instances = append(instances, x.Run.Instance)
			}
			tasks = append(tasks, x)
		case StoreSession:
			x := &storedNode{session: strings.TrimPrefix(r.Key, sessionKey), rec: *r}
			if err := decodeRecord(r.Data, &x.nodeRecord); err != nil {
				aside(r.Key, err)
				newer[r.Key] = errors.Is(err, errNewer)
				continue
			}
			nodes = append(nodes, x)
		case StoreManager:
			var x managerRecord
			if err := decodeRecord(r.Data, &x); err != nil {
				aside(r.Key, err)
				continue
			}
			f.Seen, last = x.Seen, x
			instances = append(instances, x.Instance)
		}
	}
	if slices.Contains(instances, m.owner.Instance) {
		return &InputError{"Config.Instance", "is " + strconv.Quote(m.owner.Instance) + ", which an earlier manager of the store had; use a new value at each start"}
	}
	tasks, damage := sound(tasks)
	f.Damage = append(f.Damage, damage...)
	f.Tasks = len(tasks)
	m.update(func(st *state, now int64) {
		st.storing = newStoring(c.Batch)
		st.storing.instance, st.storing.aside = m.owner.Instance, newer
		st.recovery = recovery{due: true, clean: last.Clean, seen: f.Seen, clock: last.Clock, crashed: last.Crashed, careful: last.Careful, outdated: c.Outdated}
		st.load(tasks, nodes, now)
	})
	return nil
}

// loadPart is the maximum number of tasks whose texts are read on one goroutine. Starting a goroutine
// for each text takes as long as reading the text from a local disk.
const loadPart = 64

// loadedTask is the result of loading a task.
type loadedTask struct {
	task *storedTask
	err  error
}

// loadTasks loads the tasks that the records describe, in parts. It decodes a part while the texts of
// the previous part are being read. The results are in the order of the records. For a record that
// does not describe a task, the result is empty. If the store is too slow, loadTasks itself returns an
// error, because the records themselves are not damaged.
func (m *BackgroundManager) loadTasks(records []StoreRecord) ([]loadedTask, error) {
	loaded := make([]loadedTask, len(records))
	var before *textReading
	for from := 0; from < len(records); from += loadPart {
		to := min(from+loadPart, len(records))
		texts := m.decodeTasks(records[from:to], loaded[from:to])
		if err := before.finish(); err != nil {
			return nil, err
		}
		before = m.readTexts(m.store.ctx, texts)
	}
	return loaded, before.finish()
}

// loadTask loads the task that the record describes.
func (m *BackgroundManager) loadTask(ctx context.Context, r StoreRecord) (*storedTask, error) {
	var loaded [1]loadedTask
	r.Kind = StoreTask // History returns only tasks
	texts := m.decodeTasks([]StoreRecord{r}, loaded[:])
	if err := m.readTexts(ctx, texts).finish(); err != nil {
		return nil, err
	}
	return loaded[0].task, loaded[0].err
}

// decodeTasks decodes the records of tasks into the list "loaded", and returns the texts that must be read.
func (m *BackgroundManager) decodeTasks(records []StoreRecord, loaded []loadedTask) (texts []wantedText) {
	for i := range records {
		r, l := &records[i], &loaded[i]
		if r.Kind != StoreTask {
			continue
		}
		if l.task, l.err = decodeTask(r); l.err != nil {
			continue
		}
		if l.task.cl = m.client(l.task.Client); l.task.cl == nil {
			l.err = fmt.Errorf("the client %q is not configured", l.task.Client)
			continue
		}
		l.task.texts = map[string]string{}
		names, needed := l.task.textNames()
		for i, name := range names {
			texts = append(texts, wantedText{l, l.task.id, name, i < needed})
		}
	}
	return texts
}

// wantedText is a text that must be read for a task.
type wantedText struct {
	of     *loadedTask
	key    string // key of the task's record
	name   string
	needed bool // the task cannot be loaded without the text
}

// The method "got" takes the result of reading the text, and adds the text to its task. If the text is
// needed and could not be read, the task cannot be loaded.
func (w *wantedText) got(text string, err error) {
	switch {
	case err == nil:
		w.of.task.texts[w.name] = text
	case w.needed && w.of.err == nil:
		w.of.err = fmt.Errorf("the text %q: %w", w.name, err)
	}
}

// textReading reads texts, one after another, on a goroutine.
type textReading struct {
	m       *BackgroundManager
	ctx     context.Context // also ends when the manager closes the store
	end     func()          // releases ctx
	texts   []wantedText    // texts without an answer
	answers chan textAnswer
	stop    context.CancelFunc // makes the goroutine return after its current call
}

// textAnswer is the result of reading a text.
type textAnswer struct {
	text string
	err  error
}

// readTexts starts to read the texts. If there are none, it returns nil.
func (m *BackgroundManager) readTexts(ctx context.Context, texts []wantedText) *textReading {
	if len(texts) == 0 {
		return nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	unlink := context.AfterFunc(m.store.ctx, func() { cancel(ErrClosed) })
	r := &textReading{m: m, ctx: ctx, texts: texts, end: func() { unlink(); cancel(nil) }}
	r.start()
	return r
}

// start starts a goroutine that reads the remaining texts. If a text is needed and cannot be read, the
// goroutine does not read the task's other texts.
func (r *textReading) start() {
	ctx, stop := context.WithCancel(r.ctx)
	texts, answers := r.texts, make(chan textAnswer, len(r.texts))
	r.answers, r.stop = answers, stop
	r.m.spawn(goStore, func() {
		a := textAnswer{}
		defer func() {
			if v := recover(); v != nil {
				a.err = panicked(v)
			}
			if a.err != nil {
				answers <- a
			}
			close(answers)
		}()
		var damaged textAnswer
		var of *loadedTask // task that the field "damaged" concerns
		for i := range texts {
			w := &texts[i]
			if w.of == of {
				answers <- damaged
				continue
			}
			if ctx.Err() != nil {
				return
			}
			a.err = errGoexit
			text, err := r.m.readText(ctx, w)
			a.err = nil
			answers <- textAnswer{text, err}
			if errors.Is(err, errTookTooLong) && w.needed { // the caller gives up
				return
			}
			if err != nil && w.needed {
				damaged, of = textAnswer{"", err}, w.of
			}
		}
	})
}

// readText reads a text on the current goroutine.
func (m *BackgroundManager) readText(ctx context.Context, w *wantedText) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, m.cfg.StoreTimeout, errTookTooLong)
	defer cancel()
	text, err := m.cfg.Store.Text(ctx, w.key, w.name)
	if err != nil && errors.Is(context.Cause(ctx), errTookTooLong) {
		return "", tookTooLong("Store.Text", m.cfg.StoreTimeout)
	}
	return text, storeError(err)
}

// finish waits until all texts are read, and adds them to their tasks. It returns an error if the store
// is lost, or if the store takes longer than Config.StoreTimeout to read one of the texts that are
// needed. If the context ends, the remaining texts count as unreadable. r may be nil.
func (r *textReading) finish() error {
	if r == nil {
		return nil
	}
	defer r.end()
	limit := time.NewTimer(r.m.cfg.StoreTimeout)
	defer limit.Stop()
	for len(r.texts) > 0 {
		if err := r.m.storeLost(); err != nil {
			return err
		}
		a, ok := r.await(limit)
		if !ok { // the goroutine has ended early, so another one reads the remaining texts
			for len(r.texts) > 0 && r.texts[0].of.err != nil {
				r.texts = r.texts[1:]
			}
			r.stop()
			r.start()
			limit.Reset(r.m.cfg.StoreTimeout)
			continue
		}
		w := &r.texts[0]
		if errors.Is(a.err, errTookTooLong) && w.needed {
			return a.err
		}
		w.got(a.text, a.err)
		r.texts = r.texts[1:]
		limit.Reset(r.m.cfg.StoreTimeout)
	}
	return r.m.storeLost()
}

// await waits for the next answer. ok is false if the goroutine has ended without reading the text.
func (r *textReading) await(limit *time.Timer) (a textAnswer, ok bool) {
	late := false
	select {
	case a, ok = <-r.answers:
	case <-r.ctx.Done():
		late = true
	case <-limit.C:
		late = true
	}
	if late { // prefer an answer that arrived at the same time
		select {
		case a, ok = <-r.answers:
			late = false
		default:
		}
	}
	switch {
	case ok:
		return a, true
	case r.ctx.Err() != nil:
		return textAnswer{"", fmt.Errorf("Store.Text: %w", context.Cause(r.ctx))}, true
	case !late:
		return a, false
	}
	r.stop()
	r.answers = make(chan textAnswer)
	close(r.answers) // no more answers from this goroutine are taken
	return textAnswer{"", tookTooLong("Store.Text", r.m.cfg.StoreTimeout)}, true
}
