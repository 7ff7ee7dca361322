package bgagent

// The code in this file starts the goroutines of the manager.

type goKind uint8

// The kinds of goroutines. CloseError.Hung contains their names. A new kind needs a name in goNames.
// If effects start goroutines of the new kind, m.expect must count them.
const (
	goWorker goKind = iota
	goCall
	goAbort
	goNotify
	goPoll
	goEvents
	goLog
	goForget
	goStore
	goSlots
	goKinds
)

var goNames = [goKinds]string{
	goWorker: "CreateSession, RunTurn or StartTurn",
	goCall:   "another host call",
	goAbort:  "Abort",
	goNotify: "Notify",
	goPoll:   "Statuses or Messages",
	goEvents: "Events",
	goLog:    "the logger",
	goForget: "ForgetSession",
	goStore:  "a call to Config.Store",
	goSlots:  "a call to Config.Slots",
}

// spawn counts a goroutine of kind k and starts it.
func (m *BackgroundManager) spawn(k goKind, f func()) {
	m.running[k].Add(1)
	m.begin(k, f)
}

// begin starts a goroutine that was counted by the method "expect" or "spawn". The manager starts all
// its goroutines with this method.
func (m *BackgroundManager) begin(k goKind, f func()) {
	go func() {
		defer func() {
			if m.running[k].Add(-1) < 0 {
				panic("bgagent: bug: a goroutine was not counted: " + goNames[k])
			}
			select {
			case m.exited <- struct{}{}:
			default:
			}
		}()
		f()
	}()
}

// growStack makes the stack of a new goroutine large enough for most of its work. Without it, the runtime
// doubles the stack while many frames are on it, and has to look for the pointers in all of them: this took
// half of the time from the end of a task to its notice. The caller passes false. The stack grows as soon as
// the function is called, and the argument keeps the compiler from removing the array.
//
//go:noinline
func growStack[F frame4K | frame8K](use bool) byte {
	if !use {
		return 0
	}
	var frame F
	for i := range len(frame) {
		frame[i] = byte(i) + frame[len(frame)-1-i]
	}
	return frame[0]
}

// A frame4K does not fit into a stack smaller than 4 KiB, and a frame8K does not fit into one smaller than
// 8 KiB. A worker gets 4 KiB, because a program can have many workers in long calls. Its stack still has to
// grow if there is a store or a subscriber, or if Run waits for its task. A goroutine that delivers notices
// needs 8 KiB. Other goroutines keep the small stack of a new goroutine: when a manager with many tasks
// closes, it starts one of them for each Abort call.
type (
	frame4K [2 << 10]byte
	frame8K [4 << 10]byte
)
