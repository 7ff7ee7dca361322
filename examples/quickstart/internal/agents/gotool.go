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

// goTool runs the go command in the module and returns what it printed. It can
// neither reach the network nor write to the module: a workspace around the
// module is left alone because the go command would bring go.work.sum up to
// date in it.
func (t *Turn) goTool(ctx context.Context, args ...string) ([]byte, error) {
	var stdout, stderr bytes.Buffer
	err := t.tool("go "+toolName(args), func() error {
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Dir = t.Dir
		cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=readonly", "GOPROXY=off")
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		ownGroup(cmd)
		cmd.WaitDelay = 3 * time.Second // for one that does not heed the interrupt
		return cmd.Run()
	})
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return stdout.Bytes(), fmt.Errorf("go %s: %w", toolName(args), firstLine(stderr.String(), err))
	}
	return stdout.Bytes(), nil
}

// toolName leaves the flags out.
func toolName(args []string) string {
	var words []string
	for _, a := range args {
		if !strings.HasPrefix(a, "-") {
			words = append(words, a)
		}
	}
	return strings.Join(words, " ")
}

// firstLine returns the first telling line of what a command complained, with
// the next one when it ends in a colon; or err when it complained of nothing.
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

// modFile is what the agents need of go.mod.
type modFile struct {
	Module  struct{ Path string }
	Require []struct {
		Path, Version string
		Indirect      bool
	}
}

func (t *Turn) modFile(ctx context.Context) (modFile, error) {
	var m modFile
	out, err := t.goTool(ctx, "mod", "edit", "-json")
	if err != nil {
		return m, err
	}
	return m, json.Unmarshal(out, &m)
}

// listed is one package as go list describes it.
type listed struct {
	ImportPath string
	Name       string
	Export     string // file with its export data
	Standard   bool
	Module     *struct {
		Path, Version string
		Main          bool
	}
	Error *struct{ Pos, Err string }
}

func (t *Turn) goList(ctx context.Context, args ...string) ([]listed, error) {
	out, err := t.goTool(ctx, append([]string{"list", "-e"}, args...)...)
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

// doc returns the first sentence of what go doc says about a package or a
// symbol of it.
func (t *Turn) doc(ctx context.Context, args ...string) (string, error) {
	out, err := t.goTool(ctx, append([]string{"doc"}, args...)...)
	if err != nil {
		return "", err
	}
	return docSentence(string(out), len(args) == 1), nil
}

// docSentence finds the sentence. The documentation of a package stands in the
// second paragraph, flush left; that of a symbol is indented by four blanks.
func docSentence(out string, pkg bool) string {
	var text []string
	for i, line := range strings.Split(out, "\n") {
		indented := strings.HasPrefix(line, "    ")
		switch {
		case i == 0: // package clause
		case pkg && line != "" || !pkg && indented:
			text = append(text, strings.TrimSpace(line))
		case len(text) > 0:
			return sentence(strings.Join(text, " "))
		}
	}
	return sentence(strings.Join(text, " "))
}

// sentence returns the first sentence of a comment, in one line.
func sentence(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	for i := 0; ; {
		j := strings.Index(s[i:], ". ")
		if j < 0 {
			return s
		}
		// After "e.g. " or "i.e. " a sentence goes on.
		if i += j; !isLower(rune(s[i+2])) && (i < 2 || s[i-2] != '.') {
			return s[:i+1]
		}
		i += 2
	}
}
