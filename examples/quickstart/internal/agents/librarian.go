package agents

import (
	"cmp"
	"context"
	"fmt"
	"go/ast"
	"slices"
	"strings"
)

const (
	mostPackages = 10 // maximum number of packages whose documentation is read in one turn
	mostSymbols  = 6  // maximum number of symbols listed per package
)

// Librarian reads the documentation of the module's direct dependencies and lists the symbols
// that the module uses. If the prompt contains "standard" or the module has no direct dependencies,
// the librarian reads about the packages of the standard library instead. In a later turn, it reads
// the documentation of the symbols that it listed for one package.
func Librarian(ctx context.Context, t *Turn) (string, error) {
	if entry, ok := t.recallPackage(); ok {
		return t.readSymbols(ctx, entry)
	}
	if len(t.Earlier) > 0 {
		return t.nothingToShow(), nil
	}
	t.plan("read go.mod", "see what is imported", "read the documentation")
	mod, modErr := t.modFile(ctx)
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	t.done(0)
	src, err := t.read(ctx, mod.Module.Path)
	if err != nil {
		return "", err
	}
	if modErr != nil {
		src.broken = append(src.broken, modErr.Error())
	}
	known, err := t.known(ctx, src, mod)
	if err != nil {
		return "", err
	}
	used, err := src.imported(ctx, known)
	if err != nil {
		return "", err
	}
	t.done(1)
	answer, err := t.readLibraries(ctx, src, mod, used)
	if err != nil {
		return "", err
	}
	t.done(2)
	return answer + brokenNote(src.broken), nil
}

func (t *Turn) readLibraries(ctx context.Context, src *source, mod modFile, used map[string]*imported) (string, error) {
	direct := 0
	for _, r := range mod.Require {
		if !r.Indirect {
			direct++
		}
	}
	if strings.Contains(strings.ToLower(t.Prompt), "standard") {
		return t.standard(ctx, src, used)
	}
	if direct == 0 {
		std, err := t.standard(ctx, src, used)
		return orUnnamed(mod.Module.Path) + " has no direct dependencies.\n\n" + std, err
	}
	return t.dependencies(ctx, src, mod, used)
}

// The type "imported" is a package that the module imports, together with the module's uses of the
// package.
type imported struct {
	listed                 // description by the go command; only ImportPath for an unknown package
	files   int            // number of importing files
	tests   int            // number of importing files that are tests
	symbols map[string]int // number of uses of each symbol
	uses    int            // number of uses of all symbols
}

// The method "known" returns the go command's descriptions of all the module's dependencies, by
// import path. It adds to src.broken the errors in the module itself and the imports that no module
// provides. The method "describe" adds the errors in packages of dependencies.
func (t *Turn) known(ctx context.Context, src *source, mod modFile) (map[string]listed, error) {
	all, err := t.goList(ctx, "-deps", "-test", "-json=ImportPath,Name,Dir,Standard,Module,Error", "./...")
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		src.broken = append(src.broken, err.Error())
	}
	known := map[string]listed{}
	for _, p := range all {
		known[p.ImportPath] = p
		if p.Error != nil && (src.owns(p.ImportPath) || mod.provider(p) == "") {
			src.complain(p.ImportPath, *p.Error)
		}
	}
	return known, nil
}

// The method "imported" returns the imported packages by import path, with the number of importing
// files and the number of uses of each symbol. Uses are recognized by the package name. If a file
// redeclares this name, uses of the redeclared name are also counted.
func (src *source) imported(ctx context.Context, known map[string]listed) (map[string]*imported, error) {
	all := map[string]*imported{}
	for _, p := range src.pkgs {
		for _, f := range p.files {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			src.importedBy(f, known, all)
		}
	}
	return all, nil
}

func (src *source) importedBy(f *file, known map[string]listed, all map[string]*imported) {
	names := map[string]*imported{}
	for _, spec := range f.ast.Imports {
		path := strings.Trim(spec.Path.Value, "`\"")
		im := all[path]
		if im == nil {
			im = &imported{listed: known[path], symbols: map[string]int{}}
			im.ImportPath = path
			all[path] = im
		}
		im.files++
		if f.test {
			im.tests++
		}
		if spec.Name != nil {
			names[spec.Name.Name] = im
			continue
		}
		names[cmp.Or(im.Name, packageName(path))] = im
	}
	ast.Inspect(f.ast, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if x, ok := sel.X.(*ast.Ident); ok && sel.Sel.IsExported() && names[x.Name] != nil {
			names[x.Name].symbols[sel.Sel.Name]++
			names[x.Name].uses++
		}
		return true
	})
}

