package agents

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/build"
	"go/parser"
	"go/scanner"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// file is a parsed Go file. If a file has syntax errors, ast holds the parts that could be
// parsed.
type file struct {
	name  string // path in the module, with slashes
	ast   *ast.File
	lines int
	test  bool
	other bool // whether the file is for another operating system or excluded by a build tag
}

// pkg is a directory with Go files.
type pkg struct {
	path  string // import path
	dir   string // path in the module, with slashes; "." for the top directory
	name  string
	files []*file
}

// source is a module that was read from disk.
type source struct {
	fset   *token.FileSet
	module string
	pkgs   []*pkg
	broken []string // errors in the module, and errors from reading it
	lines  int
	files  int
}

// The method "read" parses every Go file of the module.
func (t *Turn) read(ctx context.Context, module string) (*source, error) {
	src := &source{fset: token.NewFileSet(), module: module}
	dirs, err := packageDirs(ctx, t.Dir)
	if err != nil {
		return nil, err
	}
	for _, dir := range dirs {
		err := t.tool("read "+dir, func() error { return src.readDir(ctx, t.Dir, dir) })
		if err != nil {
			return nil, err
		}
	}
	t.say("Read %s in %s, %s.", count(src.files, "file"), count(len(src.pkgs), "package"), count(src.lines, "line"))
	return src, nil
}

// packageDirs returns the directories that may contain packages of the module, according to the
// rules of the go command.
func packageDirs(ctx context.Context, root string) ([]string, error) {
	var dirs []string
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && p == root:
			return fmt.Errorf("the module cannot be read: %w", err)
		case err != nil: // skips directories that cannot be read
			return fs.SkipDir
		case !d.IsDir():
			return nil
		}
		name := d.Name()
		if p != root {
			if name == "vendor" || name == "testdata" || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") {
				return fs.SkipDir
			}
			if _, err := os.Stat(filepath.Join(p, "go.mod")); err == nil {
				return fs.SkipDir // the directory is another module
			}
		}
		rel, err := filepath.Rel(root, p)
		dirs = append(dirs, filepath.ToSlash(rel))
		return err
	})
	return dirs, err
}

func (src *source) readDir(ctx context.Context, root, dir string) error {
	full := filepath.Join(root, filepath.FromSlash(dir))
	entries, err := os.ReadDir(full)
	if err != nil {
		src.broken = append(src.broken, err.Error())
		return nil
	}
	p := &pkg{path: path.Join(src.module, dir), dir: dir}
	for _, e := range entries {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		name := e.Name()
		if e.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasPrefix(name, "_") || strings.HasPrefix(name, ".") {
			continue
		}
		f := src.readFile(full, path.Join(dir, name))
		if f == nil {
			continue
		}
		p.files = append(p.files, f)
		if p.name == "" || !f.test && !f.other {
			p.name = strings.TrimSuffix(f.ast.Name.Name, "_test")
		}
	}
	if len(p.files) > 0 {
		src.pkgs = append(src.pkgs, p)
	}
	return nil
}

// readFile parses one file. It returns nil if no part of the file could be parsed.
func (src *source) readFile(dir, name string) *file {
	text, err := os.ReadFile(filepath.Join(dir, path.Base(name)))
	if err != nil {
		src.broken = append(src.broken, err.Error())
		return nil
	}
	tree, err := parser.ParseFile(src.fset, name, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		src.broken = append(src.broken, parseError(err))
	}
	if tree == nil || tree.Name == nil || tree.Name.Name == "" {
		return nil
	}
	match, err := build.Default.MatchFile(dir, path.Base(name))
	f := &file{
		name: name, ast: tree, test: strings.HasSuffix(name, "_test.go"), other: err == nil && !match,
		lines: strings.Count(string(text), "\n"),
	}
	src.files++
	src.lines += f.lines
	return f
}

