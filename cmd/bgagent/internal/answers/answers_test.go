package answers

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// keeper returns a Keeper that can store long texts in files.
func keeper(t *testing.T, most int64) *Keeper {
	k := New(most)
	dir := t.TempDir()
	k.SpoolTo(func() (*os.File, error) { return os.CreateTemp(dir, "") })
	return k
}

// The function "letters" returns a text of n bytes whose lines differ from each other.
func letters(n int) string {
	var b strings.Builder
	for i := 0; b.Len() < n; i++ {
		b.WriteString("line " + strings.Repeat("x", i%50) + "\n")
	}
	return b.String()[:n]
}

// The function "cut" returns a task whose result is only the beginning of the answer.
func cut(answer string) bgagent.Task {
	return bgagent.Task{ID: "bg_1", Session: "s", Result: answer[:256<<10], Cut: true}
}

func read(t *testing.T, a *Answer) string {
	t.Helper()
	require.NotNil(t, a)
	var b strings.Builder
	require.NoError(t, a.CopyTo(&b))
	a.Close()
	return b.String()
}

// clientCut returns the part of a long message that a client passes on.
func clientCut(s string) string { return s[:min(len(s), clientMax+4)] }

func TestAllOfALongAnswerIsKept(t *testing.T) {
	text := letters(5 << 20)
	for name, turn := range map[string]struct {
		reports func(r *bgagent.Reporter)
		end     string
	}{
		"pieces": {func(r *bgagent.Reporter) {
			for i := 0; i < len(text); i += 32 << 10 {
				r.Text(text[i:min(i+32<<10, len(text))])
			}
		}, clientCut(text)},
		"space before it": {func(r *bgagent.Reporter) { r.Text("\n \n" + text) }, clientCut(text)},
		"another message before it": {func(r *bgagent.Reporter) {
			r.Text("I begin.")
			r.Text("\n\n" + text)
		}, clientCut(text)},
		"a tool call before it": {func(r *bgagent.Reporter) {
			r.Text(text)
			r.Tool(bgagent.MessageTool{ID: "1", Name: "grep"})
			r.Text(text)
		}, clientCut(text)},
		"a call under the id of an earlier one": {func(r *bgagent.Reporter) {
			r.Tool(bgagent.MessageTool{ID: "1", Name: "grep"})
			r.Text("I look again.")
			r.Tool(bgagent.MessageTool{ID: "1", Name: "grep"})
			r.Text(text)
		}, clientCut(text)},
		"the client reports no last message": {func(r *bgagent.Reporter) { r.Text(text) }, ""},
	} {
		k := keeper(t, 0)
		r, ended := k.Record(bgagent.Prompt{Task: "bg_1"}, bgagent.NewReporter(func(bgagent.Report) {}))
		turn.reports(r)
		ended(bgagent.TurnEnd{Text: turn.end})
		a := k.Take(cut(text))
		require.NotNil(t, a, name)
		require.Empty(t, a.Note())
		require.Equal(t, int64(len(text)), a.Size(), name)
		require.True(t, text == read(t, a), name)
		require.Nil(t, k.Take(cut(text)), "Take returns an answer only once")
	}
}

func TestAWholeLastMessageIsTheAnswer(t *testing.T) {
	k := keeper(t, 0)
	text := letters(600 << 10)
	r, ended := k.Record(bgagent.Prompt{Task: "bg_1"}, nil)
	r.Text("something else")
	ended(bgagent.TurnEnd{Text: text})
	require.True(t, text == read(t, k.Take(cut(text))))
}

func TestAnEmptyLastTurnTakesNothingAway(t *testing.T) {
	k := keeper(t, 0)
	text := letters(600 << 10)
	r, ended := k.Record(bgagent.Prompt{Task: "bg_1"}, nil)
	r.Text(text)
	ended(bgagent.TurnEnd{})
	for range 3 {
		_, ended = k.Record(bgagent.Prompt{Task: "bg_1"}, nil)
		ended(bgagent.TurnEnd{})
	}
	require.True(t, text == read(t, k.Take(cut(text))))
}

func TestTheTextOfARunningTurnIsKept(t *testing.T) {
	k := keeper(t, 0)
	text := letters(600 << 10)
	r, ended := k.Record(bgagent.Prompt{Task: "bg_1"}, nil)
	r.Text(text)
	require.True(t, text == read(t, k.Take(cut(text))))
	r.Text(text) // after Take, no further text of the turn is kept
	ended(bgagent.TurnEnd{Text: text})
	require.Nil(t, k.Take(cut(text)))
}

func TestATooLongAnswerIsCutAndMarked(t *testing.T) {
	k := keeper(t, 2<<20)
	text := letters(3 << 20)
	r, ended := k.Record(bgagent.Prompt{Task: "bg_1"}, nil)
	r.Text(text[:1<<20])
	r.Text(text[1<<20:])
	ended(bgagent.TurnEnd{Text: clientCut(text)})
	a := k.Take(cut(text))
	require.Equal(t, "cut: the answer has 3145728 bytes; only the first 2 MiB are kept", a.Note())
	whole, is := a.Whole()
	require.True(t, is)
	require.Equal(t, int64(3<<20), whole)
	require.True(t, text[:2<<20] == read(t, a))
}

