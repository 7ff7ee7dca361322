package bridge

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bgagent/bgagent"
)

// The variable "keyed" matches bridge keys.
var keyed = regexp.MustCompile(`^[a-z0-9]+-[a-z0-9]+-[0-9a-f]{16}$`)

// maxOpen is the maximum number of open bridges with the same key.
const maxOpen = 100

// Agent is what a server needs to know about a configured agent.
type Agent struct {
	Directory   string               // working directory of tasks that do not name a directory; can be empty
	Permissions []bgagent.Permission // the agent's rules
}

// Config holds the settings of a server.
type Config struct {
	// Tokens maps each bearer token to the name of its caller. Without tokens, only bridges on the
	// same machine are accepted, and Scope is the name of their caller.
	Tokens map[string]string
	Scope  string

	// Roots are the directories below which a bridge's directory must be. Their paths must not
	// contain symbolic links. Without roots, no bridge is accepted.
	Roots []string

	// Agents are the configured agents, by name.
	Agents map[string]Agent

	// Turn returns the task whose current turn has passed the mark to its programs. The error says
	// why these programs must not launch tasks.
	Turn func(mark string) (Task, error)

	// TaskInTurn returns the id of the task whose current turn has passed the mark to its programs, or "" if no
	// running turn has the mark.
	TaskInTurn func(mark string) string

	// Live reports whether the task with the given id is known and has not ended yet.
	Live func(id string) bool

	// Busy reports whether a task below the scope has not ended.
	Busy func(scope string) bool

	// Owed reports whether a notice or a foreground delegation waits for the next bridge with the scope.
	Owed func(scope string) bool

	// Gone is called when the server forgets a scope. A scope inside a turn is forgotten after its task has
	// ended. Any other scope is forgotten if it has not been used for a long time, or if there are too many
	// such scopes. Live, Busy, Owed and Gone are called with a lock held and must not call the server.
	Gone func(scope string)

	// File is the path of the file that stores the restrictions for bridges inside turns. The next server
	// reads the file. If the path is empty, these restrictions are lost when the server ends.
	File string

	// Serve serves one caller until the caller ends its input or ctx ends.
	Serve func(ctx context.Context, scope string, in io.ReadCloser, out io.Writer) error
}

// Task is a task that a bridge runs in.
type Task struct {
	ID      string
	Session string
	Above   []string // sessions above the task, from its caller's session to the root

	// Metadata is the task's metadata. [Server.Prepare] has added the restrictions of the bridges above the task.
	Metadata map[string]string
}

// Server accepts bridges. It is safe for concurrent use.
type Server struct {
	cfg     Config
	callers map[[sha256.Size]byte]string // by token hash, so that the duration of a look-up reveals nothing about the tokens
	answers time.Duration                // answerTime; tests change it
	unread  error                        // why Config.File could not be read

	mu     sync.Mutex
	scopes map[string]*scope
}

// connection is an open bridge. The contexts of the bridge's calls contain the connection.
type connection struct {
	dir  string
	turn string // see Hello.Turn
}

type connectionKey struct{}

// The function "within" returns a context for the calls of an open bridge.
func within(ctx context.Context, dir string, h Hello) context.Context {
	return context.WithValue(ctx, connectionKey{}, connection{dir, h.Turn})
}

// NewServer returns a server.
func NewServer(cfg Config) *Server {
	s := &Server{cfg: cfg, answers: answerTime, callers: map[[sha256.Size]byte]string{}, scopes: map[string]*scope{}}
	for token, name := range cfg.Tokens {
		s.callers[sha256.Sum256([]byte(token))] = name
	}
	s.unread = s.load()
	return s
}

