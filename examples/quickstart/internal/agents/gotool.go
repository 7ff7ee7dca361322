package agents

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// goTool runs the go command in the module and returns the command's output. It reports the
// call as a tool call with the given name. The command can neither reach the network nor write
// to the module. It ignores a workspace around the module, because it could otherwise change
// the workspace's go.work.sum file.
func (t *Turn) goTool(ctx context.Context, name string, args ...string) ([]byte, error) {
	var stdout, stderr bytes.Buffer
	err := t.tool(name, func() error {
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Dir = t.Dir
		cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=readonly", "GOPROXY=off")
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		ownGroup(cmd)
		cmd.WaitDelay = 3 * time.Second // kills a command that ignores the interrupt
		return cmd.Run()
	})
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return stdout.Bytes(), fmt.Errorf("%s: %w", name, firstLine(stderr.String(), err))
	}
	return stdout.Bytes(), nil
}

// firstLine returns the first informative line of a command's error output. If the line ends in a
// colon, the next line is added. If there is no informative line, firstLine returns err.
func firstLine(complaint string, err error) error {
	said := ""
	for line := range strings.Lines(complaint) {
		line = strings.TrimPrefix(strings.TrimSpace(line), "go: ")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if said += line; !strings.HasSuffix(said, ":") {
			return errors.New(said)
		}
		said += " "
	}
	if said == "" {
		return err
	}
	return errors.New(strings.TrimSuffix(said, ": "))
}

// modFile holds the parts of go.mod that the agents use.
type modFile struct {
	Module  struct{ Path string }
	Require []struct {
		Path, Version string
		Indirect      bool
	}
}

func (t *Turn) modFile(ctx context.Context) (modFile, error) {
	var m modFile
	out, err := t.goTool(ctx, "go mod edit", "mod", "edit", "-json")
	if err != nil {
		return m, err
	}
	return m, json.Unmarshal(out, &m)
}

// provider returns the path of the module that provides the package. If the go command does not
// know that module, the result is the path of the required module that should provide the
// package. If there is no such module either, the result is "".
func (m modFile) provider(p listed) string {
	if p.Module != nil {
		return p.Module.Path
	}
	best := ""
	for _, r := range m.Require {
		if (p.ImportPath == r.Path || strings.HasPrefix(p.ImportPath, r.Path+"/")) && len(r.Path) > len(best) {
			best = r.Path
		}
	}
	return best
}

// The type "listed" is a package as described by go list.
type listed struct {
	ImportPath string
	Name       string
	Dir        string // empty if there is no source
	Export     string // file with its export data
	Standard   bool
	Module     *struct {
		Path, Version string
		Main          bool
	}
	Error      *listError
	DepsErrors []*listError // errors of its dependencies
}

type listError struct{ Pos, Err string }

// goList runs go list with the arguments and returns the listed packages. The last argument names
// the packages. goList turns off version control information, because go list would fail if the version
// control system failed.
func (t *Turn) goList(ctx context.Context, args ...string) ([]listed, error) {
	out, err := t.goTool(ctx, "go list "+args[len(args)-1], append([]string{"list", "-e", "-buildvcs=false"}, args...)...)
	if err != nil {
		return nil, err
	}
	var all []listed
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		switch err := d.Decode(&p); {
		case errors.Is(err, io.EOF):
			return all, nil
		case err != nil:
			return all, fmt.Errorf("go list: %w", err)
		}
		all = append(all, p)
	}
}

// errNoSource means that a package's documentation cannot be read, because its source is
// missing.
var errNoSource = errors.New("its source is not in the module cache, and the network is not used")

// doc returns the first sentence that go doc prints about a package or about one of its
// symbols. It passes the package's directory instead of the import path. To resolve an import
// path, go doc would list all dependencies of the module, including those of their tests,
// which might not have been downloaded.
func (t *Turn) doc(ctx context.Context, p listed, symbol ...string) (string, error) {
	if p.Dir == "" {
		return "", errNoSource
	}
	name := strings.Join(append([]string{"go doc", p.ImportPath}, symbol...), " ")
	out, err := t.goTool(ctx, name, append([]string{"doc", p.Dir}, symbol...)...)
	if err != nil {
		return "", err
	}
	return docSentence(string(out), len(symbol) == 0), nil
}

// docSentence returns the first sentence of the documentation in the output of go doc. It
// returns "" if there is no documentation. The documentation of a package is the second
// paragraph and is not indented. If there is no documentation, the second paragraph contains
// declarations. The documentation of a symbol is indented by four spaces.
func docSentence(out string, pkg bool) string {
	var text []string
	for i, line := range strings.Split(out, "\n") {
		indented := strings.HasPrefix(line, "    ")
		switch {
		case i == 0: // the line with the package clause
		case pkg && len(text) == 0 && isDeclaration(line):
			return ""
		case pkg && line != "" || !pkg && indented:
			text = append(text, strings.TrimSpace(line))
		case len(text) > 0:
			return sentence(strings.Join(text, " "))
		}
	}
	return sentence(strings.Join(text, " "))
}

func isDeclaration(line string) bool {
	word, _, _ := strings.Cut(line, " ")
	return word == "const" || word == "var" || word == "func" || word == "type"
}

// sentence returns the first sentence of a comment, on one line.
func sentence(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	for i := 0; ; {
		j := strings.Index(s[i:], ". ")
		if j < 0 {
			return s
		}
		// A sentence continues after "e.g. " or "i.e. ".
		if i += j; !isLower(rune(s[i+2])) && (i < 2 || s[i-2] != '.') {
			return s[:i+1]
		}
		i += 2
	}
}
