package control

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/bgagent/bgagent"
	bgnats "github.com/bgagent/bgagent/nats"
)

// maxBody is the maximum size of a request body, in bytes. A prompt of 1 MiB can take six times as much space
// in JSON.
const maxBody = 8 << 20

// Host describes what a server lets commands see and control.
type Host struct {
	Manager  *bgagent.BackgroundManager
	Instance string // instance id of the manager
	Info     Info
	// Log returns part of a task's log, as transcript.ReadLog does.
	Log func(ctx context.Context, task string, from int64) (text string, next int64, err error)
	// Cluster finds tasks that the manager does not have. It can be nil.
	Cluster *bgnats.Cluster
	// RemoveLog removes a task's log.
	RemoveLog func(task string) error
	// Serve serves a listener's connections until the server is closed. It limits the number of connections.
	Serve func(*http.Server, net.Listener) error
}

// bodyTime limits how long a client can take to send the body of a request.
const bodyTime = 30 * time.Second

// Server serves the commands.
type Server struct {
	dir    string
	file   address
	listen net.Listener
	http   *http.Server
}

// Listen starts serving commands, and writes the file with the address into dir, the store's folder. The
// store must belong to this process.
func Listen(dir string, h Host) (*Server, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &Server{dir: dir, listen: listener, file: address{Address: listener.Addr().String(), Token: rand.Text() + rand.Text(), Instance: h.Instance}}
	s.http = &http.Server{Handler: s.guard(h.routes()), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}
	if err := s.file.write(dir); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	go func() { _ = h.Serve(s.http, listener) }()
	return s, nil
}

// Close removes the file with the address and ends all requests. It does nothing if the Server is
// nil.
func (s *Server) Close() error {
	if s == nil {
		return nil
	}
	var err error
	if now, found, _ := read(s.dir); found && now.Token == s.file.Token { // otherwise, the file is another server's
		err = os.Remove(filepath.Join(s.dir, fileName))
	}
	return errors.Join(err, s.http.Close())
}

// helloName is the request with a challenge.
const helloName = "hello"

// The method "guard" returns a handler that passes on to h only requests that have the token and cannot come
// from a web page. A browser adds an Origin header to POST requests from web pages. If the page's own domain
// resolves to loopback (DNS rebinding), the Host header contains that domain. The returned handler also
// answers challenges, which need no token.
func (s *Server) guard(h http.Handler) http.Handler {
	want := sha256.Sum256([]byte(s.file.Token))
	hello := http.NewServeMux()
	handle(hello, helloName, func(_ context.Context, c challenge) (proof, error) { return s.file.prove(c), nil })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTime))
		token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		got := sha256.Sum256([]byte(token))
		switch {
		case r.Host != s.file.Address:
			writeError(w, http.StatusMisdirectedRequest, &Error{Text: fmt.Sprintf("this server is not known as %q", r.Host)})
		case r.Header.Get("Origin") != "":
			writeError(w, http.StatusForbidden, &Error{Text: "requests of web pages are refused"})
		case r.URL.Path == "/"+helloName:
			hello.ServeHTTP(w, r)
		case subtle.ConstantTimeCompare(got[:], want[:]) != 1:
			writeError(w, http.StatusUnauthorized, &Error{Text: "the token is wrong; it is in the file " + fileName + " beside the store"})
		default:
			h.ServeHTTP(w, r)
		}
	})
}

// The method "routes" returns the handler for all requests. To add a request, add a line here and a method to
// [Client].
func (h Host) routes() http.Handler {
	mux := http.NewServeMux()
	handle(mux, "status", h.status)
	handle(mux, "task", h.task)
	handle(mux, "shared", h.shared)
	handle(mux, "cluster", h.cluster)
	handle(mux, "log", h.log)
	handle(mux, "cancel", h.cancel)
	handle(mux, "resume", h.resume)
	handle(mux, "send", h.send)
	handle(mux, "answer", h.answer)
	handle(mux, "forget", h.forget)
	return mux
}

