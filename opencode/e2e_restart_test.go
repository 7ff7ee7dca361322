package opencode_test

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/modelserver"
	"github.com/bgagent/bgagent/internal/realagent"
	"github.com/bgagent/bgagent/internal/tempdir"
	"github.com/bgagent/bgagent/opencode"
)

// childEnv is the environment variable that makes the test binary run a manager. Its value is a childTasks
// value in JSON.
const childEnv = "BGAGENT_TEST_OPENCODE_CHILD"

// childTasks describes the work of a child process. The process launches a task for each prompt,
// writes the ids of the tasks to its standard output, and waits until it is killed.
type childTasks struct {
	URL, Directory, Store string
	Prompts               []string
	Limit                 int    // number of tasks that run concurrently
	Asks                  bool   // tasks can ask questions; the process also writes the questions' keys
	Agent                 string // agent of the tasks; empty means "worker"
}

func TestMain(m *testing.M) {
	if in := os.Getenv(childEnv); in != "" {
		fmt.Fprintln(os.Stderr, runChild(in))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func runChild(in string) error {
	var t childTasks
	if err := json.Unmarshal([]byte(in), &t); err != nil {
		return err
	}
	_, m, err := t.manager()
	if err != nil {
		return err
	}
	for _, prompt := range t.Prompts {
		task, err := m.Launch(context.Background(), bgagent.Caller{Session: "scope"}, bgagent.LaunchInput{Agent: cmp.Or(t.Agent, "worker"), Model: realagent.OpencodeModel, Prompt: prompt})
		if err != nil {
			return err
		}
		fmt.Println(task.ID)
		if t.Asks {
			q, err := awaitQuestion(context.Background(), m, task.ID)
			if err != nil {
				return err
			}
			fmt.Println(q.Key)
		}
	}
	time.Sleep(20 * time.Minute)
	return errors.New("nobody has killed the process")
}

// manager opens the store and returns a manager that uses the server.
func (t *childTasks) manager() (*opencode.Client, *bgagent.BackgroundManager, error) {
	c, err := opencode.New(opencode.Config{URL: t.URL, Directory: t.Directory})
	if err != nil {
		return nil, nil, err
	}
	m, err := bgagent.New(c, bgagent.Config{
		Store: &fileStore{path: t.Store}, PollInterval: 500 * time.Millisecond, Limits: bgagent.Limits{Default: t.Limit},
		Ask: t.Asks, CreateTimeout: patience, // a server that has just started can be slow
	})
	return c, m, err
}

// start starts the child process. It returns the first lines that the process writes: the ids of its
// tasks and the keys of their questions. It also returns a function that kills the process.
func (t *childTasks) start(tb testing.TB) (ids []string, kill func()) {
	tb.Helper()
	in, err := json.Marshal(t)
	require.NoError(tb, err)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+string(in))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	require.NoError(tb, err)
	require.NoError(tb, cmd.Start())
	kill = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // returns an error, because the process was killed
	})
	tb.Cleanup(kill)
	lines := bufio.NewReader(out)
	for range len(t.Prompts) * map[bool]int{false: 1, true: 2}[t.Asks] {
		line, err := lines.ReadString('\n')
		if err != nil {
			kill() // afterwards, stderr is complete
		}
		require.NoError(tb, err, "%s", &stderr)
		ids = append(ids, strings.TrimSpace(line))
	}
	return ids, kill
}

// fileStore is a store in a file, so its data survives the process. The file contains a JSON value
// for each batch.
type fileStore struct {
	path string

	mu      sync.Mutex
	file    *os.File
	batch   uint64
	records map[string]bgagent.StoreRecord
	texts   map[[2]string]string
}

