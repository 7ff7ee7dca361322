package agents

import (
	"context"
	"fmt"
	"go/ast"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// A later turn uses the agent's own earlier answers. The answers contain numbered places in
// the source, and the prompt of the later turn names one of the numbers.

// place is a numbered entry of an earlier answer.
type place struct {
	number int
	file   string
	line   int
	what   string
}

var (
	placeLine = regexp.MustCompile("(?m)^(\\d+)\\. `([^`]+):(\\d+)` - (.*)$")
	number    = regexp.MustCompile(`\d+`)
	ordinals  = []string{"first", "second", "third", "fourth", "fifth"}
)

// The method "recall" returns the place whose number the prompt names. It takes the place from the
// latest answer that contains the number. It returns false in a first turn, or if no earlier answer
// contains the number.
func (t *Turn) recall() (place, bool) {
	n := asked(t.Prompt)
	for i := len(t.Earlier) - 1; i >= 0; i-- {
		for _, m := range placeLine.FindAllStringSubmatch(t.Earlier[i], -1) {
			if m[1] == strconv.Itoa(n) {
				line, _ := strconv.Atoi(m[3])         // the pattern matches only digits
				what, _, _ := strings.Cut(m[4], ": ") // cuts off the documentation
				return place{n, m[2], line, what}, true
			}
		}
	}
	return place{}, false
}

// nothingToShow returns the answer for a later turn whose prompt names a number that no
// earlier answer contains.
func (t *Turn) nothingToShow() string {
	return fmt.Sprintf("My earlier answers name nothing with the number %d, so there is nothing to show.\n", asked(t.Prompt))
}

// The function "asked" returns the number that a prompt names in digits or as an ordinal. If the
// prompt does not name a number, it returns 1.
func asked(prompt string) int {
	if n, err := strconv.Atoi(number.FindString(prompt)); err == nil {
		return n
	}
	for i, o := range ordinals {
		if strings.Contains(strings.ToLower(prompt), o) {
			return i + 1
		}
	}
	return 1
}

// showFinding returns an answer with the source of the declaration at a place and the uses of
// the declaration's name.
func (t *Turn) showFinding(ctx context.Context, p place) (string, error) {
	t.plan("read the sources", "find the uses")
	src, err := t.readAgain(ctx)
	if err != nil {
		return "", err
	}
	t.done(0)
	decl, id := src.declAt(p)
	if decl == nil {
		return fmt.Sprintf("At `%s:%d`, which my earlier answer named, there is no longer a declaration.\n", p.file, p.line), nil
	}
	var b strings.Builder
	fmt.Fprintf(&b, "Finding %d of my earlier answer was %s, at `%s:%d`. Its source:\n\n", p.number, p.what, p.file, p.line)
	text, err := t.lines(p.file, src.fset.Position(decl.Pos()).Line, src.lineCount(decl))
	if err != nil {
		return "", err
	}
	b.WriteString(text)
	uses, total := src.uses(ctx, id), 0
	for _, u := range uses {
		total += u.n
	}
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	fmt.Fprintf(&b, "\nApart from its declaration, the name %s occurs in %s in %s:\n", id.Name, count(total, "place"), count(len(uses), "file"))
	for _, u := range uses {
		fmt.Fprintf(&b, "- `%s` %d\n", u.file, u.n)
	}
	t.done(1)
	return b.String() + brokenNote(src.broken), nil
}

// readAgain reads the module again. Later turns call it, because the source may have changed.
func (t *Turn) readAgain(ctx context.Context) (*source, error) {
	mod, err := t.modFile(ctx)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	src, readErr := t.read(ctx, mod.Module.Path)
	if readErr == nil && err != nil {
		src.broken = append(src.broken, err.Error())
	}
	return src, readErr
}

// declAt returns the declaration at the place and the declaration's name.
func (src *source) declAt(p place) (decl ast.Node, id *ast.Ident) {
	for _, pk := range src.pkgs {
		for _, f := range pk.files {
			if f.name != p.file {
				continue
			}
			if src.fset.Position(f.ast.Name.Pos()).Line == p.line {
				return f.ast.Name, f.ast.Name
			}
			ast.Inspect(f.ast, func(n ast.Node) bool {
				switch d := n.(type) {
				case *ast.FuncDecl:
					if src.fset.Position(d.Name.Pos()).Line == p.line {
						decl, id = d, d.Name
					}
				case *ast.TypeSpec:
					if src.fset.Position(d.Name.Pos()).Line == p.line {
						decl, id = d, d.Name
					}
				}
				return decl == nil
			})
		}
	}
	return decl, id
}

type use struct {
	file string
	n    int
}

// The method "uses" returns, for each file, the number of identifiers with the same name as id. It
// does not count id itself.
func (src *source) uses(ctx context.Context, id *ast.Ident) []use {
	var all []use
	for _, p := range src.pkgs {
		for _, f := range p.files {
			if ctx.Err() != nil {
				return nil
			}
			n := 0
			ast.Inspect(f.ast, func(x ast.Node) bool {
				if i, ok := x.(*ast.Ident); ok && i.Name == id.Name && i != id {
					n++
				}
				return true
			})
			if n > 0 {
				all = append(all, use{f.name, n})
			}
		}
	}
	return all
}

// The method "lines" returns n lines of a file, but at most 40, indented as code. The first line
// has the number that the parameter "from" gives.
func (t *Turn) lines(name string, from, n int) (string, error) {
	const most = 40
	var text []byte
	err := t.tool("read "+name, func() (err error) {
		text, err = os.ReadFile(filepath.Join(t.Dir, filepath.FromSlash(name)))
		return err
	})
	if err != nil {
		return "", err
	}
	all := strings.Split(string(text), "\n")
	var b strings.Builder
	for i := from - 1; i < min(from-1+n, from-1+most, len(all)); i++ {
		b.WriteString("    " + all[i] + "\n")
	}
	if n > most {
		fmt.Fprintf(&b, "    … and %s\n", count(n-most, "more line"))
	}
	return b.String(), nil
}

var (
	packageLine = regexp.MustCompile("(?m)^(\\d+)\\. `([^`:]+)`")
	usesLine    = regexp.MustCompile(`; uses (.*)$`)
)

// library is a numbered package in an earlier answer, with the symbols that the module uses.
type library struct {
	number  int
	path    string
	symbols []string
}

// recallPackage returns the package whose number the prompt names. It takes the package from
// the latest answer that contains the number.
func (t *Turn) recallPackage() (library, bool) {
	n := asked(t.Prompt)
	for i := len(t.Earlier) - 1; i >= 0; i-- {
		answer := t.Earlier[i]
		for _, at := range packageLine.FindAllStringSubmatchIndex(answer, -1) {
			if answer[at[2]:at[3]] != strconv.Itoa(n) {
				continue
			}
			l := library{number: n, path: answer[at[4]:at[5]]}
			entry := strings.SplitN(answer[at[1]:], "\n", 3)
			if len(entry) < 2 {
				return l, true
			}
			if m := usesLine.FindStringSubmatch(entry[1]); m != nil {
				for s := range strings.SplitSeq(m[1], ", ") {
					s, _, _ = strings.Cut(s, " ")
					l.symbols = append(l.symbols, s)
				}
			}
			return l, true
		}
	}
	return library{}, false
}

// readSymbols returns an answer with the documentation of the package's symbols that an earlier
// answer named.
func (t *Turn) readSymbols(ctx context.Context, l library) (string, error) {
	if len(l.symbols) == 0 {
		return fmt.Sprintf("My earlier answer named no symbol of number %d, `%s`, that the module uses.\n", l.number, l.path), nil
	}
	t.plan("read the documentation of " + count(len(l.symbols), "symbol"))
	var b strings.Builder
	var broken []string
	fmt.Fprintf(&b, "Number %d of my earlier answer was `%s`. The symbols that the module uses most:\n", l.number, l.path)
	var p listed
	switch list, err := t.goList(ctx, "-json=ImportPath,Dir", l.path); {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case err != nil:
		broken = append(broken, err.Error())
	case len(list) > 0:
		p = list[0]
	}
	for _, s := range l.symbols {
		doc, err := t.doc(ctx, p, s)
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		if err != nil {
			broken = append(broken, err.Error())
			continue
		}
		if doc == "" {
			doc = "it has no documentation"
		}
		fmt.Fprintf(&b, "- `%s` - %s\n", s, doc)
	}
	t.done(0)
	return b.String() + brokenNote(broken), nil
}