func TestAnAnswerThatCannotBeKeptSaysWhy(t *testing.T) {
	k := New(0)
	text := letters(600 << 10)
	k.SpoolTo(func() (*os.File, error) { return nil, errors.New("the disk is full") })
	r, ended := k.Record(bgagent.Prompt{Task: "bg_1"}, nil)
	for i := 0; i < len(text); i += 32 << 10 {
		r.Text(text[i:min(i+32<<10, len(text))])
	}
	ended(bgagent.TurnEnd{})
	a := k.Take(cut(text))
	require.Equal(t, "cut: the answer has 614400 bytes; only the first 262144 could be kept: the disk is full", a.Note())
	require.True(t, text[:256<<10] == read(t, a))
}

func TestAForeignTextIsNotTheAnswer(t *testing.T) {
	k := keeper(t, 0)
	r, ended := k.Record(bgagent.Prompt{Task: "bg_1"}, nil)
	r.Text(letters(600 << 10))
	ended(bgagent.TurnEnd{})
	require.Nil(t, k.Take(cut(strings.Repeat("y", 600<<10))))
}

func TestEveryReportIsPassedOn(t *testing.T) {
	var got []bgagent.Report
	k := keeper(t, 0)
	r, _ := k.Record(bgagent.Prompt{Task: "bg_1"}, bgagent.NewReporter(func(x bgagent.Report) { got = append(got, x) }))
	want := []bgagent.Report{
		{Kind: bgagent.ReportText, Text: "a"},
		{Kind: bgagent.ReportReasoning, Text: "b"},
		{Kind: bgagent.ReportTool, Tool: bgagent.MessageTool{ID: "1", Name: "grep"}},
		{Kind: bgagent.ReportTodos, Todos: []bgagent.Todo{{Text: "c"}}},
		{Kind: bgagent.ReportUsage, Usage: bgagent.Usage{InputTokens: 1}},
		{Kind: bgagent.ReportAsking, Text: "d"},
		{Kind: bgagent.ReportActivity},
	}
	for _, x := range want {
		forward(r, x)
	}
	require.Equal(t, want, got)

	var none *Keeper
	same := bgagent.NewReporter(nil)
	r, ended := none.Record(bgagent.Prompt{}, same)
	ended(bgagent.TurnEnd{})
	require.Same(t, same, r)
}

// pages is a message reader with two pages.
type pages []bgagent.Message

// Messages implements [bgagent.MessageReader].
func (p pages) Messages(_ context.Context, _ string, after bgagent.Cursor, _ int) (bgagent.Page, error) {
	if after == "" {
		return bgagent.Page{Messages: p[:1], Next: "1", More: true}, nil
	}
	return bgagent.Page{Messages: p[1:], Next: "2"}, nil
}

func TestALongMessageOfAServerIsReadWhole(t *testing.T) {
	k := keeper(t, 0)
	text := letters(5 << 20)
	from := pages{
		{Role: bgagent.RoleUser, Text: text},
		{Role: bgagent.RoleAgent, Text: text},
		{Role: bgagent.RoleAgent, Text: "a later one"},
	}
	require.True(t, text == read(t, k.Message(t.Context(), from, cut(text))))
	require.Nil(t, k.Message(t.Context(), from, cut(strings.Repeat("y", 600<<10))))
}

func TestSpoolsAreClosed(t *testing.T) {
	k := New(0)
	var files []*os.File
	dir := t.TempDir()
	k.SpoolTo(func() (*os.File, error) {
		f, err := os.Create(filepath.Join(dir, "spool"))
		files = append(files, f)
		return f, err
	})
	text := letters(600 << 10)
	for range 3 {
		r, ended := k.Record(bgagent.Prompt{Task: "bg_1"}, nil)
		r.Text(text)
		ended(bgagent.TurnEnd{})
	}
	require.Len(t, files, 3)
	require.Nil(t, k.Take(bgagent.Task{ID: "bg_1", Result: "short"}), "the task has its whole answer")
	for _, f := range files {
		require.ErrorIs(t, f.Close(), os.ErrClosed)
	}
}

// The test calls all methods of a reporter, so that it notices a kind of report that is added later.
func TestEveryKindOfReportIsPassedOn(t *testing.T) {
	var got []bgagent.Report
	r, _ := keeper(t, 100).Record(bgagent.Prompt{Task: "bg_1"}, bgagent.NewReporter(func(x bgagent.Report) { got = append(got, x) }))
	methods, kinds := reflect.ValueOf(r), map[bgagent.ReportKind]bool{}
	for i := range methods.NumMethod() {
		name, method := methods.Type().Method(i).Name, methods.Method(i)
		if name == "Ask" { // needs a manager, and is reported by the method Asking
			continue
		}
		args := make([]reflect.Value, method.Type().NumIn())
		for k := range args {
			args[k] = reflect.Zero(method.Type().In(k))
		}
		got = nil
		method.Call(args)
		require.Len(t, got, 1, name)
		kinds[got[0].Kind] = true
	}
	require.Len(t, kinds, methods.NumMethod()-1)
}

func TestTheContentsOfReportsArePassedOn(t *testing.T) {
	var got []bgagent.Report
	r, _ := keeper(t, 100).Record(bgagent.Prompt{Task: "bg_1"}, bgagent.NewReporter(func(x bgagent.Report) { got = append(got, x) }))
	r.SaveState([]byte("f"))
	refused := bgagent.ProviderError{Kind: bgagent.ProviderRateLimited, Message: "slow down"}
	r.Retrying(refused, time.Unix(7, 0))
	require.Equal(t, []bgagent.Report{
		{Kind: bgagent.ReportState, Saved: []byte("f")},
		{Kind: bgagent.ReportRetrying, Provider: &refused, RetryAt: time.Unix(7, 0)},
	}, got)
}