func (s *fileStore) Open(context.Context, bgagent.StoreOwner) (c bgagent.StoreContents, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records, s.texts = map[string]bgagent.StoreRecord{}, map[[2]string]string{}
	all, err := os.ReadFile(s.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return c, err
	}
	for d := json.NewDecoder(bytes.NewReader(all)); d.More(); {
		var b bgagent.StoreBatch
		if err := d.Decode(&b); err != nil {
			return c, err
		}
		s.apply(&b)
	}
	s.file, err = os.OpenFile(s.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	c.Batch = s.batch
	for _, r := range s.records {
		if r.Due {
			c.Records = append(c.Records, r)
		}
	}
	return c, err
}

func (s *fileStore) apply(b *bgagent.StoreBatch) {
	s.batch = b.Number
	for _, key := range b.Delete {
		delete(s.records, key)
	}
	for _, r := range b.Records {
		s.records[r.Key] = r
	}
	for _, t := range b.Texts {
		s.texts[[2]string{t.Record, t.Name}] = t.Text
	}
}

func (s *fileStore) Write(_ context.Context, b *bgagent.StoreBatch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	text, err := json.Marshal(b)
	if err != nil {
		return err
	}
	s.apply(b)
	_, err = s.file.Write(text)
	return err
}

func (s *fileStore) Text(_ context.Context, record, name string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	text, ok := s.texts[[2]string{record, name}]
	if !ok {
		return "", bgagent.ErrNoText
	}
	return text, nil
}

func (*fileStore) History(context.Context, bgagent.StoreQuery) ([]bgagent.StoreRecord, error) {
	return nil, nil
}

func (s *fileStore) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.file.Close()
}

// The type "held" is a model that holds back its answers until the test releases them. The key of a
// conversation selects the answer.
type held struct {
	*testing.T
	w    *realagent.World
	mu   sync.Mutex
	said map[string]bool          // keys of the conversations where the model has sent the beginning of a text
	free map[string]chan struct{} // by conversation key; the channel is closed when the answer is released
}

func (h *held) gate(key string) chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.free[key] == nil {
		h.free[key] = make(chan struct{})
	}
	return h.free[key]
}

// release releases the answers in a conversation, and ends its command.
func (h *held) release(key string) {
	close(h.gate(key))
	require.NoError(h, os.WriteFile(h.file(key, "go"), nil, 0o644))
}

// file returns the path of a file that a command in the conversation uses.
func (h *held) file(key, name string) string { return filepath.Join(h.w.Dir, key+"."+name) }

// The method "has" reports whether the file exists.
func (h *held) has(key, name string) bool {
	_, err := os.Stat(h.file(key, name))
	return err == nil
}

func (h *held) reply(r modelserver.Request) modelserver.Reply {
	if !isMain(r) {
		return r.Scripted()
	}
	if strings.Contains(r.LastUser(), "The request was:") {
		return modelserver.Say("continued")
	}
	hold := func() {
		select {
		case <-h.gate(r.Key):
		case <-r.Context().Done():
		}
	}
	switch what, _, _ := strings.Cut(r.Key, "-"); {
	case what == "mute":
		hold()
	case what == "text":
		return modelserver.Reply{Pieces: func(yield func(string) bool) {
			if !yield("the an") {
				return
			}
			h.mu.Lock()
			h.said[r.Key] = true
			h.mu.Unlock()
			hold()
			yield("swer of " + r.Key)
		}}
	case what == "command" && len(r.LastResults()) == 0:
		args, err := json.Marshal(map[string]string{
			"command": fmt.Sprintf("echo run >>%s; while [ ! -e %s ]; do sleep 0.1; done", h.file(r.Key, "runs"), h.file(r.Key, "go")), "description": "waits",
		})
		if err != nil {
			panic(err)
		}
		return modelserver.Use("bash", string(args))
	}
	return modelserver.Say("the answer of " + r.Key)
}

// The method "until" waits until the condition is true.
func (h *held) until(what string, ok func() bool) {
	h.Helper()
	require.Eventually(h, ok, patience, 20*time.Millisecond, what)
}

// The method "asked" returns the requests of the conversation.
func (h *held) asked(key string) (list []modelserver.Request) {
	for _, r := range h.w.Model.Requests() {
		if isMain(r) && r.Key == key {
			list = append(list, r)
		}
	}
	return list
}

