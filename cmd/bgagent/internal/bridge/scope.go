package bridge

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/bgagent/bgagent"
)

// scope holds what the server knows about one scope.
type scope struct {
	open     int       // number of open bridges; at most 1 unless the bridges are inside a turn
	left     time.Time // time when the last bridge ended
	dir      string    // directory of the bridge; "" if the bridges are inside a turn, because each of them has its own directory
	narrow   []Narrow  // restrictions of its bridges; inside a turn, only the restrictions that the field "launched" does not contain
	launched []Narrow  // restrictions that applied to the task's launch
	task     string    // id of the task whose turn contains the bridges; "" if there is none
	above    []string  // see Task.Above; nil if there is no task
}

// take reserves a scope that no other open bridge uses, and returns its name.
func (s *Server) take(caller, dir string, h Hello) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep()
	for n := 1; n <= maxOpen; n++ {
		name := fmt.Sprintf("%s/%s-%d", caller, h.Key, n)
		if sc := s.scopes[name]; sc == nil || sc.open == 0 {
			s.scopes[name] = &scope{open: 1, dir: dir, narrow: []Narrow{h.Narrow}}
			return name, nil
		}
	}
	return "", fmt.Errorf("%d bridges of this project and program are open; end some", maxOpen)
}

// takeInTurn returns the name of the scope for a bridge inside a turn. The name is the session id of the
// turn's task.
func (s *Server) takeInTurn(caller, dir string, h Hello) (string, error) {
	t, err := s.cfg.Turn(h.Turn)
	if err != nil {
		return "", err
	}
	root := t.Above[len(t.Above)-1]
	if root != caller && !strings.HasPrefix(root, caller+"/") {
		return "", errors.New("it is inside a turn of a task of another caller")
	}
	launched, err := launchedUnder(t, caller)
	if err == nil {
		err = s.unread
	}
	if err != nil {
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if root != caller && s.scopes[root] == nil {
		return "", errors.New("the program that has launched the tasks above has not connected since this server was started, or for a day, so its restrictions are not known; start that program again")
	}
	s.sweep()
	sc := scope{task: t.ID, above: t.Above, launched: launched}
	if known := s.scopes[t.Session]; known != nil {
		sc.open, sc.narrow = known.open, known.narrow
	}
	// The account of the tree belongs to the root. A task must not narrow the account for tasks that are not
	// below it.
	n := h.Narrow
	n.TaskBudget, n.TreeBudget = narrower(n.TaskBudget, n.TreeBudget), bgagent.Budget{}
	before := len(sc.narrow)
	if !contains(launched, n) {
		sc.narrow = joined(slices.Clone(sc.narrow), n)
	}
	if _, err := record(s.restrictions(&sc)); err != nil {
		return "", err
	}
	sc.open++
	scopes := maps.Clone(s.scopes)
	scopes[t.Session] = &sc
	if len(sc.narrow) > before {
		if err := s.save(scopes); err != nil {
			return "", fmt.Errorf("its restrictions cannot be kept: %w", err)
		}
	}
	s.scopes = scopes
	return t.Session, nil
}

// Limits for scopes that no bridge has and that are not inside a turn. Each project has such a scope for each
// host program. No task is lost when a scope is forgotten: the next bridge gets the same name, and therefore
// finds the tasks.
const (
	// idleTime is how long a scope is kept after its last bridge has ended. If a person resumes one of its
	// tasks within this time, the restrictions of the scope still apply.
	idleTime = 24 * time.Hour
	// maxIdle is the maximum number of scopes that are kept after all tasks below them have ended.
	maxIdle = 1000
)

// The method "sweep" forgets the scopes of tasks that have ended, because such a task launches nothing. It
// also forgets scopes that have not been used for a long time. s.mu must be held.
func (s *Server) sweep() {
	var idle []string
	lost := false // the file contains a forgotten scope
	for name, sc := range s.scopes {
		switch {
		case sc.open > 0 || sc.task != "" && s.cfg.Live(sc.task):
		case sc.task != "":
			lost = lost || len(sc.narrow) > 0
			s.forget(name)
		case time.Since(sc.left) >= idleTime && !s.cfg.Busy(name) && !s.cfg.Owed(name):
			s.forget(name)
		default:
			idle = append(idle, name)
		}
	}
	if lost {
		_ = s.save(s.scopes) // if this fails, the next server ignores the scopes of tasks that have ended
	}
	if len(idle) <= maxIdle {
		return
	}
	idle = slices.DeleteFunc(idle, s.cfg.Busy)
	slices.SortFunc(idle, func(a, b string) int { return s.scopes[a].left.Compare(s.scopes[b].left) })
	for _, name := range idle[:max(0, len(idle)-maxIdle)] {
		s.forget(name)
	}
}

// The method "forget" deletes a scope that no bridge has. s.mu must be held.
func (s *Server) forget(name string) {
	delete(s.scopes, name)
	s.cfg.Gone(name)
}

// The method "leave" makes the scope available again. Its restrictions are kept until the next bridge takes
// the scope. If the scope is inside a turn, they are kept until the task ends.
func (s *Server) leave(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sc := s.scopes[name]
	sc.open--
	sc.left = time.Now()
}

// find returns a copy of the scope with the name, and all restrictions that apply to it. If the server knows
// no such scope, the scope is nil.
func (s *Server) find(name string) (*scope, []Narrow) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sc := s.scopes[name]
	if sc == nil {
		return nil, nil
	}
	found := *sc
	return &found, s.restrictions(sc)
}

// The method "restrictions" returns all restrictions that apply to the bridges with the scope. s.mu must be
// held.
func (s *Server) restrictions(sc *scope) []Narrow {
	all := joined(slices.Clone(sc.narrow), sc.launched...)
	for _, session := range sc.above {
		// If the server no longer knows a scope, sc.launched still contains the restrictions that applied
		// when the task was launched.
		if over := s.scopes[session]; over != nil {
			all = joined(all, over.narrow...)
		}
	}
	return all
}
