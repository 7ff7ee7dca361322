package procs

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/bgagent/bgagent/internal/tempdir"
	"github.com/stretchr/testify/require"
)

// shell starts a shell that runs the script as the program of a turn. The script writes the
// PIDs of the processes that it starts to the file $dir/pids.
func shell(t testing.TB, dir, script string) *Program {
	t.Helper()
	p, err := Start(Spec{
		Command: []string{"sh", "-c", script}, Dir: dir, Env: append(os.Environ(), "dir="+dir, fmt.Sprint("test=", os.Getpid())), Marks: NewMarks(1, ""),
	})
	require.NoError(t, err)
	return p
}

// written returns the PIDs in the file "pids" in the directory.
func written(t testing.TB, dir string) []int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "pids"))
	require.NoError(t, err)
	var pids []int
	for _, f := range strings.Fields(string(text)) {
		n, err := strconv.Atoi(f)
		require.NoError(t, err)
		pids = append(pids, n)
	}
	return pids
}

// runsIn reports whether the process with the PID is running in the directory. Checking the PID alone would
// not be enough, because the system reuses the PIDs of ended processes. These tests start so many processes
// that a PID can be reused within seconds. A process that is exiting no longer runs any code. Its directory
// can no longer be read, but the process stays in the process table for a moment.
func runsIn(t testing.TB, dir string, pid int) bool {
	t.Helper()
	dir, err := filepath.EvalSymlinks(dir)
	require.NoError(t, err)
	at, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
	st, alive := statOf(pid)
	exiting := st.flags&flagExiting != 0 && st.threads <= 1
	return alive && !exiting && (err != nil || at == dir)
}

// ofTurn returns the processes that have the mark of the program's turn.
func ofTurn(p *Program) (pids []int) {
	for _, s := range new(table).scan().list {
		if within(s.turn, p.turn) {
			pids = append(pids, s.pid)
		}
	}
	return pids
}

// escapes are scripts whose processes try to outlive the turn. Each script writes the PIDs of these
// processes. Some of these processes keep starting others. They exit if the test binary is dead, so that
// they do not keep the machine busy after the test has been killed.
var escapes = map[string]string{
	"in the group":                  `sleep 600 & echo $! >>$dir/pids`,
	"in its own session":            `setsid sh -c 'echo $$ >>$dir/pids; exec sleep 600' &`,
	"a session in a session":        `setsid sh -c 'setsid sh -c "echo \$\$ >>$dir/pids; exec sleep 600" & exit' &`,
	"without an environment":        `env -i sleep 600 & echo $! >>$dir/pids`,
	"a group without environment":   `set -m; env -i sleep 600 & echo $! >>$dir/pids`,
	"deaf":                          `setsid sh -c 'trap "" TERM HUP INT; echo $$ >>$dir/pids; while :; do sleep 1; done' &`,
	"in the group, ignores signals": `sh -c 'trap "" TERM HUP INT; echo $$ >>$dir/pids; while :; do sleep 1; done' &`,
	"stopped":                       `setsid sh -c 'echo $$ >>$dir/pids; kill -STOP $$; sleep 600' &`,
	"without descriptors":           `setsid sh -c 'echo $$ >>$dir/pids; exec sleep 600 <&- >&- 2>&-' &`,
	"in a turn within":              `BGAGENT_TURN=$BGAGENT_TURN/inner setsid sh -c 'echo $$ >>$dir/pids; exec sleep 600' &`,
	"always in exec":                `printf 'kill -0 $test || exit\nexec sh $dir/again\n' >$dir/again; setsid sh -c 'echo $$ >>$dir/pids; exec sh $dir/again' &`,
	"many":                          `for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do setsid sh -c 'echo $$ >>$dir/pids; exec sleep 600' & done; until [ $(wc -l <$dir/pids) = 20 ]; do sleep 0.01; done`,
	"always another":                `printf 'kill -0 $test || exit\ntrap "" TERM\necho $$ >>$dir/pids\nsetsid sh $dir/hop &\nexit\n' >$dir/hop; setsid sh $dir/hop &`,
}

func TestNothingOutlivesItsTurn(t *testing.T) {
	for name, escape := range escapes {
		for _, grace := range []time.Duration{0, 200 * time.Millisecond} {
			t.Run(fmt.Sprint(name, ", grace ", grace), func(t *testing.T) {
				t.Parallel()
				dir := tempdir.New(t)
				p := shell(t, dir, escape+"\nuntil [ -s $dir/pids ]; do sleep 0.01; done\nexit 3")
				require.NoError(t, p.Finish(grace))
				require.Equal(t, "exit status 3", p.State().String(), "the state is known only if the program was reaped")
				for _, pid := range written(t, dir) {
					require.False(t, runsIn(t, dir, pid), "process %d still runs", pid)
				}
				require.Empty(t, ofTurn(p))
			})
		}
	}
}

