package agents

import (
	"cmp"
	"context"
	"fmt"
	"go/ast"
	"slices"
	"strings"
)

// mostFindings is the maximum number of findings in an answer from Explore.
const mostFindings = 12

// Explore finds the declarations that match the words in the prompt. It searches the names and
// documentation of packages, types and functions. It lists the best findings first. In a later
// turn, it shows the source of one finding and the files that use its name.
func Explore(ctx context.Context, t *Turn) (string, error) {
	if p, ok := t.recall(); ok {
		return t.showFinding(ctx, p)
	}
	if len(t.Earlier) > 0 {
		return t.nothingToShow(), nil
	}
	words := Words(t.Prompt)
	if len(words) == 0 {
		return "", fmt.Errorf("the prompt %q contains no words to look for; put the words in quotation marks", t.Prompt)
	}
	t.plan("read the sources", "compare names and documentation", "rank")
	mod, modErr := t.modFile(ctx)
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	src, err := t.read(ctx, mod.Module.Path)
	if err != nil {
		return "", err
	}
	if modErr != nil {
		src.broken = append(src.broken, modErr.Error())
	}
	t.done(0)
	var found []finding
	for _, p := range src.pkgs {
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		hits := findIn(src, p, words)
		if len(hits) > 0 {
			t.say("%s in package %s.", count(len(hits), "place"), p.name)
		}
		found = append(found, hits...)
	}
	t.done(1)
	slices.SortStableFunc(found, func(a, b finding) int {
		return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(b.lines, a.lines), cmp.Compare(a.place, b.place))
	})
	t.done(2)
	return findings(src, words, found) + brokenNote(src.broken), nil
}

func findings(src *source, words []string, found []finding) string {
	var b strings.Builder
	wanted := `"` + strings.Join(words, `", "`) + `"`
	if len(src.pkgs) == 0 {
		return "The module contains no Go package.\n"
	}
	if len(found) == 0 {
		fmt.Fprintf(&b, "Nothing in %s is called, or documented as, %s. Packages there are:\n", orUnnamed(src.module), wanted)
		for i, p := range src.pkgs {
			fmt.Fprintf(&b, "%d. `%s` - package %s\n", i+1, p.dir, p.name)
		}
		return b.String()
	}
	fmt.Fprintf(&b, "Found %s for %s in %s (%s, %s, %s)", count(len(found), "place"), wanted, orUnnamed(src.module),
		count(len(src.pkgs), "package"), count(src.files, "file"), count(src.lines, "line"))
	if len(found) > mostFindings {
		fmt.Fprintf(&b, "; the best %d", mostFindings)
		found = found[:mostFindings]
	}
	b.WriteString(":\n")
	for i, f := range found {
		fmt.Fprintf(&b, "%d. `%s` - %s", i+1, f.place, f.what)
		if f.doc != "" {
			fmt.Fprintf(&b, ": %s", f.doc)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func orUnnamed(module string) string { return cmp.Or(module, "the module") }

// finding is a declaration that matches the words in the prompt.
type finding struct {
	place string // file:line
	what  string // kind and name
	doc   string // first sentence
	score int
	lines int
}

// findIn returns the findings in a package.
func findIn(src *source, p *pkg, words []string) []finding {
	var found []finding
	add := func(n, name ast.Node, id, kind, sig string, doc *ast.CommentGroup, weight int) {
		text := ""
		if doc != nil {
			text = sentence(doc.Text())
		}
		score := scoreOf(id, text, words)
		if score == 0 {
			return
		}
		if ast.IsExported(id) {
			score += 2
		}
		found = append(found, finding{
			place: src.at(name.Pos()), what: kind + " " + sig, doc: text, score: score + weight, lines: src.lineCount(n),
		})
	}
	named := false
	for _, f := range p.files {
		if f.test {
			continue
		}
		if !named && (f.ast.Doc != nil || f == p.files[len(p.files)-1]) {
			named = true
			add(f.ast.Name, f.ast.Name, p.name, "package", p.name, f.ast.Doc, 1)
		}
		for _, d := range f.ast.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				sig, kind := d.Name.Name, "func"
				if recv := receiver(d); recv != "" {
					sig, kind = recv+"."+sig, "method"
				}
				add(d, d.Name, d.Name.Name, kind, sig, d.Doc, 2)
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					if s, ok := spec.(*ast.TypeSpec); ok {
						doc := s.Doc
						if doc == nil {
							doc = d.Doc
						}
						add(s, s.Name, s.Name.Name, "type", s.Name.Name, doc, 3)
					}
				}
			}
		}
	}
	return found
}