// ServeHTTP implements [http.Handler]. It returns when the bridge has ended. If a bridge is
// refused, the body of the response is the error.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	caller, code, err := s.caller(r)
	if err != nil {
		if code == http.StatusUnauthorized {
			w.Header().Set("WWW-Authenticate", `Bearer realm="bgagent"`)
		}
		http.Error(w, err.Error(), code)
		return
	}
	hello, err := decode(r.Header.Get(helloHeader))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	dir, err := s.below(hello.Directory)
	if err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	take, code := s.take, http.StatusTooManyRequests
	if hello.Turn != "" {
		take, code = s.takeInTurn, http.StatusForbidden
	}
	name, err := take(caller, dir, hello)
	if err != nil {
		http.Error(w, err.Error(), code)
		return
	}
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		s.leave(name)
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer conn.Close()
	defer s.leave(name) // runs before conn.Close, so that a restarted bridge gets the same scope
	_ = conn.SetDeadline(time.Time{})
	if _, err := io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+protocol+"\r\n\r\n"); err != nil {
		return
	}
	defer context.AfterFunc(r.Context(), func() { _ = conn.Close() })()
	ctx, cancel := context.WithCancel(within(r.Context(), dir, hello))
	defer cancel()
	// The connection must be read without the buffered reader of net/http. At the end of the input, that
	// reader cancels the request's context, and the answers that follow would be lost.
	early, _ := buffered.Reader.Peek(buffered.Reader.Buffered())
	in := io.MultiReader(bytes.NewReader(early), conn)
	_ = s.cfg.Serve(ctx, name, input{in, conn, func() { time.AfterFunc(s.answers, cancel) }}, conn) // an error means that the connection broke
}

// answerTime is how long a bridge still gets answers after it ends its input. Without this limit, a call that
// only waits for a task would keep the scope for a long time.
const answerTime = time.Second

// input is the input of a connection from which some bytes have already been read.
type input struct {
	io.Reader
	io.Closer
	end func() // called at the end of the input
}

// Read implements [io.Reader].
func (i input) Read(p []byte) (int, error) {
	n, err := i.Reader.Read(p)
	if err != nil {
		i.end()
	}
	return n, err
}

// caller returns the caller's name, or the status and the reason for a refusal.
func (s *Server) caller(r *http.Request) (name string, code int, err error) {
	switch {
	case r.Header.Get("Origin") != "":
		return "", http.StatusForbidden, errors.New("requests of web pages are refused")
	case !strings.EqualFold(r.Header.Get("Upgrade"), protocol):
		return "", http.StatusUpgradeRequired, errors.New("this is the address for bgagent mcp --via")
	case len(s.callers) == 0:
		if host, _, err := net.SplitHostPort(r.RemoteAddr); err != nil || !net.ParseIP(host).IsLoopback() {
			return "", http.StatusForbidden, errors.New("bridges without a token are accepted only on the same machine")
		}
		return s.cfg.Scope, 0, nil
	}
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	name, known := s.callers[sha256.Sum256([]byte(token))]
	switch {
	case !ok:
		return "", http.StatusUnauthorized, errors.New("the server wants a token; name its file with --token-file FILE")
	case !known:
		return "", http.StatusUnauthorized, errors.New("the server does not know the token")
	}
	return name, 0, nil
}

// The method "below" returns the path of the directory, with all symbolic links resolved. If the directory is
// not below a root, it returns an error.
func (s *Server) below(dir string) (string, error) {
	if len(s.cfg.Roots) == 0 {
		return "", errors.New("the server accepts no bridges; start it with --root DIR, where DIR contains the directories in which their tasks may work")
	}
	real, err := filepath.EvalSymlinks(dir)
	if err == nil {
		for _, root := range s.cfg.Roots {
			if rel, err := filepath.Rel(root, real); err == nil && filepath.IsLocal(rel) {
				return real, nil
			}
		}
	}
	// The error must not reveal whether another directory exists.
	return "", fmt.Errorf("the directory %s is not below a --root of the server: %s", dir, strings.Join(s.cfg.Roots, ", "))
}

