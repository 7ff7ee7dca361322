package hammer

import (
	"context"
	"errors"

	"github.com/bgagent/bgagent"
)

// ghost is the store of a process that was cut off instead of being killed. Another process has opened
// the store since then. When the ghost comes back, it must not be able to write.
type ghost struct {
	s    bgagent.Store
	last uint64 // number of the last batch that the ghost knows about
	heal func()
}

// ghostKey is the key of the record that ghosts try to write.
const ghostKey = "bg_ghost"

// haunt lets the ghosts come back one after another. If the argument "all" is false, haunt stops at a random
// ghost.
func (d *realDisk) haunt(all bool) {
	for {
		d.mu.Lock()
		if len(d.ghosts) == 0 || !all && d.h.o.draw("haunt", "").IntN(3) > 0 {
			d.mu.Unlock()
			return
		}
		g := d.ghosts[0]
		d.ghosts = d.ghosts[1:]
		d.mu.Unlock()
		reopens := d.h.o.draw("reopen", "").IntN(3) == 0
		d.do(func() {
			if err := g.write(reopens); err == nil {
				d.h.o.fault("a process that has lost the store can still use it")
			}
			_ = g.s.Close() // must not release the store, which belongs to another process
			d.kill(g.s)
		})
	}
}

// The method "write" tries to write to the store, and returns the error. If the outcome of the write is
// uncertain, it reopens the store and returns the error of that call. If reopens is true, it reopens the
// store without trying to write. A nil error is a fault, because the store belongs to another process.
func (g *ghost) write(reopens bool) error {
	g.heal()
	ctx := context.Background()
	err := bgagent.ErrUncertain
	if !reopens {
		err = g.s.Write(ctx, &bgagent.StoreBatch{Number: g.last + 1, Records: []bgagent.StoreRecord{{Key: ghostKey, Kind: bgagent.StoreTask, Data: []byte("{}")}}})
	}
	if errors.Is(err, bgagent.ErrUncertain) {
		_, err = g.s.(bgagent.StoreReopener).Reopen(ctx)
	}
	return err
}