// receiver returns the name of a method's type, or "" for a function.
func receiver(d *ast.FuncDecl) string {
	if d.Recv == nil || len(d.Recv.List) == 0 {
		return ""
	}
	for e := d.Recv.List[0].Type; ; {
		switch x := e.(type) {
		case *ast.StarExpr:
			e = x.X
		case *ast.ParenExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.IndexListExpr:
			e = x.X
		case *ast.Ident:
			return x.Name
		default:
			return "?"
		}
	}
}

// scoreOf rates how well a declaration matches the words. 0 means no match. For each word,
// the score is highest if the name equals the word. It is lower if a part of the name equals
// the word, lower still if a part is related to the word, and lowest if only the
// documentation contains a related word.
func scoreOf(id, doc string, words []string) int {
	score := 0
	for _, w := range words {
		best := 0
		parts := nameParts(id)
		for _, part := range parts {
			switch {
			case part == w && len(parts) == 1:
				best = max(best, 14)
			case part == w:
				best = max(best, 10)
			case related(part, w):
				best = max(best, 7)
			}
		}
		if best == 0 {
			for _, part := range nameParts(doc) {
				if related(part, w) {
					best = 2
				}
			}
		}
		score += best
	}
	return score
}

// The function "related" reports whether two words have a long common beginning, for example
// "authenticate" and "authentication", "auth" and "authentication", or "slot" and "slots".
func related(a, b string) bool {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	shorter := min(len(a), len(b))
	return n >= 4 && n*4 >= shorter*3 || n == shorter && a == b
}

// nameParts splits s into lower-case words. It also splits names at their capital letters:
// HTTPServerPool becomes "http", "server" and "pool".
func nameParts(s string) []string {
	var parts []string
	r := []rune(s)
	start := -1
	flush := func(end int) {
		if start >= 0 {
			parts = append(parts, strings.ToLower(string(r[start:end])))
		}
		start = -1
	}
	for i, c := range r {
		upper := c >= 'A' && c <= 'Z'
		switch {
		case !upper && (c < 'a' || c > 'z') && c < 0x80:
			flush(i)
			continue
		case upper && i > 0 && (isLower(r[i-1]) || i+1 < len(r) && isLower(r[i+1])):
			flush(i)
		}
		if start < 0 {
			start = i
		}
	}
	flush(len(r))
	return parts
}

func isLower(r rune) bool { return r >= 'a' && r <= 'z' }

// Words returns the words that a prompt asks Explore to find. These are the words in quotation marks or, if
// there are no quotation marks, all words. The words in the variable "filling" are left out.
func Words(prompt string) []string {
	text := prompt
	if parts := strings.Split(prompt, `"`); len(parts) > 2 {
		text = ""
		for i := 1; i < len(parts)-1; i += 2 {
			text += " " + parts[i]
		}
	}
	var words []string
	for _, w := range nameParts(text) {
		if len(w) > 1 && !slices.Contains(filling, w) && !slices.Contains(words, w) {
			words = append(words, w)
		}
	}
	return words
}

var filling = strings.Fields(`a all and any are as at be by code do does find for from get go how if implementation
	implemented in into is it its list look made me module name of on or out package please search show source that
	the their this to type use used uses what when where which who with`)
