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
		growStack(false)
		f()
	}()
}

// growStack makes the stack of a new goroutine large enough for most of the manager's work. Without it, the
// runtime doubles the stack several times while many frames are on it, and has to look for the pointers in all
// of them: this took half of the time from the end of a task to its notice. The caller passes false. The stack
// grows as soon as the function is called, and the argument keeps the compiler from removing the array.
//
//go:noinline
func growStack(use bool) byte {
	if !use {
		return 0
	}
	var frame [grownStack]byte
	for i := range frame {
		frame[i] = byte(i) + frame[grownStack-1-i]
	}
	return frame[0]
}

// grownStack is the size of the frame of growStack in bytes. It makes a stack of 8 KiB. In a benchmark of
// notices, half of it was not enough, and twice as much was no better.
const grownStack = 4 << 10
