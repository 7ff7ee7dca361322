package bgagent_test

import (
	"strings"
	"testing"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

func TestARecordDescribesItsTask(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m := w.begin()
		first := launch(t, m, "explore")
		want := ended(t, m, first.ID)[0]
		page, err := w.life.store.History(t.Context(), bgagent.StoreQuery{Limit: 10})
		require.NoError(t, err)
		require.Len(t, page, 1)
		got, err := page[0].Task()
		require.NoError(t, err)
		require.True(t, want.Queued.Equal(got.Queued) && want.Ended.Equal(got.Ended))
		require.Equal(t, []any{want.ID, want.Session, want.Parent, want.Root, want.Agent, want.Description, want.Status, want.Cause, want.Attempt},
			[]any{got.ID, got.Session, got.Parent, got.Root, got.Agent, got.Description, got.Status, got.Cause, got.Attempt})
		require.Empty(t, got.Prompt+got.Result)
		text, err := w.life.store.Text(t.Context(), got.ID, "result.1")
		require.NoError(t, err)
		require.Equal(t, want.Result, text)

		_, err = (&bgagent.StoreRecord{Kind: bgagent.StoreManager}).Task()
		require.ErrorContains(t, err, "does not describe a task")
		record := string(page[0].Data)
		page[0].Data = []byte(strings.Replace(record, `"end":{`, `"end":{"open_todos":-1,`, 1))
		_, err = page[0].Task()
		require.ErrorContains(t, err, "an attempt cannot have -1 open todos")
		page[0].Data = []byte("{}")
		_, err = page[0].Task()
		require.ErrorContains(t, err, "task "+want.ID+": the record has no version")
	})
}
