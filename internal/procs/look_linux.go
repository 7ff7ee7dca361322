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

// identity identifies a process. It is unique until the machine restarts.
type identity struct {
	pid   int
	start uint64
}

// seen is the state of a process that a scan has found.
type seen struct {
	identity
	session  int
	parent   int    // PID of the parent; set only if the process has ended
	turn     string // value of TurnVariable
	instance string // value of InstanceVariable
	cached   bool   // whether the state is from an earlier scan
	wrapped  bool   // whether the scan may have missed a child of the process because PIDs have wrapped around
}

// look is the result of one scan of the process table.
type look struct {
	list []seen // processes that have a mark or are in the session of a running Program
	// The field "blind" means that the scan may have missed a process. This is possible in two
	// cases: a process ended before it could be read and may have started another process, or PIDs
	// have wrapped around, so that a child can have a lower PID than its parent; see also
	// seen.wrapped. Otherwise, no process was missed, because a scan reads processes in the order
	// of their PIDs, and a child has a higher PID than its parent.
	blind  bool
	inExec []uint64 // start times of the processes that were in the middle of exec
}

// unclear reports whether a process was in the middle of exec. It ignores processes that
// started before the time that the function "since" returns.
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

// table scans the processes of the machine and remembers the results. A turn can use any
// scan that begins after its program has exited, so turns that end at the same time
// share one scan.
type table struct {
	mu   sync.Mutex
	next *pending // the next scan, which has not begun yet; nil if no caller waits for a scan

	looking sync.Mutex // held during a scan; guards the fields below
	known   map[int]memory
	spare   map[int]memory
	resume  time.Time // earliest time of the next scan
}

type pending struct {
	done chan struct{}
	look look // set before the channel "done" is closed
}

// memory is the state of a process from an earlier scan.
type memory struct {
	inode uint64 // inode of the process's directory in /proc, which is unique to the process
	until time.Time
	seen  seen
}

const (
	knownTime      = 30 * time.Second // how long an ordinary process is remembered
	unreadableTime = time.Second      // how long a process with an unreadable environment is remembered
	maxRest        = 50 * time.Millisecond
)

// shared is the table for the turns of all programs.
var shared table

// look returns the result of a scan that began after the call. After each scan, there is a pause nine times
// as long as the scan, but at most maxRest. While a scan takes no longer than about 5 ms, scans therefore use
// at most a tenth of one processor's time. Longer scans use more, because the pause does not grow beyond
// maxRest.
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
	t.next = nil // later callers need another scan
	t.mu.Unlock()
	began := time.Now()
	p.look = t.scan()
	t.resume = time.Now().Add(min(9*time.Since(began), maxRest))
	close(p.done)
	return p.look
}

// scan reads all processes. Two scans of one table must not run at the same time.
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
	began := ticks()
	var room [512]byte // a small buffer, so that each process is visited soon after its name is read
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
	latest := lastNumber()
	l.blind = l.blind || latest < last
	// A process that was started before the scan and has a PID above "last" is older than the
	// last wrap-around. Its new children have lower PIDs.
	for i := range l.list {
		s := &l.list[i]
		s.wrapped = latest != last && s.pid > last && s.start < began
	}
	return l
}

// visit adds the state of one process to l. It reads the state or takes it from t.known.
func (t *table) visit(l *look, pid int, inode uint64, now time.Time) {
	m, ok := t.known[pid]
	if ok = ok && m.inode == inode && now.Before(m.until); !ok {
		if pid == os.Getpid() || running.has(pid) { // this process is not terminated, and a running program is terminated by its own Program
			return
		}
		var keep bool
		if m, keep = l.learn(pid, inode, now); !keep {
			return
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

// learn reads the state of one process. The second result is false if there is nothing to remember because
// the process has ended. An adopted process that has ended is reaped if it is in the session of a running
// program.
//
// The process can be a new program: it was registered after the method "visit" looked for registered
// programs, and has exited since. The method "learn" must not reap such a program, because Program.reap must
// read its exit state. Every program is the leader of its session. Therefore, the method "learn" does not
// reap the leader of a session.
func (l *look) learn(pid int, inode uint64, now time.Time) (m memory, keep bool) {
	s, how := read(pid)
	m = memory{inode: inode, until: now.Add(knownTime), seen: s}
	switch how {
	case readGone, readLeaving:
		l.blind = true
		return m, false
	case readOver:
		l.blind = true // the process may have started another process since the scan began
		if s.parent == os.Getpid() && s.session != pid && running.has(s.session) {
			reapAdopted(pid)
			return m, false
		}
	case readInExec:
		l.inExec = append(l.inExec, s.start)
		m.until = now
	case readRefused:
		m.until = now.Add(unreadableTime)
	}
	return m, true
}

// ticks returns the time since the machine started, in the unit of stat.start. The unit is a
// hundredth of a second on all systems that Go supports, as in /proc/uptime.
func ticks() uint64 {
	text, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return 0
	}
	up, _, _ := bytes.Cut(text, []byte{' '})
	n, _ := strconv.ParseUint(string(bytes.Replace(up, []byte{'.'}, nil, 1)), 10, 64)
	return n
}

// lastNumber returns the PID of the most recently started process, or 0 if that PID is
// unknown.
func lastNumber() int {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	text = bytes.TrimSpace(text)
	n, _ := strconv.Atoi(string(text[bytes.LastIndexByte(text, ' ')+1:]))
	return n
}

// The type "how" describes the result of reading a process.
type how int

const (
	readWhole   how = iota
	readGone        // the process disappeared before it was read
	readLeaving     // the process is about to end
	readOver        // the process has ended but has not been reaped
	readInExec      // the process is in the middle of exec, or executed another program during the read
	readRefused     // this process is not permitted to read the environment
)

// execTries is how often a scan retries reading a process that is in the middle of exec. The first
// quickTries retries follow immediately, because the process may end soon.
const (
	execTries  = 12
	quickTries = 8
)

// The function "read" collects the details of a process. It checks that the process is the same
// before and after its environment is read.
func read(pid int) (s seen, h how) {
	for try := 0; ; try++ {
		if s, h = readOnce(pid); h != readInExec || try == execTries {
			return s, h
		}
		if try >= quickTries {
			time.Sleep(50 * time.Microsecond << (try - quickTries))
		}
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
	env, whole, err := environOf(pid, before)
	after, there := readStat(pid)
	switch {
	case !there || after.start != before.start:
		return s, readGone
	case after.over() || after.flags&flagExiting != 0 && after.threads <= 1:
		return s, readLeaving
	case len(env) > 0:
		s.session = after.session
		s.turn, s.instance = valueOf(env, TurnVariable), valueOf(env, InstanceVariable)
		if !whole {
			return s, readInExec
		}
		return s, readWhole
	case refused(err):
		return s, readRefused
	case before.envEmpty() && after.envEmpty():
		return s, readWhole
	}
	// In the middle of exec, a process has lost its old environment but does not have the new one yet.
	return s, readInExec
}