// TestAScanDoesNotReapAProgram reads a program in the same way as a scan that found the program before its
// registration.
func TestAScanDoesNotReapAProgram(t *testing.T) {
	p := shell(t, t.TempDir(), "exit 3")
	<-p.Exited()
	var l look
	_, keep := l.learn(p.PID(), 0, time.Now())
	require.True(t, keep)
	require.True(t, l.blind)
	require.NoError(t, p.Finish(0))
	require.Equal(t, "exit status 3", p.State().String(), "the exit state was lost")
}

// threadsVariable is an environment variable. If it is set, the test binary ends its main
// thread and continues to run.
const threadsVariable = "PROCS_TEST_THREADS"

func init() {
	if os.Getenv(threadsVariable) != "" {
		runtime.LockOSThread() // an init function runs on the main thread
	}
}

func TestMain(m *testing.M) {
	if file := os.Getenv(threadsVariable); file != "" {
		go func() {
			for pid := os.Getpid(); ; time.Sleep(time.Millisecond) {
				if st, there := readStat(pid); there && st.state == 'Z' {
					_ = os.WriteFile(file, []byte(strconv.Itoa(pid)), 0o600)
					select {}
				}
			}
		}()
		_, _, _ = syscall.Syscall(syscall.SYS_EXIT, 0, 0, 0) // exit ends only the calling thread
	}
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue { // the default is too low, because these tests spend most of the time waiting for processes
		_ = f.Value.Set("8")
	}
	os.Exit(m.Run())
}

func TestAProcessWhoseFirstThreadHasEndedIsEnded(t *testing.T) {
	dir := tempdir.New(t)
	p := shell(t, dir, threadsVariable+"=$dir/pids setsid "+os.Args[0]+" & until [ -s $dir/pids ]; do sleep 0.01; done")
	require.NoError(t, p.Finish(0))
	for _, pid := range written(t, dir) {
		require.False(t, runsIn(t, dir, pid))
	}
	require.NotEmpty(t, written(t, dir))
}

func TestAProcessMayBeStartedToOutliveItsTurn(t *testing.T) {
	dir := tempdir.New(t)
	p := shell(t, dir, `env -u BGAGENT_TURN setsid sh -c 'echo $$ >>$dir/pids; exec sleep 600' & until [ -s $dir/pids ]; do sleep 0.01; done`)
	require.NoError(t, p.Finish(0))
	for _, pid := range written(t, dir) {
		require.True(t, runsIn(t, dir, pid))
		require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	}
}

func TestManyTurnsThatEndAtOnceShareTheirLooksAndMissNothing(t *testing.T) {
	var all sync.WaitGroup
	dirs := make([]string, 60)
	programs := make([]*Program, len(dirs))
	for i := range dirs {
		dirs[i] = tempdir.New(t)
		programs[i] = shell(t, dirs[i], escapes["in its own session"]+"\nuntil [ -s $dir/pids ]; do sleep 0.01; done")
	}
	for _, p := range programs {
		all.Go(func() { _ = p.Finish(0) })
	}
	all.Wait()
	for i, dir := range dirs {
		for _, pid := range written(t, dir) {
			require.False(t, runsIn(t, dir, pid), "of turn %d", i)
		}
	}
	require.False(t, running.has(programs[0].PID()), "a finished program is still registered")
}

func TestAProgramHasNoTerminal(t *testing.T) {
	dir := tempdir.New(t)
	p := shell(t, dir, `ps -o sid= -p $$ 2>/dev/null; exec 3</dev/tty`)
	st, ok := readStat(p.PID())
	require.True(t, ok)
	require.Equal(t, p.PID(), st.session)
	require.NoError(t, p.Finish(0))
	require.NotZero(t, p.State().ExitCode(), "it has a terminal")
}

func TestAProgramIsStoppedWhateverItDoes(t *testing.T) {
	for name, script := range map[string]string{
		"willing":      `sleep 600`,
		"deaf":         `trap "" TERM INT HUP; echo x >$dir/pids; while :; do sleep 1; done`,
		"stopped":      `kill -STOP $$`,
		"forking":      `trap 'setsid sleep 600 & setsid sleep 600 &' TERM; while :; do sleep 0.05; done`,
		"in exec":      `printf 'kill -0 $test || exit\nexec sh $dir/again\n' >$dir/again; exec sh $dir/again`,
		"already gone": `exit 0`,
	} {
		for _, grace := range []time.Duration{0, 100 * time.Millisecond} {
			t.Run(fmt.Sprint(name, ", grace ", grace), func(t *testing.T) {
				t.Parallel()
				p := shell(t, tempdir.New(t), script)
				p.Stop(nil, grace)
				require.NoError(t, p.Finish(grace))
				require.Empty(t, ofTurn(p))
				p.Stop(nil, grace) // must not signal another process that now has the program's PID
			})
		}
	}
}
