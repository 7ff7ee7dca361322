package bgagent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
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

// The tasks are loaded in parts. Each part reads its texts on one goroutine, because starting a goroutine for
// each text takes as long as reading the text from a local disk.
const (
	loadPart   = 64 // maximum number of tasks in a part
	loadAtOnce = 4  // maximum number of parts that are loaded at the same time
)

// loadedTask is the result of loading a task.
type loadedTask struct {
	task *storedTask
	err  error
}

// loadTasks loads the tasks of the records. The results are in the order of the records. For a record that is
// not the record of a task, the result is empty. If the store is too slow, no record is damaged, so loadTasks
// itself returns an error.
func (m *BackgroundManager) loadTasks(records []StoreRecord) ([]loadedTask, error) {
	loaded := make([]loadedTask, len(records))
	group, ctx := errgroup.WithContext(m.store.ctx)
	group.SetLimit(loadAtOnce)
	for from := 0; from < len(records); from += loadPart {
		to := min(from+loadPart, len(records))
		group.Go(func() error { return m.loadSome(ctx, records[from:to], loaded[from:to]) })
	}
	return loaded, group.Wait()
}

// loadTask decodes the record of a task and reads the task's texts.
func (m *BackgroundManager) loadTask(ctx context.Context, r StoreRecord) (*storedTask, error) {
	var loaded [1]loadedTask
	if err := m.loadSome(ctx, []StoreRecord{r}, loaded[:]); err != nil {
		return nil, err
	}
	return loaded[0].task, loaded[0].err
}

// loadSome loads the tasks of the records. It stores the results in the list "loaded".
func (m *BackgroundManager) loadSome(ctx context.Context, records []StoreRecord, loaded []loadedTask) error {
	var texts []wantedText
	for i := range records {
		if r := &records[i]; r.Kind == StoreTask {
			loaded[i].task, loaded[i].err = m.decode(r)
			texts = loaded[i].want(texts)
		}
	}
	return m.readTexts(ctx, texts)
}

// decode decodes the record of a task.
func (m *BackgroundManager) decode(r *StoreRecord) (*storedTask, error) {
	x, err := decodeTask(r)
	if err != nil {
		return nil, err
	}
	if x.cl = m.client(x.Client); x.cl == nil {
		return nil, fmt.Errorf("the client %q is not configured", x.Client)
	}
	x.texts = map[string]string{}
	return x, nil
}

// wantedText is a text that must be read for a task.
type wantedText struct {
	of     *loadedTask
	key    string // key of the task's record
	name   string
	needed bool // the task cannot be loaded without the text
}

// The method "want" appends the texts that must be read for the task to the list.
func (l *loadedTask) want(texts []wantedText) []wantedText {
	if l.err != nil {
		return texts
	}
	names, needed := l.task.textNames()
	for i, name := range names {
		texts = append(texts, wantedText{l, l.task.id, name, i < needed})
	}
	return texts
}

// The method "got" adds a text that was read to its task. If the text is needed and could not be read, the
// task cannot be loaded.
func (w *wantedText) got(text string, err error) {
	switch {
	case err == nil:
		w.of.task.texts[w.name] = text
	case w.needed && w.of.err == nil:
		w.of.err = fmt.Errorf("the text %q: %w", w.name, err)
	}
}

// readTexts reads the texts and adds them to their tasks. It fails if the store is lost, or if the store takes
// too long to read a text that is needed.
func (m *BackgroundManager) readTexts(ctx context.Context, texts []wantedText) error {
	for len(texts) > 0 {
		if err := m.storeLost(); err != nil {
			return err
		}
		n, err := m.readSome(ctx, texts)
		if lost := m.storeLost(); lost != nil {
			return lost
		}
		if err != nil {
			return err
		}
		texts = texts[n:]
	}
	return nil
}

// readSome reads the texts in order, and returns the number of texts that are done. It stops early if a call
// panics or does not return within Config.StoreTimeout.
func (m *BackgroundManager) readSome(ctx context.Context, texts []wantedText) (done int, err error) {
	type answer struct {
		text string
		err  error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers := make(chan answer, len(texts))
	m.spawn(goStore, func() {
		a := answer{err: errGoexit}
		defer func() {
			if v := recover(); v != nil {
				a.err = panicked(v)
			}
			if a.err != nil {
				answers <- a
			}
			close(answers)
		}()
		for _, w := range texts {
			a.err = errGoexit
			text, err := m.cfg.Store.Text(ctx, w.key, w.name)
			answers <- answer{text, storeError(err)}
			a.err = nil
		}
	})
	limit := time.NewTimer(m.cfg.StoreTimeout)
	defer limit.Stop()
	for done < len(texts) {
		w := &texts[done]
		select {
		case a, ok := <-answers:
			if !ok {
				return done, nil
			}
			w.got(a.text, a.err)
			limit.Reset(m.cfg.StoreTimeout)
		case <-ctx.Done():
			return done, fmt.Errorf("Store.Text: %w", context.Cause(ctx))
		case <-limit.C:
			slow := fmt.Errorf("Store.Text: %w (%v)", errTookTooLong, m.cfg.StoreTimeout)
			if w.needed {
				return done, slow
			}
			return done + 1, nil
		}
		done++
	}
	return done, nil
}
