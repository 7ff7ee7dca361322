// Command ring prints the rings among the functions in the files state*.go of a package. A
// ring is a set of functions that call each other in a circle. For example, the end of a
// task can free a slot, the free slot can start another task, and that task can end. In the
// root package, an update of the state handles these consequences only at the end of the
// update. Therefore, the root package should have no rings except among the functions that
// walk the tree of tasks.
//
//	ring [-allow end,cascade] [DIR]
//
// The exit status is 1 if a ring contains a function that the flag -allow does not name, and 2 if the
// package cannot be loaded. A call through an interface counts as a call to every implementation in
// the package.
package main

import (
	"flag"
	"fmt"
	"go/ast"
	"go/token"
	"go/types"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/tools/go/packages"
)

func main() {
	allow := flag.String("allow", "", "names of functions that may be in a ring, separated by commas")
	flag.Parse()
	dir := "."
	if flag.NArg() > 0 {
		dir = flag.Arg(0)
	}
	rings, err := ringsOf(dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, "ring:", err)
		os.Exit(2)
	}
	allowed := strings.Split(*allow, ",")
	bad := false
	for _, ring := range rings {
		fmt.Printf("ring of %d: %s\n", len(ring), strings.Join(ring, ", "))
		for _, name := range ring {
			if !slices.Contains(allowed, name) {
				bad = true
				fmt.Printf("  %s is not allowed in a ring\n", name)
			}
		}
	}
	fmt.Printf("%d ring(s)\n", len(rings))
	if bad {
		os.Exit(1)
	}
}

// ringsOf returns the rings among the functions in the files state*.go, largest ring first.
// Each ring is sorted by name.
func ringsOf(dir string) ([][]string, error) {
	cfg := &packages.Config{Dir: dir, Mode: packages.NeedName | packages.NeedFiles | packages.NeedSyntax | packages.NeedTypes | packages.NeedTypesInfo | packages.NeedImports | packages.NeedDeps}
	list, err := packages.Load(cfg, ".")
	if err != nil {
		return nil, err
	}
	if len(list) != 1 || len(list[0].Errors) > 0 {
		return nil, fmt.Errorf("loading the package in %s: %v", dir, list[0].Errors)
	}
	g := graph{pkg: list[0], calls: map[*types.Func][]*types.Func{}}
	g.build()
	return g.rings(), nil
}

type graph struct {
	pkg   *packages.Package
	calls map[*types.Func][]*types.Func
}

// The method "build" fills the graph with the calls that each function makes.
func (g *graph) build() {
	for _, file := range g.pkg.Syntax {
		if !isState(g.pkg.Fset, file.Pos()) {
			continue
		}
		for _, decl := range file.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok || f.Body == nil {
				continue
			}
			from := g.pkg.TypesInfo.Defs[f.Name].(*types.Func)
			ast.Inspect(f.Body, func(n ast.Node) bool {
				if id, ok := n.(*ast.Ident); ok { // a method value counts as a call
					if to, ok := g.pkg.TypesInfo.Uses[id].(*types.Func); ok {
						g.calls[from] = append(g.calls[from], g.targets(to.Origin())...)
					}
				}
				return true
			})
		}
	}
}

// The method "targets" returns the functions that a call to f can reach.
func (g *graph) targets(f *types.Func) []*types.Func {
	recv := f.Type().(*types.Signature).Recv()
	if recv == nil || !types.IsInterface(recv.Type()) {
		return []*types.Func{f}
	}
	face := recv.Type().Underlying().(*types.Interface)
	var out []*types.Func
	scope := g.pkg.Types.Scope()
	for _, name := range scope.Names() {
		named, ok := scope.Lookup(name).Type().(*types.Named)
		if !ok || types.IsInterface(named) {
			continue
		}
		if ptr := types.NewPointer(named); types.Implements(ptr, face) {
			if m, _, _ := types.LookupFieldOrMethod(ptr, true, g.pkg.Types, f.Name()); m != nil {
				out = append(out, m.(*types.Func))
			}
		}
	}
	return out
}

func isState(fset *token.FileSet, pos token.Pos) bool {
	return strings.HasPrefix(filepath.Base(fset.Position(pos).Filename), "state")
}

// The method "rings" returns the strongly connected components with more than one function, and the
// functions that call themselves. It uses Tarjan's algorithm.
func (g *graph) rings() (out [][]string) {
	index, low, on := map[*types.Func]int{}, map[*types.Func]int{}, map[*types.Func]bool{}
	var stack []*types.Func
	var visit func(f *types.Func)
	visit = func(f *types.Func) {
		index[f] = len(index) + 1
		low[f] = index[f]
		stack, on[f] = append(stack, f), true
		for _, to := range g.calls[f] {
			switch {
			case index[to] == 0:
				visit(to)
				low[f] = min(low[f], low[to])
			case on[to]:
				low[f] = min(low[f], index[to])
			}
		}
		if low[f] != index[f] {
			return
		}
		i := slices.Index(stack, f)
		ring := stack[i:]
		stack = stack[:i]
		var names []string
		for _, member := range ring {
			on[member] = false
			names = append(names, member.Name())
		}
		if len(names) > 1 || slices.Contains(g.calls[f], f) {
			slices.Sort(names)
			out = append(out, names)
		}
	}
	for f := range g.calls {
		if index[f] == 0 {
			visit(f)
		}
	}
	slices.SortFunc(out, func(a, b []string) int { return len(b) - len(a) })
	return out
}
