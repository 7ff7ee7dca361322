package main

import (
	"strings"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/control"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/statedir"
	"github.com/stretchr/testify/require"
)

// The function "stood" returns what "bgagent status" prints about the tasks.
func stood(t *testing.T, v *view, now time.Time) string {
	t.Helper()
	var b strings.Builder
	require.NoError(t, v.writeStanding(&b, v.standing(now), now, 0))
	return b.String()
}

func TestStatusSaysWhatItsNumbersMean(t *testing.T) {
	now := time.Now()
	done := bgagent.Task{ID: "bg_1", Status: bgagent.Completed, Ended: now.Add(-time.Hour)}
	done.Progress.Usage = bgagent.Usage{InputTokens: 5, OutputTokens: 3, Cost: 0.25}
	v := &view{Store: statedir.Store{About: statedir.About{Kind: statedir.Serve, Path: "/p"}}, tasks: []bgagent.Task{done}}
	require.Contains(t, stood(t, v, now), "0 running, 0 queued, 0 parked; in the last 24 hours: 1 completed, 0 failed, 0 cancelled; latest attempts: 5 tokens in, 3 out, $0.25\n")
	require.False(t, v.standing(now).AtLeast)

	v.more = true // the store has more ended tasks than were read
	require.Contains(t, stood(t, v, now), "in the last 24 hours: at least 1 completed, 0 failed, 0 cancelled; latest attempts: at least 5 tokens in")
	require.True(t, v.standing(now).AtLeast)
}

func TestATaskIsMarkedEvenIfItIsCancelledLateOrNever(t *testing.T) {
	for stale, want := range map[time.Duration]time.Duration{0: 90 * time.Second, time.Hour: 90 * time.Second, 3 * time.Minute: 90 * time.Second, time.Minute: 30 * time.Second} {
		require.Equal(t, want, (&serving{stale: stale}).silent())
	}
}

func TestATaskCountsAsSilentAfterTheTimeOfItsServer(t *testing.T) {
	now := time.Now()
	task := bgagent.Task{ID: "bg_1", Status: bgagent.Running, Phase: bgagent.PhaseTurn}
	task.Progress.LastActivity = now.Add(-2 * time.Second)
	v := &view{lives: true, tasks: []bgagent.Task{task}}
	shown := func() string {
		var b strings.Builder
		require.NoError(t, v.print(&b, task))
		return b.String()
	}
	require.NotContains(t, stood(t, v, now), "silent for")
	require.NotContains(t, shown(), "silent for")
	v.now = &control.Status{Info: control.Info{Silent: time.Second}}
	require.Contains(t, stood(t, v, now), "silent for")
	require.Contains(t, shown(), "silent for")
	v.now.Silent = 0
	require.NotContains(t, stood(t, v, now), "silent for")
	require.NotContains(t, shown(), "silent for")
}

func TestAStatusThatIsTooWideHasItsDetailsBelowAndADeadOneIsNotTakenForALiveOne(t *testing.T) {
	now := time.Now()
	failed := bgagent.Task{ID: "bg_1", Status: bgagent.Failed, Agent: "a", Description: "first", Ended: now, Reason: strings.Repeat("why ", 20)}
	running := bgagent.Task{ID: "bg_22", Status: bgagent.Running, Agent: "other", Description: "second"}
	v := &view{lives: true, tasks: []bgagent.Task{running, failed}}
	written := func(width int) string {
		var b strings.Builder
		require.NoError(t, v.writeStanding(&b, v.standing(now), now, width))
		_, rows, _ := strings.Cut(b.String(), "cancelled\n")
		return rows
	}
	detail := "0s ago: " + strings.TrimSpace(failed.Reason)
	wide := "  bg_22  running  other  -  " + strings.Repeat(" ", len(detail)) + "  second\n  bg_1   error    a      -  " + detail + "  first\n"
	require.Equal(t, wide, written(0), "not in a terminal")
	require.Equal(t, wide, written(len("  bg_1   error    a      -    second")+len(detail)))
	require.Equal(t, "  bg_22  running  other  -  second\n  bg_1   error    a      -  first\n    "+detail+"\n", written(80))
	v.lives = false
	require.Contains(t, stood(t, v, now), "it left 1 running, 0 queued, 0 parked; in the last 24 hours: 0 completed, 1 failed, 0 cancelled\n")
	require.Contains(t, stood(t, v, now), "was running")
}

func TestLinesAreBrokenBetweenWordsAndCommandsAreNotBroken(t *testing.T) {
	const text = "  1 running, 2 queued, 3 parked; and so on\n    bgagent answer bg_1 key 'allow once'\nshort\n"
	require.Equal(t, text, fold(text, 0), "not in a terminal")
	require.Equal(t, text, fold(text, 42))
	require.Equal(t, "  1 running, 2 queued,\n    3 parked; and so on\n    bgagent answer bg_1 key 'allow once'\nshort\n", fold(text, 24))
}

func TestATimeOfAnotherDayHasItsDate(t *testing.T) {
	now := time.Date(2026, 11, 30, 23, 0, 0, 0, time.Local)
	require.Equal(t, "23:59:59", clock(now.Add(time.Hour-time.Second), now))
	require.Equal(t, "2026-12-01 00:00:00", clock(now.Add(time.Hour), now))
	require.Equal(t, "2027-11-30 23:00:00", clock(now.AddDate(1, 0, 0), now))
	task := bgagent.Task{Status: bgagent.Running, Phase: bgagent.PhaseParked, Reason: "refused", Until: now.Add(time.Hour)}
	_, detail := doing(task, now, 0)
	require.Equal(t, "refused, until 2026-12-01 00:00:00", detail)
}

func TestTheListOfTasksUsesTheWordsOfStatusAndFitsTheTerminal(t *testing.T) {
	at := time.Date(2026, 11, 30, 12, 0, 0, 0, time.Local)
	parked := bgagent.Task{ID: "bg_1", Status: bgagent.Running, Phase: bgagent.PhaseParked, Agent: "a", Description: "first", Queued: at}
	queued := bgagent.Task{ID: "bg_2", Status: bgagent.Pending, Agent: "a", Description: "second", Queued: at}
	asking := bgagent.Task{ID: "bg_3", Status: bgagent.Running, Phase: bgagent.PhaseParked, Agent: "a", Description: "third", Queued: at, Questions: []bgagent.Question{{}}}
	v := &view{lives: true, tasks: []bgagent.Task{parked, queued, asking}}
	written := func(width int) string {
		var b strings.Builder
		require.NoError(t, v.write(&b, width))
		_, rows, _ := strings.Cut(b.String(), "\n")
		return rows
	}
	require.Equal(t, "  bg_1  parked  a  2026-11-30 12:00:00  -  first\n  bg_2  queued  a  2026-11-30 12:00:00  -  second\n  bg_3  asking  a  2026-11-30 12:00:00  -  third\n", written(0))
	require.Equal(t, "  bg_1  parked  a  -  first\n    2026-11-30 12:00:00\n  bg_2  queued  a  -  second\n    2026-11-30 12:00:00\n  bg_3  asking  a  -  third\n    2026-11-30 12:00:00\n", written(40))
	v.lives = false
	require.Contains(t, written(0), "bg_1  was parked")
}
