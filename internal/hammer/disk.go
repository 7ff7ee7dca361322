package hammer

import (
	"testing"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/storetest"
)

// disk holds the content of the store in a run with crashes. It outlives the simulated processes of the
// run.
type disk interface {
	// The method "process" returns the store for the next process.
	process() process
	// records returns the records of all tasks after the last process has closed the store.
	records() ([]bgagent.StoreRecord, error)
	// The method "use" must be called before the method "process". The hammer h determines the
	// faults that are injected into writes.
	use(h *hammer)
}

// process is a store in a simulated process.
type process interface {
	bgagent.Store
	Crash()
}

// The method "disk" returns the disk for a new store. It must be called outside of the synctest
// bubble.
func (o *Options) disk(t *testing.T) disk {
	if o.Content == nil {
		return &memoryDisk{}
	}
	return &realDisk{out: newOutside(t), content: o.Content(t)}
}

type memoryDisk struct{ storetest.Memory }

func (d *memoryDisk) process() process { return d.Process() }

func (d *memoryDisk) records() ([]bgagent.StoreRecord, error) { return d.Records(), nil }

func (d *memoryDisk) use(h *hammer) { d.SetFaults(h.strike) }