// Prepare completes a caller's launch. It adds the restrictions for the launch to the task's metadata. It
// does nothing if the caller is not a bridge. The context must be that of a call over the bridge. The error
// says that the project's file does not allow the launch, or that the bridge's turn has ended.
func (s *Server) Prepare(ctx context.Context, by bgagent.Caller, in bgagent.LaunchInput) (bgagent.LaunchInput, error) {
	sc, narrow := s.find(by.Session)
	if sc == nil {
		return in, nil
	}
	refused := func(problem string) (bgagent.LaunchInput, error) {
		return in, &bgagent.InputError{Field: "LaunchInput.Agent", Problem: problem}
	}
	if problem := s.outlived(ctx, sc); problem != "" {
		return refused(problem)
	}
	if problem := s.refuses(narrow, in.Agent); problem != "" {
		return refused(problem)
	}
	text, err := record(narrow)
	if err != nil {
		return refused(err.Error())
	}
	if in.Metadata = maps.Clone(in.Metadata); in.Metadata == nil {
		in.Metadata = map[string]string{}
	}
	in.Metadata[recordKey] = text
	if in.Directory == "" && s.cfg.Agents[in.Agent].Directory == "" {
		in.Directory = sc.dir
		if sc.task != "" {
			in.Directory = connectionOf(ctx).dir
		}
	}
	for _, n := range narrow {
		in.Budget, in.TreeBudget = narrower(in.Budget, n.TaskBudget), narrower(in.TreeBudget, n.TreeBudget)
	}
	return in, nil
}

// connectionOf returns the bridge to which a call's context belongs, or the zero value if there is none.
func connectionOf(ctx context.Context) connection {
	c, _ := ctx.Value(connectionKey{}).(connection)
	return c
}

// The method "outlived" returns the reason for a refusal if the turn that contains the bridge has ended.
// Otherwise, the result is "".
func (s *Server) outlived(ctx context.Context, sc *scope) string {
	if sc.task == "" || s.cfg.TaskInTurn(connectionOf(ctx).turn) == sc.task {
		return ""
	}
	return "the turn of task " + sc.task + " inside which this bridge was started has ended, so the bridge launches and resumes nothing any more"
}

// Instead is the advice for a task that may not be resumed. It is part of a sentence.
const Instead = ". Delegate a new task instead, with an agent that is allowed"

// Resumes returns the reason why the project's file does not allow a bridge to resume the task or to send it
// a message, and what to do instead. The argument "scope" is the scope of the bridge. The result is "" if the
// bridge may do so, or if no bridge has this scope. The check is needed because the task may have been
// launched before the file was changed. A bridge inside a turn may not resume a task after the turn has
// ended. The context must be that of a call over the bridge. The argument "open" contains the trees' open
// accounts.
func (s *Server) Resumes(ctx context.Context, scope string, t bgagent.Task, open []bgagent.TreeBudget) string {
	sc, narrow := s.find(scope)
	if sc == nil {
		return ""
	}
	if problem := s.outlived(ctx, sc); problem != "" {
		return problem
	}
	if problem := s.refuses(narrow, t.Agent); problem != "" {
		return problem + Instead
	}
	root := scope
	if len(sc.above) > 0 {
		root = sc.above[len(sc.above)-1]
	}
	// The tree's account must already be open with the file's limits, because a resume would open it without
	// these limits.
	var tree bgagent.Budget
	for _, b := range open {
		if b.Root == root {
			tree = b.Limit
		}
	}
	for _, n := range narrow {
		if narrower(t.Budget.Limit, n.TaskBudget) != t.Budget.Limit {
			return "the project's file sets a smaller budget for each task than task " + t.ID + " has" + Instead
		}
		if narrower(tree, n.TreeBudget) != tree {
			return "the project's file sets a budget for all tasks together, and only a new task opens this budget" + Instead
		}
	}
	return ""
}

// The method "refuses" returns the reason why the restrictions do not allow the agent, or "" if they allow
// it.
func (s *Server) refuses(narrow []Narrow, name string) string {
	agent, known := s.cfg.Agents[name]
	for _, n := range narrow {
		rules, ruled := n.Rules[name]
		switch {
		case n.NoAgents, slices.Contains(n.Without, name):
			return "the project's file removes the agent " + name
		case ruled && known && !reflect.DeepEqual(rules, agent.Permissions):
			return "the project's file restricts the agent " + name + " by permissions that the server does not have for it, so it cannot be used here"
		}
	}
	return ""
}
