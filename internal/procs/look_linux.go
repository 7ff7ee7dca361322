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

// identity belongs to one process and no other until the machine starts again.
type identity struct {
	pid   int
	start uint64
}

// seen is a process as a look has seen it.
type seen struct {
	identity
	session  int
	parent   int    // of one that has ended
	turn     string // value of TurnVariable
	instance string // value of InstanceVariable
	cached   bool   // an earlier look has seen it so
}

// look is what one look at the table of processes has found.
type look struct {
	list []seen // of those that have a mark, or are in the session of a program of ours
	// blind says that somebody may have been missed: the numbers of processes began
	// again from below, or a process ended before it could be read, which may have
	// started another. Otherwise nobody was: a look goes upwards, and a child has a
	// higher number than its parent.
	blind  bool
	inExec []uint64 // when those were started that were in the middle of exec
}

// unclear reports whether somebody was in the middle of exec who was started
// since.
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

// table looks at the processes of the machine and remembers those that it has
// seen. A look that begins after a program has exited serves that program's turn,
// so that many turns that end at a time share one.
type table struct {
	mu   sync.Mutex
	next *pending // the look that has not begun; nil when nobody waits for one

	looking sync.Mutex // held by who looks; guards what follows
	known   map[int]memory
	spare   map[int]memory
	resume  time.Time // looks rest until then
}

type pending struct {
	done chan struct{}
	look look // set before done is closed
}

// memory is what is known of a process from an earlier look.
type memory struct {
	inode uint64 // of its directory in /proc: another process has another one
	until time.Time
	seen  seen
}

const (
	knownTime      = 30 * time.Second // after it a process is read again
	unreadableTime = time.Second      // the same for one whose environment must not be read
	maxRest        = 50 * time.Millisecond
)

// shared serves all programs.
var shared table

// look returns what a look has found that began after the call. Looks take at
// most a tenth of one processor's time, however much there is to be looked at
// (until one takes longer than 5 ms).
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
	t.next = nil // who comes from here on needs another one
	t.mu.Unlock()
	began := time.Now()
	p.look = t.scan()
	t.resume = time.Now().Add(min(9*time.Since(began), maxRest))
	close(p.done)
	return p.look
}

// scan looks. It must not run twice at a time.
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
	var room [512]byte // so little that names are not old when they are read
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

// visit looks at one process.
func (t *table) visit(l *look, pid int, inode uint64, now time.Time) {
	m, ok := t.known[pid]
	if ok = ok && m.inode == inode && now.Before(m.until); !ok {
		if pid == os.Getpid() || running.has(pid) { // each of ours is seen to by who has started it
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

// lastNumber returns the number that the last process was given that was
// started; 0 when it cannot be known.
func lastNumber() int {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	text = bytes.TrimSpace(text)
	n, _ := strconv.Atoi(string(text[bytes.LastIndexByte(text, ' ')+1:]))
	return n
}

// how says how a process could be read.
type how int

const (
	readWhole   how = iota
	readGone        // it was gone before it was read
	readLeaving     // it is about to end
	readOver        // it has ended, and nobody has waited for it
	readInExec      // its environment cannot be seen for the moment
	readRefused     // its environment must not be seen
)

// execTries is how often a process in the middle of exec is read in one look.
const execTries = 4

// read looks at a process. It is the same one after its environment was read as
// before.
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
	// In the middle of a call of exec a process has given up its old environment
	// and not yet received the new one.
	return s, readInExec
}