// The method "begun" waits until the conversation's turn has reached the state in which the test kills the
// manager.
func (h *held) begun(key string) {
	h.Helper()
	h.until(key+" begins", func() bool {
		switch what, _, _ := strings.Cut(key, "-"); what {
		case "text":
			h.mu.Lock()
			defer h.mu.Unlock()
			return h.said[key]
		case "command":
			return h.has(key, "runs")
		}
		return len(h.asked(key)) > 0
	})
}

// A manager is killed while it has tasks in all states. The task "text-2" receives its whole answer
// before the next manager starts. The task "waits" is pending when the first manager is killed.
func TestTasksOfAKilledManagerOnTheRealServer(t *testing.T) {
	w := realagent.New(t, "opencode")
	server := w.ServeOpencode(t)
	for i, x := range []struct {
		name string
		both bool // whether the server is also killed
	}{{"alone", false}, {"and its server", true}} {
		t.Run(x.name, func(t *testing.T) {
			h := &held{T: t, w: w, said: map[string]bool{}, free: map[string]chan struct{}{}}
			w.Model.Handle(h.reply)
			work := childTasks{URL: server.URL, Directory: w.Dir, Store: filepath.Join(tempdir.New(t), "store"), Limit: 4}
			var keys []string
			for _, key := range []string{"mute", "text", "command", "text-2", "waits"} {
				key = fmt.Sprintf("%s-%d", key, i)
				keys = append(keys, key)
				work.Prompts = append(work.Prompts, "@key "+key+"\nDo it.")
			}
			waits, answered := keys[4], keys[3]
			ids, kill := work.start(t)
			for _, key := range keys[:4] {
				h.begun(key)
			}
			require.Empty(t, h.asked(waits))
			kill()
			h.release(answered)
			session := h.asked(answered)[0].Session
			h.until("the server stores the answer", func() bool { return finished(t, server.URL, session) })
			if x.both {
				server.Restart()
			}
			c, m, err := work.manager()
			require.NoError(t, err)
			defer c.Close()
			defer m.Close(context.Background())
			m.Start()
			if !x.both {
				for _, key := range keys[:3] {
					h.release(key)
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
			defer cancel()
			got, err := m.Wait(ctx, bgagent.Caller{}, bgagent.WaitAll, ids...)
			require.NoError(t, err)
			for i, key := range keys {
				h.right(c, got[i], key, x.both && i < 3)
			}
		})
	}
}

// The function "finished" reports whether the server has stored a complete answer in the session.
func finished(t *testing.T, url, session string) bool {
	resp, err := http.Get(url + "/session/" + session + "/message")
	require.NoError(t, err)
	defer resp.Body.Close()
	var list []struct {
		Info struct {
			Finish string
			Time   struct{ Completed float64 }
		}
	}
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&list))
	for _, msg := range list {
		if msg.Info.Finish == "stop" && msg.Info.Time.Completed > 0 {
			return true
		}
	}
	return false
}

// The method "right" checks that none of the task's work was lost or done twice. If the task's turn
// was interrupted, a new attempt continues the task.
func (h *held) right(c *opencode.Client, got bgagent.Task, key string, broken bool) {
	h.Helper()
	require.Equal(h, bgagent.Completed, got.Status, "%s: %s", key, got.Reason)
	attempt, answer := 1, "the answer of "+key
	if broken {
		attempt, answer = 2, "continued"
	}
	require.Equal(h, answer, got.Result)
	require.Equal(h, attempt, got.Attempt, key)
	page, err := c.Messages(h.Context(), got.Session, "", 0)
	require.NoError(h, err)
	prompts := 0
	for _, msg := range page.Messages {
		if msg.PromptID != "" {
			prompts++
		}
	}
	require.Equal(h, attempt, prompts, "prompts in the session of %s", key)
	asked := attempt
	if strings.HasPrefix(key, "command") {
		asked = 2 // one request before the command and one after it, or one before the kill and one for the continuation
		runs, err := os.ReadFile(h.file(key, "runs"))
		require.NoError(h, err)
		require.Equal(h, "run\n", string(runs), "the command has run once")
	}
	require.Len(h, h.asked(key), asked, key)
}
