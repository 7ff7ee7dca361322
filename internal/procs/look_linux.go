package procs

import (
	"bytes"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

// identity belongs to one process only until the machine restarts.
type identity struct {
	pid   int
	start uint64
}

// seen is a process as a look saw it.
type seen struct {
	identity
	session  int
	parent   int    // set only if the process has ended
	turn     string // value of TurnVariable
	instance string // value of InstanceVariable
	cached   bool   // this comes from an earlier look
}

// look is the result of one look at the table of processes.
type look struct {
	list []seen // processes that have a mark or are in the session of one of our programs
	// blind means that a process may have been missed: the numbers of processes
	// wrapped around, or a process ended before it could be read and may have
	// started another. Otherwise no process was missed, because a look goes upwards
	// and a child has a higher number than its parent.
	blind  bool
	inExec []uint64 // start times of the processes that were in the middle of exec
}

// unclear reports whether a process was in the middle of exec. Processes that
// started before since do not count.
func (l look) unclear(since func() uint64) bool {
	if len(l.inExec) == 0 {
		return false
	}
	first := since()
	for _, start := range l.inExec {
		if start >= first {
			return true
		}
	}
	return false
}

// table looks at the processes of the machine and remembers what it has seen. A
// look that begins after a program has exited is valid for that program's turn,
// so turns that end at the same time share one look.
type table struct {
	mu   sync.Mutex
	next *pending // the look that has not begun; nil if nobody waits for one

	looking sync.Mutex // held during a look; guards the fields below
	known   map[int]memory
	spare   map[int]memory
	resume  time.Time // looks rest until then
}

type pending struct {
	done chan struct{}
	look look // set before done is closed
}

// memory is what an earlier look has seen of a process.
type memory struct {
	inode uint64 // of its directory in /proc; it differs for each process
	until time.Time
	seen  seen
}

const (
	knownTime      = 30 * time.Second // a process is read again after it
	unreadableTime = time.Second      // the same for a process whose environment may not be read
	maxRest        = 50 * time.Millisecond
)

// shared serves all programs.
var shared table

// look returns the result of a look that began after the call. Looks take at most
// a tenth of one processor's time, however many processes there are, as long as
// one look takes less than 5 ms.
func (t *table) look() look {
	t.mu.Lock()
	p := t.next
	mine := p == nil
	if mine {
		p = &pending{done: make(chan struct{})}
		t.next = p
	}
	t.mu.Unlock()
	if !mine {
		<-p.done
		return p.look
	}
	t.looking.Lock()
	defer t.looking.Unlock()
	time.Sleep(time.Until(t.resume))
	t.mu.Lock()
	t.next = nil // later callers need another look
	t.mu.Unlock()
	began := time.Now()
	p.look = t.scan()
	t.resume = time.Now().Add(min(9*time.Since(began), maxRest))
	close(p.done)
	return p.look
}

// scan looks at all processes. Two scans must not run at the same time.
func (t *table) scan() (l look) {
	dir, err := os.Open("/proc")
	if err != nil {
		return look{}
	}
	defer func() { _ = dir.Close() }()
	if t.known == nil {
		t.known, t.spare = map[int]memory{}, map[int]memory{}
	}
	last, now := lastNumber(), time.Now()
	var room [512]byte // small, so that the names are fresh when they are visited
	buf := room[:]
	for {
		n, err := syscall.ReadDirent(int(dir.Fd()), buf)
		if err == syscall.EINTR {
			continue
		}
		if n <= 0 || err != nil {
			break
		}
		for rest := buf[:n]; len(rest) > 0; {
			entry := (*syscall.Dirent)(unsafe.Pointer(&rest[0]))
			name := rest[unsafe.Offsetof(entry.Name):entry.Reclen]
			if i := bytes.IndexByte(name, 0); i >= 0 {
				name = name[:i]
			}
			if name[0] >= '1' && name[0] <= '9' {
				if pid, err := strconv.Atoi(string(name)); err == nil {
					t.visit(&l, pid, entry.Ino, now)
				}
			}
			rest = rest[entry.Reclen:]
		}
	}
	t.known, t.spare = t.spare, t.known
	clear(t.spare)
	l.blind = l.blind || lastNumber() < last
	return l
}

// visit reads one process, or takes it from memory.
func (t *table) visit(l *look, pid int, inode uint64, now time.Time) {
	m, ok := t.known[pid]
	if ok = ok && m.inode == inode && now.Before(m.until); !ok {
		if pid == os.Getpid() || running.has(pid) { // its Program takes care of it
			return
		}
		s, how := read(pid)
		m = memory{inode: inode, until: now.Add(knownTime), seen: s}
		switch how {
		case readGone:
			l.blind = true
			return
		case readLeaving:
			l.blind = true
			return
		case readOver:
			l.blind = true // it may have been alive when the look began
			if s.parent == os.Getpid() && running.has(s.session) {
				reapAdopted(pid)
				return
			}
		case readInExec:
			l.inExec = append(l.inExec, s.start)
			m.until = now
		case readRefused:
			m.until = now.Add(unreadableTime)
		}
	}
	t.spare[pid] = m
	s := m.seen
	if s.parent != 0 {
		return
	}
	s.cached = ok
	if s.turn != "" || s.instance != "" || running.has(s.session) {
		l.list = append(l.list, s)
	}
}

// lastNumber returns the number of the process that was started last, or 0 if it
// is unknown.
func lastNumber() int {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	text = bytes.TrimSpace(text)
	n, _ := strconv.Atoi(string(text[bytes.LastIndexByte(text, ' ')+1:]))
	return n
}

// how is the result of reading a process.
type how int

const (
	readWhole   how = iota
	readGone        // it was gone before it was read
	readLeaving     // it is about to end
	readOver        // it has ended and has not been reaped
	readInExec      // its environment cannot be read at the moment
	readRefused     // its environment may not be read
)

// execTries is how many more times one look reads a process in the middle of exec.
const execTries = 4

// read reads a process. Its identity is the same before and after its environment
// is read.
func read(pid int) (s seen, h how) {
	for try := 0; ; try++ {
		if s, h = readOnce(pid); h != readInExec || try == execTries {
			return s, h
		}
		time.Sleep(50 * time.Microsecond << try)
	}
}

func readOnce(pid int) (s seen, h how) {
	before, there := readStat(pid)
	if !there {
		return s, readGone
	}
	s.identity = identity{pid, before.start}
	switch {
	case before.over():
		s.session, s.parent = before.session, before.parent
		return s, readOver
	case before.flags&flagKernel != 0:
		return s, readWhole
	}
	s.session = before.session
	env, err := environOf(pid, before)
	after, there := readStat(pid)
	switch {
	case !there || after.start != before.start:
		return s, readGone
	case after.over() || after.flags&flagExiting != 0 && after.threads <= 1:
		return s, readLeaving
	case len(env) > 0:
		s.session = after.session
		s.turn, s.instance = valueOf(env, TurnVariable), valueOf(env, InstanceVariable)
		return s, readWhole
	case refused(err):
		return s, readRefused
	case before.envEmpty() && after.envEmpty():
		return s, readWhole
	}
	// In the middle of exec, a process has given up its old environment and has not
	// yet received the new one.
	return s, readInExec
}
