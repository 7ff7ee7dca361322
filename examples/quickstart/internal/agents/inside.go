package agents

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/token"
	"go/types"
	"io"
	"os"
	"path"
	"slices"
	"strings"
)

// This file examines the inside of one package with the type checker: the references between
// types, functions and files.

// The method "biggest" returns an answer about the internals of the module's biggest package.
func (t *Turn) biggest(ctx context.Context, src *source) (string, error) {
	p := slices.MaxFunc(src.pkgs, func(a, b *pkg) int { return cmp.Compare(a.lineCount(), b.lineCount()) })
	exports, err := t.exports(ctx, src, p)
	if err != nil {
		return "", err
	}
	t.done(1)
	info := &types.Info{Uses: map[*ast.Ident]types.Object{}, Defs: map[*ast.Ident]types.Object{}}
	if err := t.check(ctx, src, p, exports, info); err != nil {
		return "", err
	}
	decls, files, initial := src.references(p, info)
	var b strings.Builder
	fmt.Fprintf(&b, "The biggest package is %s (`%s`): %s in %s, %s.\n", p.name, p.dir,
		count(p.lineCount(), "line"), count(len(files), "file"), typesAndFunctions(len(decls)))
	writeMost(&b, "Most referred to", decls.in())
	out := map[string]int{}
	for a, to := range decls {
		out[a] = len(to)
	}
	writeMost(&b, "Refer to most", out)
	writeCycles(&b, "files", files.cycles())
	writeCycles(&b, "types and functions", decls.cycles())
	var alone []string
	in := decls.in()
	for _, d := range sorted(decls) {
		if in[d] == 0 && !initial[d] && !ast.IsExported(d[strings.LastIndex(d, ".")+1:]) && !strings.Contains(d, ".") && d != "main" && d != "init" {
			alone = append(alone, d)
		}
	}
	if len(alone) > 0 {
		fmt.Fprintf(&b, "Unexported, and not used outside tests: %s.\n", strings.Join(alone[:min(len(alone), 2*mostMembers)], ", "))
	}
	writeLargest(&b, src, []*pkg{p})
	return b.String(), nil
}

func typesAndFunctions(n int) string {
	if n == 1 {
		return "1 type or function"
	}
	return fmt.Sprintf("%d types and functions", n)
}

func writeMost(b *strings.Builder, title string, n map[string]int) {
	names := slices.SortedFunc(slices.Values(sorted(n)), func(x, y string) int {
		return cmp.Or(cmp.Compare(n[y], n[x]), cmp.Compare(x, y))
	})
	var parts []string
	for _, name := range names[:min(len(names), 6)] {
		if n[name] > 0 {
			parts = append(parts, fmt.Sprintf("%s (%d)", name, n[name]))
		}
	}
	if len(parts) > 0 {
		fmt.Fprintf(b, "%s: %s.\n", title, strings.Join(parts, ", "))
	}
}

// The method "exports" returns the files with the export data of all the package's dependencies, by
// import path. The go command builds missing files into its cache.
func (t *Turn) exports(ctx context.Context, src *source, p *pkg) (map[string]string, error) {
	list, err := t.goList(ctx, "-export", "-deps", "-json=ImportPath,Export,Error", "./"+p.dir)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		src.broken = append(src.broken, err.Error())
	}
	files := map[string]string{}
	for _, l := range list {
		if l.Export != "" {
			files[l.ImportPath] = l.Export
		}
		if l.Error != nil {
			src.complain(l.ImportPath, *l.Error)
		}
	}
	return files, nil
}

// The method "check" type-checks the package as far as possible. If the package does not build or
// an import cannot be found, the data in info is incomplete.
func (t *Turn) check(ctx context.Context, src *source, p *pkg, exports map[string]string, info *types.Info) error {
	lookup := func(path string) (io.ReadCloser, error) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		name, ok := exports[path]
		if !ok {
			return nil, errors.New("there is no export data for " + path)
		}
		return os.Open(name)
	}
	conf := types.Config{
		Importer:    importer.ForCompiler(src.fset, "gc", lookup),
		FakeImportC: true,
		Error:       func(error) {}, // the compiler has already reported the errors
	}
	_ = t.tool("type-check "+p.dir, func() error {
		_, err := conf.Check(p.path, src.fset, p.built(), info)
		return err
	})
	return ctx.Err()
}

// The method "references" returns the references between declarations and between files in the
// package. The set "initial" holds the declarations that variables and constants refer to. Methods
// are separate nodes with names such as Type.Method.
func (src *source) references(p *pkg, info *types.Info) (decls, files graph, initial map[string]bool) {
	decls, files, initial = graph{}, graph{}, map[string]bool{}
	owner := map[types.Object]string{} // node of each declared object
	for _, f := range p.built() {
		for _, d := range f.Decls {
			for name, node := range declared(d) {
				decls.node(node)
				if obj := info.Defs[name]; obj != nil {
					owner[obj] = node
				}
			}
		}
	}
	for _, f := range p.built() {
		files.node(src.fileOf(f.Pos()))
		for _, d := range f.Decls {
			src.refer(d, p, info, owner, decls, files, initial)
		}
	}
	return decls, files, initial
}

