package main

import (
	"context"
	"errors"
	"testing"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/inproc"
	"github.com/bgagent/bgagent/storetest"
	"github.com/stretchr/testify/require"
)

// pages is a store whose history has several pages. The field "fail" is how many reads of later pages are
// still going to fail.
type pages struct {
	*storetest.Process
	fail  int
	err   error
	calls int
}

// History implements [bgagent.Store].
func (p *pages) History(ctx context.Context, q bgagent.StoreQuery) ([]bgagent.StoreRecord, error) {
	p.calls++
	if q.Before != "" && p.fail > 0 {
		p.fail--
		return nil, p.err
	}
	return p.Process.History(ctx, q)
}

// If a page of ended tasks were left out, the run would treat the tasks on it as never launched, and
// would run them again.
func TestAPageOfKeptTasksIsNeverLeftOut(t *testing.T) {
	var memory storetest.Memory
	store := &pages{Process: memory.Process()}
	m, err := bgagent.New(inproc.New(map[string]inproc.Agent{"a": func(context.Context, *inproc.Turn) (string, error) { return "done", nil }}),
		bgagent.Config{Store: store, Wake: bgagent.WakeNever})
	require.NoError(t, err)
	task, err := m.Run(t.Context(), bgagent.Caller{Session: runScope}, bgagent.LaunchInput{Agent: "a", Prompt: "x"})
	require.NoError(t, err)
	defer m.Close(context.Background())

	store.fail, store.err = 2, bgagent.ErrNoRecord // this error means that the store has deleted the last task of the first page
	all, err := keptTasks(m)
	require.NoError(t, err)
	require.Equal(t, 6, store.calls, "all pages were read two more times")
	require.Equal(t, task.ID, all[len(all)-1].ID)

	store.fail, store.err = 1, errors.New("the disk is broken")
	_, err = keptTasks(m)
	require.ErrorContains(t, err, "the disk is broken")
	store.fail, store.err = 100, bgagent.ErrNoRecord
	_, err = keptTasks(m)
	require.ErrorIs(t, err, bgagent.ErrNoRecord)
}
