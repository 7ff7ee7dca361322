package procs

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// stat holds fields of proc_pid_stat(5).
type stat struct {
	state   byte
	parent  int
	session int
	flags   uint64
	threads int
	start   uint64 // start time in ticks since boot; unique together with the PID

	// Addresses of the environment in memory. Both are 0 while the process is in the middle of
	// exec, and if this process is not permitted to read them.
	envStart, envEnd uint64

	// Address of the end of the program's code. The system sets it at the end of exec, after the addresses
	// of the environment. Before that, it is 0.
	endCode uint64
}

// Indexes of fields in the part of the file that follows the name. Field 3 of the file has the
// index 0.
const (
	fieldParent   = 4 - 3
	fieldSession  = 6 - 3
	fieldFlags    = 9 - 3
	fieldThreads  = 20 - 3
	fieldStart    = 22 - 3
	fieldEndCode  = 27 - 3
	fieldEnvStart = 50 - 3
	fieldEnvEnd   = 51 - 3
)

// statOf reads the stat file of a process. The second result is false if the process has
// ended.
func statOf(pid int) (st stat, ok bool) {
	st, there := readStat(pid)
	return st, there && !st.over()
}

// readStat reads the stat file of a process, even if the process has ended. The second result
// is false if the process is not in the process table.
func readStat(pid int) (st stat, there bool) {
	return statIn("/proc/" + strconv.Itoa(pid))
}

// statIn reads the stat file in the directory of a process or of a thread.
func statIn(dir string) (st stat, there bool) {
	text, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return st, false
	}
	return parseStat(text)
}

// The method "over" reports whether all threads of the process have ended. The state field is not
// enough, because a process is a zombie as soon as its main thread has ended.
func (st stat) over() bool { return st.state == 'X' || st.state == 'Z' && st.threads <= 1 }

func parseStat(text []byte) (st stat, ok bool) {
	// The name is in parentheses and may contain any character, so parsing starts after the last
	// parenthesis.
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(fields) <= fieldEnvEnd {
		return st, false
	}
	number := func(i int) uint64 {
		n, _ := strconv.ParseUint(string(fields[i]), 10, 64)
		return n
	}
	st = stat{
		state: fields[0][0], parent: int(number(fieldParent)), session: int(number(fieldSession)), flags: number(fieldFlags),
		threads: int(number(fieldThreads)), start: number(fieldStart), envStart: number(fieldEnvStart), envEnd: number(fieldEnvEnd),
		endCode: number(fieldEndCode),
	}
	return st, true
}

const (
	flagExiting = 0x4      // PF_EXITING
	flagKernel  = 0x200000 // PF_KTHREAD
)

// envEmpty reports whether the process was started with an empty environment. In the middle of
// exec, every environment appears empty for a moment.
func (st stat) envEmpty() bool { return st.endCode != 0 && st.envEnd != 0 && st.envStart == st.envEnd }

// environOf returns the environment with which the process was started. The result is
// empty if the process has no environment or the environment cannot be read.
//
// The second result is false if part of the environment may be missing. The system returns the
// environment in several pieces, and stops as soon as the process executes another program.
func environOf(pid int, st stat) (env []byte, whole bool, err error) {
	dir := "/proc/" + strconv.Itoa(pid)
	if st.state != 'Z' {
		return readEnviron(dir, st)
	}
	threads, err := os.ReadDir(dir + "/task")
	for _, t := range threads {
		thread := dir + "/task/" + t.Name()
		if st, there := statIn(thread); there {
			if env, whole, err := readEnviron(thread, st); err == nil && len(env) > 0 {
				return env, whole, nil
			}
		}
	}
	return nil, true, err
}

// readEnviron reads the environment from the directory of a process or of a thread. before holds the stat
// file that was read earlier from the same directory.
func readEnviron(dir string, before stat) (env []byte, whole bool, err error) {
	env, err = os.ReadFile(dir + "/environ")
	if uint64(len(env)) == before.envEnd-before.envStart {
		return env, true, err
	}
	after, _ := statIn(dir)                         // contains the new addresses if the process has executed another program
	told := before.envEnd != 0 || after.envEnd != 0 // some systems, such as gVisor, do not report the addresses
	return env, !told || uint64(len(env)) == after.envEnd-after.envStart, err
}

// valueOf returns the value of a variable in an environment.
func valueOf(env []byte, name string) string {
	for entry := range bytes.SplitSeq(env, []byte{0}) {
		if rest, ok := bytes.CutPrefix(entry, []byte(name)); ok && len(rest) > 0 && rest[0] == '=' {
			return string(rest[1:])
		}
	}
	return ""
}

// ours reports whether the process belongs to the user of this process.
func ours(pid int) bool {
	info, err := os.Stat("/proc/" + strconv.Itoa(pid))
	if err != nil {
		return false
	}
	sys, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(sys.Uid) == os.Geteuid()
}

// shownCommand is the maximum number of bytes of a command line in messages.
const shownCommand = 200

// commandOf returns the command line of a process for messages.
func commandOf(pid int) string {
	dir := "/proc/" + strconv.Itoa(pid)
	text, _ := os.ReadFile(dir + "/cmdline")
	if len(text) == 0 {
		text, _ = os.ReadFile(dir + "/comm")
	}
	if len(text) > shownCommand {
		text = append(text[:shownCommand:shownCommand], "…"...)
	}
	// The arguments are separated by NUL bytes.
	line := strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(string(text), ""))
	return strings.TrimSpace(line)
}

// send sends a signal to the process with the given PID if that process still has the given
// start time. The process handle ensures that the signal cannot reach another process that
// gets the PID after the check.
func send(pid int, start uint64, sig os.Signal) error {
	h, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	defer func() { _ = h.Release() }()
	st, ok := statOf(pid)
	if !ok || st.start != start {
		return os.ErrProcessDone
	}
	err = h.Signal(sig)
	if st.state == 'T' && sig == syscall.SIGTERM && err == nil {
		err = h.Signal(syscall.SIGCONT) // a stopped process handles SIGTERM only after SIGCONT
	}
	return err
}

// refused reports whether err means that an operation is not permitted.
func refused(err error) bool { return errors.Is(err, fs.ErrPermission) }