// handle serves requests with the given name. Input and output are JSON.
func handle[In, Out any](mux *http.ServeMux, name string, do func(context.Context, In) (Out, error)) {
	mux.HandleFunc("POST /"+name, func(w http.ResponseWriter, r *http.Request) {
		var in In
		dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&in); err != nil {
			writeError(w, http.StatusBadRequest, &Error{Text: fmt.Sprintf("reading the request: %v", err), Input: true})
			return
		}
		_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // an expired deadline would look like the end of the connection
		out, err := do(r.Context(), in)
		if err != nil {
			writeError(w, http.StatusUnprocessableEntity, &Error{Text: strings.TrimPrefix(err.Error(), "bgagent: "), Input: isInput(err)})
			return
		}
		writeJSON(w, http.StatusOK, out)
	})
}

// isInput reports whether the manager's error says that the request was invalid.
func isInput(err error) bool {
	var input *bgagent.InputError
	return errors.As(err, &input) || errors.Is(err, bgagent.ErrUnknownTask) || errors.Is(err, bgagent.ErrExpired) || errors.Is(err, bgagent.ErrNoQuestion) ||
		errors.Is(err, bgnats.ErrProcessDead) // the commands exit with the same code as if no serve were running
}

func writeError(w http.ResponseWriter, code int, e *Error) { writeJSON(w, code, e) }

