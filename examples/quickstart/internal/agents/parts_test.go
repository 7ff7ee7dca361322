package agents

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/bgagent/bgagent/internal/tempdir"
)

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestFindModule(t *testing.T) {
	dir := tempdir.New(t)
	deep := filepath.Join(dir, "a", "b")
	if err := os.MkdirAll(deep, 0o755); err != nil {
		t.Fatal(err)
	}
	for bad, want := range map[string]string{
		deep:                          "there is no go.mod in",
		filepath.Join(dir, "nowhere"): "does not exist",
	} {
		if _, err := FindModule(bad); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("FindModule(%s): %v, want %q", bad, err, want)
		}
	}
	write(t, dir, "go.mod", "module x\n")
	if got, err := FindModule(deep); err != nil || got != dir {
		t.Errorf("FindModule(%s) = %q, %v", deep, got, err)
	}
	if _, err := FindModule(filepath.Join(dir, "go.mod")); err == nil || !strings.Contains(err.Error(), "is not a directory") {
		t.Errorf("FindModule of a file: %v", err)
	}
}

func TestWords(t *testing.T) {
	for prompt, want := range map[string][]string{
		`Find where "session, slot" is implemented and "Retry".`: {"session", "slot", "retry"},
		"Find where authentication is implemented":               {"authentication"},
		"find the code of the HTTPServerPool":                    {"http", "server", "pool"},
		"find the":                                               nil,
		`find "" the slots`:                                      nil,
	} {
		if got := Words(prompt); !reflect.DeepEqual(got, want) {
			t.Errorf("Words(%q) = %q, want %q", prompt, got, want)
		}
	}
}

func TestRelated(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"slot", "slots", true}, {"auth", "authentication", true}, {"authenticate", "authentication", true},
		{"slot", "slow", false}, {"go", "golang", false}, {"id", "id", true}, {"session", "set", false},
	} {
		if got := related(c.a, c.b); got != c.want {
			t.Errorf("related(%q, %q) = %v", c.a, c.b, got)
		}
	}
}

func TestSentence(t *testing.T) {
	for text, want := range map[string]string{
		"One thing. Another.":                    "One thing.",
		"Uses e.g. this\nand that. More.":        "Uses e.g. this and that.",
		"Returns no error (ie. nil). More.":      "Returns no error (ie. nil).",
		"No full stop":                           "No full stop",
		"":                                       "",
		"Version 1.2 is read. Others are not so": "Version 1.2 is read.",
	} {
		if got := sentence(text); got != want {
			t.Errorf("sentence(%q) = %q, want %q", text, got, want)
		}
	}
}

func TestDocSentenceOfAPackageWithoutDocumentation(t *testing.T) {
	for out, want := range map[string]string{
		"package a // import \"x/a\"\n\nPackage a adds. More.\n\nconst One = 1\n": "Package a adds.",
		"package a // import \"x/a\"\n\npackage a adds\n":                         "package a adds",
		"package a // import \"x/a\"\n\nconst One = 1\nfunc Add(a, b int) int\n":  "",
		"package a // import \"x/a\"\n\nfunc Add(a, b int) int\n":                 "",
		"package a // import \"x/a\"\n":                                           "",
	} {
		if got := docSentence(out, true); got != want {
			t.Errorf("docSentence(%q) = %q, want %q", out, got, want)
		}
	}
}

func TestCycles(t *testing.T) {
	g := graph{}
	for _, e := range strings.Fields("a-b b-c c-a c-d d-e e-d f-f g-a") {
		from, to, _ := strings.Cut(e, "-")
		g.edge(from, to)
	}
	want := [][]string{{"a", "b", "c"}, {"d", "e"}}
	if got := g.cycles(); !reflect.DeepEqual(got, want) {
		t.Errorf("cycles = %v, want %v", got, want)
	}
}

func TestAsked(t *testing.T) {
	for prompt, want := range map[string]int{"Show the third one": 3, "number 12, please": 12, "go on": 1, "The First": 1} {
		if got := asked(prompt); got != want {
			t.Errorf("asked(%q) = %d, want %d", prompt, got, want)
		}
	}
}

func TestCount(t *testing.T) {
	for want, got := range map[string]string{
		"1 file": count(1, "file"), "2 dependencies": count(2, "dependency"), "0 branches": count(0, "branch"),
	} {
		if got != want {
			t.Errorf("count = %q, want %q", got, want)
		}
	}
}