// packageName guesses the name of a package that cannot be read. The guess is the last element
// of the import path, or the element before it if the last element is a major version.
func packageName(path string) string {
	parts := strings.Split(path, "/")
	last := parts[len(parts)-1]
	if len(parts) > 1 && len(last) > 1 && last[0] == 'v' && strings.Trim(last[1:], "0123456789") == "" {
		last = parts[len(parts)-2]
	}
	return last
}

// The method "top" returns the used symbols, most used first.
func (im *imported) top() []string {
	names := make([]string, 0, len(im.symbols))
	for s := range im.symbols {
		names = append(names, s)
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(im.symbols[b], im.symbols[a]), cmp.Compare(a, b))
	})
	return names
}

// The method "describe" reads the documentation of one package and writes the package's entry to b.
func (t *Turn) describe(ctx context.Context, src *source, b *strings.Builder, im *imported) error {
	doc, err := t.doc(ctx, im.listed)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		src.broken = append(src.broken, im.ImportPath+": "+err.Error())
		doc = "its documentation cannot be read here"
	case doc == "":
		doc = "it has no documentation"
	}
	fmt.Fprintf(b, "%s\n   %s", doc, count(im.files, "file"))
	switch im.tests {
	case 0:
	case im.files:
		b.WriteString(", all of them tests")
	default:
		fmt.Fprintf(b, ", %d of them tests", im.tests)
	}
	for i, s := range im.top() {
		switch {
		case i == mostSymbols:
			fmt.Fprintf(b, " and %d more", len(im.symbols)-mostSymbols)
		case i > mostSymbols:
		case i == 0:
			fmt.Fprintf(b, "; uses %s (%d)", s, im.symbols[s])
		default:
			fmt.Fprintf(b, ", %s (%d)", s, im.symbols[s])
		}
	}
	b.WriteByte('\n')
	return nil
}

func byUse(a, b *imported) int {
	return cmp.Or(cmp.Compare(b.uses, a.uses), cmp.Compare(b.files, a.files), cmp.Compare(a.ImportPath, b.ImportPath))
}

// The method "standard" returns an answer about the standard-library packages that the module uses.
func (t *Turn) standard(ctx context.Context, src *source, used map[string]*imported) (string, error) {
	var std []*imported
	for _, im := range used {
		if im.Standard && im.ImportPath != "unsafe" { // package unsafe is part of the language
			std = append(std, im)
		}
	}
	slices.SortFunc(std, byUse)
	var b strings.Builder
	if len(std) == 0 {
		b.WriteString("It imports nothing from the standard library.\n")
		return b.String(), nil
	}
	fmt.Fprintf(&b, "It uses %s of the standard library", count(len(std), "package"))
	if len(std) > mostPackages {
		fmt.Fprintf(&b, "; the %d used most", mostPackages)
		std = std[:mostPackages]
	}
	b.WriteString(":\n")
	for i, im := range std {
		fmt.Fprintf(&b, "%d. `%s` - ", i+1, im.ImportPath)
		if err := t.describe(ctx, src, &b, im); err != nil {
			return "", err
		}
	}
	return b.String(), nil
}

// The method "dependencies" returns an answer about the module's direct dependencies.
func (t *Turn) dependencies(ctx context.Context, src *source, mod modFile, used map[string]*imported) (string, error) {
	of := map[string][]*imported{} // the imported packages, by the path of their module
	for _, im := range used {
		m := mod.provider(im.listed)
		of[m] = append(of[m], im)
	}
	var b strings.Builder
	n, read := 0, 0
	for _, r := range mod.Require {
		if r.Indirect {
			continue
		}
		n++
		pkgs := of[r.Path]
		slices.SortFunc(pkgs, byUse)
		t.say("%s %s: %s used.", r.Path, r.Version, count(len(pkgs), "package"))
		if len(pkgs) == 0 {
			fmt.Fprintf(&b, "%d. `%s` %s - no file of the module imports it.\n", n, r.Path, r.Version)
			continue
		}
		for i, im := range pkgs {
			switch {
			case i == 0:
				fmt.Fprintf(&b, "%d. `%s` %s - ", n, im.ImportPath, r.Version)
			case read >= mostPackages:
				fmt.Fprintf(&b, "   and %d more of its packages.\n", len(pkgs)-i)
			default:
				fmt.Fprintf(&b, "   also `%s` - ", im.ImportPath)
			}
			if i > 0 && read >= mostPackages {
				break
			}
			read++
			if err := t.describe(ctx, src, &b, im); err != nil {
				return "", err
			}
		}
	}
	head := fmt.Sprintf("%s has %s:\n", orUnnamed(mod.Module.Path), count(n, "direct dependency"))
	return head + b.String(), nil
}