// parseError describes the first error in a file and the number of further errors.
func parseError(err error) string {
	var list scanner.ErrorList
	if !errors.As(err, &list) || len(list) < 2 {
		return err.Error()
	}
	return fmt.Sprintf("%v (and %d more)", list[0], len(list)-1)
}

// The method "owns" reports whether a package belongs to the module. The go command lists test
// packages with import paths such as "p.test" and "p [p.test]".
func (src *source) owns(importPath string) bool {
	return importPath == src.module || strings.HasPrefix(importPath, src.module+"/") || strings.HasPrefix(importPath, src.module+" [")
}

// The method "complain" adds an error from the go command about a package to src.broken. If the
// error is output from the compiler, each line of the output is added as an error.
func (src *source) complain(importPath string, e listError) {
	text := strings.TrimSpace(e.Err)
	if compiler, ok := strings.CutPrefix(text, "# "); ok {
		for i, line := range strings.Split(compiler, "\n") {
			if i > 0 { // the first line names the package
				src.addBroken(strings.TrimSpace(line))
			}
		}
		return
	}
	if importPath != "" && (e.Pos == "" || !src.owns(importPath)) {
		text = importPath + ": " + text
	}
	if e.Pos != "" {
		text = e.Pos + ": " + text
	}
	src.addBroken(text)
}

// addBroken adds an error to src.broken unless src.broken already contains an error on the
// same line of the same file.
func (src *source) addBroken(text string) {
	at := text
	if parts := strings.SplitN(text, ":", 3); len(parts) == 3 {
		at = parts[0] + ":" + parts[1] + ":"
	}
	for _, b := range src.broken {
		if strings.Contains(b, at) {
			return
		}
	}
	src.broken = append(src.broken, text)
}

// The method "at" formats a position as file:line.
func (src *source) at(p token.Pos) string {
	pos := src.fset.Position(p)
	return fmt.Sprintf("%s:%d", pos.Filename, pos.Line)
}

// lineCount returns the number of lines of a node.
func (src *source) lineCount(n ast.Node) int {
	// The end of a node with syntax errors can be before its start.
	return max(src.fset.Position(n.End()).Line-src.fset.Position(n.Pos()).Line+1, 1)
}

// The method "built" returns the package's files for this system, without tests.
func (p *pkg) built() []*ast.File {
	var files []*ast.File
	for _, f := range p.files {
		if !f.test && !f.other && f.ast.Name.Name == p.name {
			files = append(files, f.ast)
		}
	}
	return files
}

// label returns the name that the answers use for the package.
func (p *pkg) label() string {
	if p.dir == "." {
		return p.name + " (top)"
	}
	return p.dir
}

func (p *pkg) lineCount() int {
	n := 0
	for _, f := range p.files {
		if !f.test {
			n += f.lines
		}
	}
	return n
}

// The method "imports" returns the import paths of the package's files, without tests.
func (p *pkg) imports() []string {
	var all []string
	for _, f := range p.files {
		if f.test {
			continue
		}
		for _, spec := range f.ast.Imports {
			all = append(all, strings.Trim(spec.Path.Value, "`\""))
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// The function "count" formats a number with a noun, in the plural if needed.
func count(n int, noun string) string {
	switch {
	case n == 1:
		return "1 " + noun
	case strings.HasSuffix(noun, "ch"):
		noun += "e"
	case strings.HasSuffix(noun, "y"):
		noun = strings.TrimSuffix(noun, "y") + "ie"
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// brokenNote returns a list of the errors. The list is placed at the end of an answer.
func brokenNote(errs []string) string {
	if len(errs) == 0 {
		return ""
	}
	const most = 10
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s found; the agent worked on the rest:\n", count(len(errs), "error"))
	for i, e := range errs {
		if i == most {
			fmt.Fprintf(&b, "- and %d more\n", len(errs)-most)
			break
		}
		fmt.Fprintf(&b, "- %s\n", strings.Join(strings.Fields(e), " "))
	}
	return b.String()
}
