package bgagent_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/bgagenttest"
	"github.com/bgagent/bgagent/internal/inside"
	"github.com/bgagent/bgagent/internal/race"
	"github.com/bgagent/bgagent/storetest"
	"github.com/stretchr/testify/require"
)

func TestATaskWhoseOwnTasksCannotBeReadDoesNotWaitForThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLives(t, 0, false)
		l.fake.Fates = nil
		l.begin()
		id := launch(t, l.m, "delegate").ID
		time.Sleep(9 * time.Second)
		require.Equal(t, bgagent.PhaseWaiting, get(t, l.m, id).Phase)
		for _, r := range tasksIn(&l.memory) {
			if r.Key != id {
				l.memory.Damage(r.Key)
			}
		}
		l.die()
		l.begin()
		require.Len(t, l.m.Restored().Damage, 1)
		task := ended(t, l.m, id)[0]
		require.Equal(t, bgagent.Completed, task.Status, task.Reason)
		require.Equal(t, "half done", task.Result)
	})
}

// The type "damaged" is a store with changed records. It accepts all writes and discards them.
type damaged struct {
	blankStore
	records []bgagent.StoreRecord
	texts   *storetest.Process
}

func (s *damaged) Open(context.Context, bgagent.StoreOwner) (bgagent.StoreContents, error) {
	return bgagent.StoreContents{Batch: s.last, Records: s.records}, nil
}

func (s *damaged) Text(ctx context.Context, record, name string) (string, error) {
	return s.texts.Text(ctx, record, name)
}

// stub is a client that continues sessions.
type stub struct{ *goRunner }

func (stub) RestoreSession(context.Context, bgagent.SessionRestore) (bgagent.PromptState, bgagent.TurnEnd, error) {
	return bgagent.PromptInterrupted, bgagent.TurnEnd{}, nil
}

// The function "changes" returns copies of a decoded JSON value, each with one change. The
// parameter "others" holds the strings that can replace a string in the value.
func changes(v any, others []string) (all []any) {
	switch v := v.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			without := maps.Clone(v)
			delete(without, key)
			all = append(all, without)
			for _, x := range changes(v[key], others) {
				with := maps.Clone(v)
				with[key] = x
				all = append(all, with)
			}
		}
	case []any:
		all = append(all, []any{}, append(slices.Clone(v), v...))
		for i := range v {
			for _, x := range changes(v[i], others) {
				with := slices.Clone(v)
				with[i] = x
				all = append(all, with)
			}
		}
	case float64:
		all = append(all, -v-1, v+1, 1<<30)
	case bool:
		all = append(all, !v)
	case string:
		if _, err := time.Parse(time.RFC3339, v); err == nil {
			return []any{"0001-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "9999-01-01T00:00:00Z"}
		}
		for _, s := range others {
			all = append(all, s)
		}
	}
	return all
}

// TestNoContentOfARecordHarmsTheManager opens stores with one changed value in one record, or with
// a record that is missing or appears twice.
func TestNoContentOfARecordHarmsTheManager(t *testing.T) {
	memory, ids := &storetest.Memory{}, []string{}
	synctest.Test(t, func(t *testing.T) {
		var m *bgagent.BackgroundManager
		runner := bgagenttest.NewRunner(func(turn *bgagenttest.Turn) {
			if turn.Prompt.Text == "delegate" {
				_, _ = m.Launch(turn.Context(), bgagent.Caller{Session: turn.Session()}, bgagent.LaunchInput{Agent: "worker", Prompt: "long"})
			} else if turn.Prompt.Text == "long" {
				turn.Sleep(time.Hour)
			}
			turn.Sleep(time.Second)
			turn.Say("done")
		})
		store := memory.Process()
		m = manage(t, runner, bgagent.Config{Store: store, MaxDepth: 2, Limits: bgagent.Limits{Default: 4}, NoticeWindow: 2 * time.Hour})
		for _, prompt := range []string{"short", "delegate", "long", "long", "long", "long", "long"} {
			ids = append(ids, launch(t, m, prompt).ID)
			time.Sleep(time.Second)
		}
		_, _ = m.Resume(t.Context(), root, ids[0], bgagent.ResumeInput{Prompt: "long"})
		_, _ = m.Cancel(t.Context(), root, ids[2], bgagent.CancelOptions{})
		_, err := m.Cancel(t.Context(), root, ids[6], bgagent.CancelOptions{})
		require.NoError(t, err)
		time.Sleep(10 * time.Second)
		_, ok := m.TakeNotice("root")
		require.True(t, ok)
		_, err = m.Cancel(t.Context(), root, ids[3], bgagent.CancelOptions{})
		require.NoError(t, err)
		time.Sleep(10 * time.Second)
		store.Crash()
		runner.Close()
	})
	records, plays := memory.Records(), 0
	others := []string{"", "root", ids[1]}
	for _, r := range records {
		if r.Key == ids[1] || r.Key == ids[4] {
			others = append(others, r.Session)
		}
	}
	var faults []string
	open := func(with []bgagent.StoreRecord, what string) {
		synctest.Test(t, func(t *testing.T) {
			if fault := openDamaged(t, memory, with); fault != "" {
				faults = append(faults, strings.TrimSpace(fault)+"\n"+what)
			}
		})
	}
	for i, r := range records {
		var v map[string]any
		require.NoError(t, json.Unmarshal(r.Data, &v))
		for _, x := range changes(v, others) {
			if plays++; testing.Short() || race.Enabled && plays%10 != 0 {
				continue
			}
			data, err := json.Marshal(x)
			require.NoError(t, err)
			with := slices.Clone(records)
			with[i].Data = data
			open(with, "changed: "+string(data))
		}
		open(append(slices.Clone(records), r), "twice: "+r.Key)
		open(slices.Delete(slices.Clone(records), i, i+1), "missing: "+string(r.Data))
	}
	t.Log(plays, "changed records")
	for _, fault := range faults[:min(len(faults), 20)] {
		t.Error(fault)
	}
}

// openDamaged opens a store, continues its tasks and waits for them to end. It returns a
// description of the failure, or "" if there was none.
func openDamaged(t *testing.T, memory *storetest.Memory, records []bgagent.StoreRecord) (found string) {
	texts := memory.Process()
	_, err := texts.Open(t.Context(), bgagent.StoreOwner{})
	require.NoError(t, err)
	defer func() { _ = texts.Close() }()
	runs := &goRunner{run: func(context.Context, string, bgagent.Prompt, *bgagent.Reporter) (bgagent.TurnEnd, error) {
		return bgagent.TurnEnd{Text: "done"}, nil
	}}
	runs.create = func(_ context.Context, s bgagent.SessionSpec) (string, error) { return "new_" + s.Key, nil }
	m, err := bgagent.New(stub{runs}, bgagent.Config{Store: &damaged{records: records, texts: texts}, RestartWithin: bgagent.Disabled})
	require.NoError(t, err)
	check := func() {
		if err := inside.CheckNow(m); err != nil && found == "" {
			found = err.Error()
		}
	}
	check()
	m.Start()
	check()
	time.Sleep(3 * time.Hour)
	check()
	for _, task := range m.List(bgagent.Query{}) {
		if !task.Status.Terminal() {
			found += fmt.Sprintf("task %s is %s in phase %s", task.ID, task.Status, task.Phase)
		}
	}
	_ = m.Close(context.Background())
	return found
}
