package main

import (
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/bgagent/bgagent"
	"github.com/charmbracelet/x/ansi"
)

func sample() []bgagent.Task {
	start := time.Now().Add(-1500 * time.Millisecond)
	return []bgagent.Task{
		{ID: "bg_1", Description: "Explore: find", Status: bgagent.Running, Queued: start, Started: start, Progress: bgagent.Progress{LastTool: "go doc net/http"}},
		{ID: "bg_2", Description: "Oracle: review", Status: bgagent.Pending, Queue: &bgagent.QueuePlace{Place: 2, Pool: bgagent.PoolStats{Name: "provider local", Limit: 3, InUse: 3}}},
		{ID: "bg_3", Description: "Librarian: study", Status: bgagent.Failed, Queued: start, Started: start, Ended: start.Add(time.Second), Reason: "no such file"},
	}
}

func TestTableShowsTheTasks(t *testing.T) {
	m := &table{}
	for _, task := range sample() {
		m.Update(taskMsg(task))
	}
	m.Update(taskMsg{ID: "bg_3", Description: "overtaken", Status: bgagent.Running})
	m.Update(toldMsg("Librarian: study error"))
	view := ansi.Strip(m.View().Content)
	for _, want := range []string{"go doc net/http", "number 2 in line, provider local: 3 of 3 in use", "no such file", "1.0s", "told: Librarian: study error"} {
		if !strings.Contains(view, want) {
			t.Errorf("%q is missing in\n%s", want, view)
		}
	}
	if !strings.HasSuffix(view, "error\n") {
		t.Errorf("the last line is not empty, so its text would be erased at the end:\n%s", view)
	}
	if strings.Contains(view, "overtaken") {
		t.Errorf("a task went back in time:\n%s", view)
	}
	done := sample()[0]
	done.Status, done.Ended = bgagent.Completed, time.Now()
	m.Update(taskMsg(done))
	if view := ansi.Strip(m.View().Content); strings.Count(view, "Explore: find") != 1 || !strings.Contains(view, "✓ Explore") {
		t.Errorf("the task is not shown once and as completed:\n%s", view)
	}
}

func TestABriefTableLeavesNothingBehind(t *testing.T) {
	m := &table{brief: true}
	for _, task := range sample() {
		m.Update(taskMsg(task))
	}
	if m.View().Content == "" {
		t.Error("the tasks are not shown while they run")
	}
	m.Update(endMsg{})
	if got := m.View().Content; got != "" {
		t.Errorf("it leaves %q", got)
	}
}

func TestTableFitsTheTerminal(t *testing.T) {
	m := &table{}
	for _, task := range sample() {
		m.Update(taskMsg(task))
	}
	m.Update(tea.WindowSizeMsg{Width: 40, Height: 10})
	for line := range strings.Lines(m.View().Content) {
		if w := ansi.StringWidth(strings.TrimSuffix(line, "\n")); w > 40 {
			t.Errorf("%d cells wide: %q", w, line)
		}
	}
}

func TestLinesAreOneForEveryChangeOfState(t *testing.T) {
	var out output
	d := newLines(&out)
	tasks := sample()
	end := d.watch(tasks)
	d.task(tasks[0])
	tasks[0].Progress.LastTool = "another"
	d.task(tasks[0])
	tasks[0].Status, tasks[0].Ended = bgagent.Completed, tasks[0].Started.Add(time.Second)
	d.task(tasks[0])
	tasks[0].Status = bgagent.Running // an outdated state
	d.task(tasks[0])
	tasks[0].Status = bgagent.Completed
	tasks[0].Attempt++
	d.task(tasks[0])
	end()
	d.task(bgagent.Task{ID: "bg_4"})
	d.print("the end\n\n")
	want := []string{"running    Explore: find", "pending    Oracle: review", "error      Librarian: study (1s, 0 tool calls)",
		"completed  Explore: find (1s, 0 tool calls)", "completed  Explore: find (1s, 0 tool calls)", "", "the end", ""}
	got := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	if len(got) != len(want) {
		t.Fatalf("%q", got)
	}
	for i := range want {
		if !strings.HasSuffix(got[i], want[i]) {
			t.Errorf("line %d is %q, want %q", i, got[i], want[i])
		}
	}
}
