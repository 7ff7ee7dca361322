package agents

import (
	"cmp"
	"context"
	"fmt"
	"go/ast"
	"go/token"
	"slices"
	"strings"
)

const (
	mostFunctions = 8  // maximum number of functions listed
	mostMembers   = 8  // maximum number of members listed per cycle
	mostCycles    = 5  // maximum number of cycles listed
	mostRows      = 30 // maximum number of packages in the table
)

// Oracle measures the architecture of the module. If the prompt mentions the biggest package,
// functions or declarations, it measures the internals of the biggest package. Otherwise, it
// measures the packages and their imports. In a later turn, it describes one of the functions
// that it listed.
func Oracle(ctx context.Context, t *Turn) (string, error) {
	if p, ok := t.recall(); ok {
		return t.outline(ctx, p)
	}
	if len(t.Earlier) > 0 {
		return t.nothingToShow(), nil
	}
	t.plan("read the sources", "ask the compiler", "measure")
	src, err := t.readAgain(ctx)
	if err != nil {
		return "", err
	}
	if len(src.pkgs) == 0 {
		return "The module contains no Go package.\n" + brokenNote(src.broken), nil
	}
	t.done(0)
	prompt := strings.ToLower(t.Prompt)
	var answer string
	if strings.Contains(prompt, "biggest") || strings.Contains(prompt, "function") || strings.Contains(prompt, "declaration") {
		answer, err = t.biggest(ctx, src)
	} else {
		answer, err = t.packages(ctx, src)
	}
	if err != nil {
		return "", err
	}
	t.done(2)
	return answer + brokenNote(src.broken), nil
}

// The method "packages" returns an answer about the module's packages and the imports between them.
func (t *Turn) packages(ctx context.Context, src *source) (string, error) {
	if err := t.build(ctx, src); err != nil {
		return "", err
	}
	t.done(1)
	g, outside := graph{}, map[string]int{}
	own := map[string]bool{}
	for _, p := range src.pkgs {
		own[p.path] = true
	}
	for _, p := range src.pkgs {
		g.node(p.path)
		for _, im := range p.imports() {
			if own[im] {
				g.edge(p.path, im)
			} else {
				outside[p.path]++
			}
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s, %s, %s with tests.\n\n", orUnnamed(src.module), count(len(src.pkgs), "package"), count(src.files, "file"), count(src.lines, "line"))
	b.WriteString("| package | lines | imports of the module | imported by | imports from outside |\n| --- | ---: | ---: | ---: | ---: |\n")
	bySize := slices.SortedStableFunc(slices.Values(src.pkgs), func(x, y *pkg) int { return cmp.Compare(y.lineCount(), x.lineCount()) })
	in := g.in()
	for i, p := range bySize {
		if i == mostRows {
			fmt.Fprintf(&b, "| and %s | | | | |\n", count(len(bySize)-i, "smaller one"))
			break
		}
		fmt.Fprintf(&b, "| %s | %d | %d | %d | %d |\n", p.label(), p.lineCount(), len(g[p.path]), in[p.path], outside[p.path])
	}
	writeCycles(&b, "packages", g.cycles())
	var alone []string
	for _, p := range bySize {
		if in[p.path] == 0 && p.name != "main" {
			alone = append(alone, p.label())
		}
	}
	if len(alone) > 0 {
		fmt.Fprintf(&b, "Imported by no other package of the module: %s.\n", strings.Join(alone, ", "))
	} else {
		b.WriteString("Every package except the commands is imported by another package.\n")
	}
	writeLargest(&b, src, src.pkgs)
	return b.String(), nil
}

// The method "build" makes the go command build the module, and adds the errors to src.broken. The
// go command writes only to its cache.
func (t *Turn) build(ctx context.Context, src *source) error {
	list, err := t.goList(ctx, "-export", "-json=ImportPath,Error,DepsErrors", "./...")
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		src.broken = append(src.broken, err.Error())
	}
	bad := 0
	for _, p := range list {
		if p.Error != nil || len(p.DepsErrors) > 0 {
			bad++
		}
		if p.Error != nil {
			src.complain(p.ImportPath, *p.Error)
		}
		for _, e := range p.DepsErrors {
			src.complain("", *e)
		}
	}
	t.say("%d of %s do not build.", bad, count(len(list), "package"))
	return nil
}

func writeCycles(b *strings.Builder, between string, cycles [][]string) {
	if len(cycles) == 0 {
		fmt.Fprintf(b, "\nNo cycles between %s.\n", between)
		return
	}
	fmt.Fprintf(b, "\n%s between %s:\n", count(len(cycles), "cycle"), between)
	for i, c := range cycles {
		if i == mostCycles {
			fmt.Fprintf(b, "- and %d more\n", len(cycles)-i)
			break
		}
		names := c
		more := ""
		if len(c) > mostMembers {
			names, more = c[:mostMembers], fmt.Sprintf(" and %d more", len(c)-mostMembers)
		}
		fmt.Fprintf(b, "- of %d: %s%s\n", len(c), strings.Join(names, ", "), more)
	}
}

// function describes a function and its size.
type function struct {
	place, name     string
	lines, branches int
}

// The function "largest" returns the functions of the packages, largest first. It leaves out
// functions in tests.
func largest(src *source, pkgs []*pkg) []function {
	var all []function
	for _, p := range pkgs {
		for _, f := range p.files {
			if f.test {
				continue
			}
			for _, d := range f.ast.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok {
					all = append(all, function{src.at(fn.Name.Pos()), funcName(fn), src.lineCount(fn), branches(fn)})
				}
			}
		}
	}
	slices.SortStableFunc(all, func(a, b function) int { return cmp.Compare(b.lines, a.lines) })
	return all
}

func funcName(fn *ast.FuncDecl) string {
	if recv := receiver(fn); recv != "" {
		return recv + "." + fn.Name.Name
	}
	return fn.Name.Name
}

// The function "branches" returns the number of branches in a function or a statement.
func branches(n ast.Node) int {
	count := 0
	ast.Inspect(n, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.IfStmt, *ast.ForStmt, *ast.RangeStmt:
			count++
		case *ast.CaseClause:
			if n.List != nil {
				count++
			}
		case *ast.CommClause:
			if n.Comm != nil {
				count++
			}
		case *ast.BinaryExpr:
			if n.Op == token.LAND || n.Op == token.LOR {
				count++
			}
		}
		return true
	})
	return count
}

func writeLargest(b *strings.Builder, src *source, pkgs []*pkg) {
	all := largest(src, pkgs)
	if len(all) == 0 {
		b.WriteString("There are no functions.\n")
		return
	}
	b.WriteString("\nLargest functions:\n")
	for i, f := range all[:min(len(all), mostFunctions)] {
		fmt.Fprintf(b, "%d. `%s` - %s, %s, %s\n", i+1, f.place, f.name, count(f.lines, "line"), count(f.branches, "branch"))
	}
}
