package embedded_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	bgnats "github.com/bgagent/bgagent/nats"
)

func TestAllRecordsAreReadIfTheAnswerToTheOpeningWriteIsLost(t *testing.T) {
	server := start(t)
	for how, name := range map[verdict]string{cutBefore: "the write", cutAfter: "the answer"} {
		t.Run(name, func(t *testing.T) {
			c := newStores(t, server)
			first, _ := c.store(bgnats.StoreOptions{})
			open(t, first, 1)
			write(t, first, &bgagent.StoreBatch{Number: 1, Records: []bgagent.StoreRecord{task("a"), task("b")}})
			require.NoError(t, first.Close())

			second, p := c.store(bgnats.StoreOptions{})
			p.loseAnswer(how)
			contents := open(t, second, 2)
			require.Empty(t, contents.Damage)
			require.Equal(t, []bgagent.StoreRecord{task("a"), task("b")}, contents.Records)
			require.Equal(t, uint64(1), contents.Batch)
		})
	}
}
