// Package demo provides agents that are Go functions, for trying out the program. They examine the
// files of a directory, or only wait or fail. They do not need a model, a key or a network.
package demo

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/inproc"
)

// Model is the model name of all demo agents. They share it so that one limit applies to all of
// them together.
const Model = "demo/none"

// Info describes a demo agent.
type Info struct {
	Name        string
	Description string
	Run         inproc.Agent
}

// Agents returns the demo agents.
func Agents() []Info {
	return []Info{
		{"count", "Counts files and lines below its directory, by file extension", count},
		{"fail", "Fails with its prompt as the reason", fail},
		{"largest", "Names the largest files below its directory", largest},
		{"search", "Finds the lines that contain the quoted words of its prompt", search},
		{"wait", `Waits as long as its prompt says, as in "2 s" or "300 ms"`, wait},
	}
}

// Names returns the names of the demo agents.
func Names() []string {
	var out []string
	for _, a := range Agents() {
		out = append(out, a.Name)
	}
	return out
}

const (
	maxFiles = 20_000  // maximum number of files to visit
	maxFile  = 1 << 20 // maximum size of files to read, in bytes
	maxHits  = 50      // maximum number of lines in an answer
)

// The function "walk" reports the task's directory and the directories below it as tool calls, and calls the
// function "look" for each regular file in them. It skips hidden directories, node_modules, and directories
// that the task may not read. It stops after maxFiles files.
func walk(ctx context.Context, t *inproc.Turn, look func(path string, info fs.FileInfo)) error {
	dir := cmp.Or(t.Directory(), ".")
	files := 0
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		rel, relErr := filepath.Rel(dir, path)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && path == dir:
			return fmt.Errorf("looking at the directory: %w", err)
		case err != nil || relErr != nil:
			return nil // skip a file or directory that cannot be read
		case d.IsDir():
			if path != dir && (strings.HasPrefix(d.Name(), ".") || d.Name() == "node_modules") {
				return filepath.SkipDir
			}
			if !t.Allowed("read", rel) {
				return filepath.SkipDir
			}
			t.Tool(bgagent.MessageTool{ID: rel, Name: "list " + rel, State: bgagent.ToolDone})
			return nil
		case !d.Type().IsRegular():
			return nil
		}
		if files++; files > maxFiles {
			return filepath.SkipAll
		}
		if info, err := d.Info(); err == nil {
			look(rel, info)
		}
		return nil
	})
}

// read returns the content of a file. If the file is too large, cannot be read or is not text, it
// returns "".
func read(t *inproc.Turn, rel string, info fs.FileInfo) string {
	if info.Size() > maxFile {
		return ""
	}
	b, err := os.ReadFile(filepath.Join(cmp.Or(t.Directory(), "."), rel))
	if err != nil || slices.Contains(b, 0) {
		return ""
	}
	return string(b)
}

func count(ctx context.Context, t *inproc.Turn) (string, error) {
	type sum struct{ files, lines int }
	sums := map[string]sum{}
	err := walk(ctx, t, func(rel string, info fs.FileInfo) {
		s := sums[filepath.Ext(rel)]
		s.files++
		s.lines += strings.Count(read(t, rel, info), "\n")
		sums[filepath.Ext(rel)] = s
	})
	if err != nil {
		return "", err
	}
	order := slices.SortedFunc(maps.Keys(sums), func(a, b string) int {
		return cmp.Or(cmp.Compare(sums[b].lines, sums[a].lines), cmp.Compare(a, b))
	})
	var out strings.Builder
	fmt.Fprintf(&out, "| ending | files | lines |\n| --- | ---: | ---: |\n")
	for _, ext := range order {
		fmt.Fprintf(&out, "| %s | %d | %d |\n", cmp.Or(ext, "(none)"), sums[ext].files, sums[ext].lines)
	}
	return out.String(), nil
}

func largest(ctx context.Context, t *inproc.Turn) (string, error) {
	type file struct {
		name string
		size int64
	}
	var files []file
	err := walk(ctx, t, func(rel string, info fs.FileInfo) { files = append(files, file{rel, info.Size()}) })
	if err != nil {
		return "", err
	}
	slices.SortFunc(files, func(a, b file) int { return cmp.Or(cmp.Compare(b.size, a.size), cmp.Compare(a.name, b.name)) })
	var out strings.Builder
	for _, f := range files[:min(len(files), 10)] {
		fmt.Fprintf(&out, "%9d bytes  %s\n", f.size, f.name)
	}
	return cmp.Or(out.String(), "There is no file."), nil
}

var quoted = regexp.MustCompile(`"([^"]+)"`)

func search(ctx context.Context, t *inproc.Turn) (string, error) {
	var words []string
	for _, m := range quoted.FindAllStringSubmatch(t.Prompt.Text, -1) {
		words = append(words, strings.ToLower(m[1]))
	}
	if len(words) == 0 {
		return "", fmt.Errorf(`the prompt does not say what to search for; put the words in quotation marks, as in: find "session"`)
	}
	var hits []string
	found := 0
	err := walk(ctx, t, func(rel string, info fs.FileInfo) {
		for i, line := range strings.Split(read(t, rel, info), "\n") {
			if low := strings.ToLower(line); !slices.ContainsFunc(words, func(w string) bool { return strings.Contains(low, w) }) {
				continue
			}
			if found++; found <= maxHits {
				hits = append(hits, fmt.Sprintf("%s:%d: %.160s", rel, i+1, strings.TrimSpace(line)))
			}
		}
	})
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d lines hold %s.\n%s", found, strings.Join(words, " or "), strings.Join(hits, "\n")), nil
}

var duration = regexp.MustCompile(`(\d+(?:\.\d+)?)\s*(ms|s|m)\b`)

// maxWait is the longest wait that the agent "wait" accepts.
const maxWait = 10 * time.Minute

func wait(ctx context.Context, t *inproc.Turn) (string, error) {
	m := duration.FindStringSubmatch(t.Prompt.Text)
	if m == nil {
		return "", fmt.Errorf("the prompt does not say how long to wait; give a time, such as 2 s or 300 ms")
	}
	d, err := time.ParseDuration(m[1] + m[2])
	if err != nil || d > maxWait {
		return "", fmt.Errorf("%s is too long to wait; the maximum is %v", m[0], maxWait)
	}
	const steps = 5
	for i := range steps {
		call := bgagent.MessageTool{ID: strconv.Itoa(i), Name: "wait", State: bgagent.ToolRunning}
		t.Tool(call)
		select {
		case <-ctx.Done():
			return "", context.Cause(ctx)
		case <-time.After(d / steps):
		}
		call.State = bgagent.ToolDone
		t.Tool(call)
		t.Text(fmt.Sprintf("%d of %d is over. ", i+1, steps))
	}
	return fmt.Sprintf("I have waited for %v.", d), nil
}

func fail(_ context.Context, t *inproc.Turn) (string, error) {
	return "", fmt.Errorf("as asked: %s", t.Prompt.Text)
}
