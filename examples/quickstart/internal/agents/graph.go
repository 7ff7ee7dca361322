package agents

import (
	"cmp"
	"slices"
)

// graph holds, for each node, the set of nodes that it refers to.
type graph map[string]map[string]bool

func (g graph) node(a string) {
	if g[a] == nil {
		g[a] = map[string]bool{}
	}
}

func (g graph) edge(a, b string) {
	g.node(a)
	g.node(b)
	if a != b {
		g[a][b] = true
	}
}

// The function "sorted" returns the keys of a map in sorted order, so that answers are always the
// same.
func sorted[V any](set map[string]V) []string {
	keys := make([]string, 0, len(set))
	for k := range set {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// The method "in" returns, for each node, the number of nodes that refer to it.
func (g graph) in() map[string]int {
	n := map[string]int{}
	for _, to := range g {
		for b := range to {
			n[b]++
		}
	}
	return n
}

// The method "cycles" returns the groups of two or more nodes that can all reach each other,
// largest first. The groups are strongly connected components, found with Tarjan's algorithm.
func (g graph) cycles() [][]string {
	s := search{g: g, index: map[string]int{}, low: map[string]int{}, on: map[string]bool{}}
	for _, v := range sorted(g) {
		if s.index[v] == 0 {
			s.visit(v)
		}
	}
	slices.SortStableFunc(s.found, func(a, b []string) int {
		return cmp.Or(cmp.Compare(len(b), len(a)), cmp.Compare(a[0], b[0]))
	})
	return s.found
}

type search struct {
	g          graph
	index, low map[string]int // index and lowlink in Tarjan's algorithm, starting at 1
	on         map[string]bool
	stack      []string
	found      [][]string
}

func (s *search) visit(v string) {
	s.index[v] = len(s.index) + 1
	s.low[v] = s.index[v]
	s.stack, s.on[v] = append(s.stack, v), true
	for _, w := range sorted(s.g[v]) {
		if s.index[w] == 0 {
			s.visit(w)
			s.low[v] = min(s.low[v], s.low[w])
		} else if s.on[w] {
			s.low[v] = min(s.low[v], s.index[w])
		}
	}
	if s.low[v] != s.index[v] {
		return
	}
	at := slices.Index(s.stack, v)
	group := slices.Clone(s.stack[at:])
	s.stack = s.stack[:at]
	for _, w := range group {
		s.on[w] = false
	}
	if len(group) > 1 {
		slices.Sort(group)
		s.found = append(s.found, group)
	}
}
