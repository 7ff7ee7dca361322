package e2e

import (
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/dashboard"
)

// tree is an expression that applies the batches in BATCHES to a new store, and yields the level and the key
// of every row in the store.
const tree = `import(new URL('store.js', location)).then(({ Store }) => {
  const task = (id, session, parent, n) => ({ id, session, parent, n, title: id, agent: 'x', status: 'running' })
  const store = new Store()
  for (const batch of BATCHES) store.apply({ rows: batch.map(t => task(...t)) })
  return store.rows().map(row => row.level + row.node.key).join(' ')
})`

func TestTasksThatOwnEachOtherAreInTheTree(t *testing.T) {
	p := open(t, serve(t, newManager(t, agents, bgagent.Config{}), dashboard.Config{}), desktop)
	for name, c := range map[string]struct{ batches, want string }{
		"parents first":                {`[[['a', 's1', 'main', 1], ['b', 's2', 's1', 2], ['c', 's3', 's2', 3]]]`, "1session:main 2a 3b 4c"},
		"parents last":                 {`[[['c', 's3', 's2', 3], ['b', 's2', 's1', 2]], [['a', 's1', 'main', 1]]]`, "1session:main 2a 3b 4c"},
		"a task in its parent's place": {`[[['a', 's1', 's1', 1]]]`, "1session:s1 2a"},
		"the same, learned late":       {`[[['a', '', 's1', 1]], [['a', 's1', 's1', 1], ['b', 's2', 's1', 2]]]`, "1session:s1 2a 3b"},
		"a ring":                       {`[[['a', 's1', 's2', 1], ['b', 's2', 's1', 2]]]`, "1session:s2 2a 3b"},
		"a ring made by a resume":      {`[[['a', 's1', 'main', 1], ['b', 's2', 's1', 2]], [['a', 's1', 's2', 1]]]`, "1session:s2 2a 3b"},
		"a ring that was broken up":    {`[[['a', 's1', 's2', 1], ['b', 's2', 's1', 2]], [['b', 's2', 'main', 2]]]`, "1session:main 2b 3a"},
	} {
		got, err := chromedp.Run(p.ctx, chromedp.Evaluate[string](`(BATCHES => `+tree+`)(`+c.batches+`)`, chromedp.EvalAwaitPromise))
		require.NoError(t, err, name)
		require.Equal(t, c.want, got, name)
	}
}