func writeJSON(w http.ResponseWriter, code int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		code, b = http.StatusInternalServerError, []byte(`{"error":"the answer cannot be written as JSON"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(b) // an error means that the command has exited
}

// maxPlaces is the maximum number of waiting tasks whose places in line are looked up.
const maxPlaces = 100

func (h Host) status(context.Context, struct{}) (Status, error) {
	s := Status{Info: h.Info, Pools: h.Manager.Concurrency().Pools()}
	places := 0
	for _, t := range h.Manager.List(bgagent.Query{Status: []bgagent.Status{bgagent.Pending, bgagent.Running}}) {
		if t.Status == bgagent.Pending && places < maxPlaces {
			places++
			if full, err := h.Manager.Get(t.ID); err == nil { // List does not return the task's place in line
				t = full
			}
		}
		t.Prompt, t.Result, t.Metadata = "", "", nil
		s.Tasks = append(s.Tasks, t)
	}
	return s, nil
}

// find returns a task that is in memory or in the store.
func (h Host) find(id string) (bgagent.Task, error) {
	t, err := h.Manager.Get(id)
	if err != nil {
		t, err = h.Manager.Read(bgagent.Caller{}, id)
	}
	t.Metadata = nil
	return t, err
}

func (h Host) task(ctx context.Context, in TaskInput) (bgagent.Task, error) {
	t, err := h.find(in.ID)
	if h.isElsewhere(err) {
		s, err := h.shared(ctx, in)
		return s.Task, err
	}
	return t, err
}

func (h Host) shared(ctx context.Context, in TaskInput) (out SharedTask, err error) {
	if h.Cluster == nil {
		return out, errNoCluster
	}
	if t, err := h.find(in.ID); !h.isElsewhere(err) { // a task of this process can be read even if the servers of the cluster do not answer
		return SharedTask{Task: t, Process: h.Cluster.Self()}, err
	}
	out.Task, out.Process, err = h.Cluster.Read(ctx, in.ID)
	out.Task.Metadata = nil
	return out, err
}

var errNoCluster error = &bgagent.InputError{Field: "cluster", Problem: "this server is not a process of a cluster"}

// isElsewhere reports whether the manager's error means that the manager does not have the task, but that
// another process of the cluster might have it.
func (h Host) isElsewhere(err error) bool {
	return h.Cluster != nil && errors.Is(err, bgagent.ErrUnknownTask)
}

func (h Host) cluster(ctx context.Context, in ClusterInput) (out []ClusterProcess, err error) {
	if h.Cluster == nil {
		return nil, errNoCluster
	}
	all, err := h.Cluster.Tasks(ctx, in.Ended)
	for _, p := range all {
		x := ClusterProcess{ProcessTasks: p}
		if p.Err != nil {
			x.Problem = p.Err.Error()
		}
		out = append(out, x)
	}
	return out, err
}

func (h Host) log(ctx context.Context, in LogInput) (LogPart, error) {
	t, err := h.find(in.ID)
	if h.isElsewhere(err) {
		err = fmt.Errorf("the log of a task is only on the machine of its process; run the command there: %w", err)
	}
	if err != nil {
		return LogPart{}, err
	}
	part := LogPart{Ended: t.Status.Terminal()}
	part.Text, part.Next, err = h.Log(ctx, t.ID, in.From)
	return part, err
}

func (h Host) cancel(ctx context.Context, in CancelInput) (bgagent.Task, error) {
	t, err := h.Manager.Cancel(ctx, bgagent.Caller{}, in.ID, bgagent.CancelOptions{Reason: in.Reason})
	if h.isElsewhere(err) {
		t, err = h.Cluster.Cancel(ctx, in.ID, in.Reason)
	}
	return t, err
}

// resume resumes a task. The new attempt outlives the request, so it must not end with the request's context.
func (h Host) resume(ctx context.Context, in ResumeInput) (bgagent.Task, error) {
	if in.Prompt == "" {
		t, err := h.find(in.ID)
		if err != nil {
			return t, err
		}
		in.Prompt = t.Prompt
	}
	return h.Manager.Resume(context.WithoutCancel(ctx), bgagent.Caller{}, in.ID, bgagent.ResumeInput{Prompt: in.Prompt, Model: in.Model})
}

func (h Host) send(ctx context.Context, in SendInput) (bgagent.SendResult, error) {
	r, err := h.Manager.Send(context.WithoutCancel(ctx), bgagent.Caller{}, in.ID, bgagent.SendInput{Key: in.Key, Text: in.Text, Now: in.Now})
	if errors.Is(err, bgagent.ErrAlreadyEnded) { // the manager's error names the method for Go programs
		if t, gone := h.find(in.ID); gone == nil {
			err = fmt.Errorf("send: task %s is %s: %w; bgagent resume %[1]s PROMPT continues it", t.ID, t.Status, bgagent.ErrAlreadyEnded)
		}
	}
	return r, err
}

func (h Host) answer(ctx context.Context, in AnswerInput) (bgagent.Question, error) {
	given := bgagent.AnswerInput{Key: in.Key, Option: in.Option}
	q, err := h.Manager.Answer(context.WithoutCancel(ctx), bgagent.Caller{}, in.ID, given)
	if h.isElsewhere(err) {
		q, err = h.Cluster.Answer(context.WithoutCancel(ctx), in.ID, given)
	}
	return q, err
}

// forget deletes the tasks concurrently, so that the store deletes many of them in one write.
func (h Host) forget(ctx context.Context, in ForgetInput) (out ForgetResult, err error) {
	if len(in.IDs) > MaxForget {
		return out, &bgagent.InputError{Field: "ids", Problem: fmt.Sprintf("has %d ids; it must have at most %d", len(in.IDs), MaxForget)}
	}
	errs := make([]error, len(in.IDs))
	var all sync.WaitGroup
	for i, id := range in.IDs {
		all.Go(func() {
			err := h.Manager.Forget(context.WithoutCancel(ctx), bgagent.Caller{}, id, bgagent.ForgetOptions{Force: in.Force})
			if err == nil || errors.Is(err, bgagent.ErrUnknownTask) { // another caller might have deleted the task, but not its log
				err = h.RemoveLog(id)
			}
			errs[i] = err
		})
	}
	all.Wait()
	for _, err := range errs {
		if err == nil {
			out.Deleted++
			continue
		}
		list := &out.Failed
		if errors.Is(err, bgagent.ErrStillLive) || errors.Is(err, bgagent.ErrStillNeeded) || errors.Is(err, bgagent.ErrNotStopped) {
			list = &out.Needed
		}
		*list = append(*list, strings.TrimPrefix(err.Error(), "bgagent: forget: "))
	}
	return out, nil
}