// The method "refer" adds the references of one declaration to the graphs and to the set "initial".
func (src *source) refer(d ast.Decl, p *pkg, info *types.Info, owner map[types.Object]string, decls, files graph, initial map[string]bool) {
	from := src.fileOf(d.Pos())
	add := func(part ast.Node, node string) {
		ast.Inspect(part, func(n ast.Node) bool {
			id, ok := n.(*ast.Ident)
			if !ok {
				return true
			}
			obj := origin(info.Uses[id])
			if obj == nil || obj.Pkg() == nil || obj.Pkg().Path() != p.path {
				return true
			}
			if to, ok := owner[obj]; ok {
				if node != "" {
					decls.edge(node, to)
				} else {
					initial[to] = true
				}
				files.edge(from, src.fileOf(obj.Pos()))
			}
			return true
		})
	}
	switch d := d.(type) {
	case *ast.FuncDecl:
		add(d, funcName(d))
	case *ast.GenDecl:
		for _, s := range d.Specs {
			if ts, ok := s.(*ast.TypeSpec); ok {
				add(s, ts.Name.Name)
			} else {
				add(s, "")
			}
		}
	}
}

// origin returns the generic declaration of an instantiated function, and other objects
// unchanged.
func origin(obj types.Object) types.Object {
	if fn, ok := obj.(*types.Func); ok {
		return fn.Origin()
	}
	return obj
}

// The function "declared" returns the nodes of the types and functions in a declaration, by
// identifier.
func declared(d ast.Decl) map[*ast.Ident]string {
	names := map[*ast.Ident]string{}
	switch d := d.(type) {
	case *ast.FuncDecl:
		names[d.Name] = funcName(d)
	case *ast.GenDecl:
		for _, s := range d.Specs {
			if ts, ok := s.(*ast.TypeSpec); ok {
				names[ts.Name] = ts.Name.Name
			}
		}
	}
	return names
}

func (src *source) fileOf(p token.Pos) string { return path.Base(src.fset.Position(p).Filename) }

// The method "outline" returns an answer about a function that an earlier answer named: its calls,
// its statements and their branches.
func (t *Turn) outline(ctx context.Context, p place) (string, error) {
	t.plan("read the sources", "look into the function")
	src, err := t.readAgain(ctx)
	if err != nil {
		return "", err
	}
	t.done(0)
	decl, _ := src.declAt(p)
	fn, ok := decl.(*ast.FuncDecl)
	if !ok {
		return fmt.Sprintf("At `%s:%d`, which my earlier answer named, there is no longer a function.\n", p.file, p.line), nil
	}
	var b strings.Builder
	fmt.Fprintf(&b, "Number %d of my earlier answer was `%s:%d`, %s.\n", p.number, p.file, p.line, p.what)
	calls := map[string]int{}
	ast.Inspect(fn, func(n ast.Node) bool {
		if c, ok := n.(*ast.CallExpr); ok {
			calls[types.ExprString(c.Fun)]++
		}
		return true
	})
	short := map[string]int{}
	for c, n := range calls {
		if !strings.ContainsAny(c, "({\n") { // skips calls whose function is a literal or the result of another call
			short[c] = n
		}
	}
	fmt.Fprintf(&b, "It calls %s.", count(len(short), "function"))
	if len(short) > 0 {
		b.WriteByte(' ')
		writeMost(&b, "Most often", short)
	} else {
		b.WriteByte('\n')
	}
	if fn.Body != nil {
		b.WriteString("Its parts:\n")
		for _, s := range fn.Body.List {
			if n := src.lineCount(s); n > 1 {
				fmt.Fprintf(&b, "- `%s` %s, %s, %s\n", src.at(s.Pos()), statement(s), count(n, "line"), count(branches(s), "branch"))
			}
		}
	}
	t.done(1)
	return b.String() + brokenNote(src.broken), nil
}

// The function "statement" names the kind of a statement.
func statement(s ast.Stmt) string {
	switch s.(type) {
	case *ast.IfStmt:
		return "if"
	case *ast.ForStmt, *ast.RangeStmt:
		return "loop"
	case *ast.SwitchStmt, *ast.TypeSwitchStmt:
		return "switch"
	case *ast.SelectStmt:
		return "select"
	case *ast.DeferStmt:
		return "defer"
	case *ast.GoStmt:
		return "goroutine"
	case *ast.ReturnStmt:
		return "return"
	case *ast.AssignStmt:
		return "assignment"
	case *ast.ExprStmt:
		return "call"
	default:
		return "statement"
	}
}
