package sqlite

import (
	"bufio"
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

var (
	kills     = flag.Int("kills", 8, "number of processes that TestNoKillLosesOrRepeatsWork kills")
	killsSeed = flag.Uint64("kills.seed", 0, "seed of TestNoKillLosesOrRepeatsWork; 0 for a random one")
)

// TestNoKillLosesOrRepeatsWork starts a process with 50 live tasks and kills it with SIGKILL at a
// random moment. Then it starts the process again on the same store, kills it again, and so on.
// Finally, it lets a process finish all tasks, and judges the results from outside. Then it begins
// again with a new store.
func TestNoKillLosesOrRepeatsWork(t *testing.T) {
	seed := *killsSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-kills.seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	var all killFigures
	done, stores := 0, 0
	for ; done < *kills && !t.Failed(); stores++ {
		dir := t.TempDir()
		n := min(1+rnd.IntN(6), *kills-done)
		for life := 1; life <= n; life++ {
			killAtRandom(t, rnd, dir, life)
			done++
		}
		if out, err := killCommand(t.Context(), dir, n+1, rnd.Uint64(), true).CombinedOutput(); err != nil {
			t.Fatalf("store %d: the last process: %v: %s", stores, err, bytes.TrimSpace(out))
		}
		lines, err := readKillLog(dir)
		if err != nil {
			t.Fatal(err)
		}
		found, err := readKilled(t.Context(), filepath.Join(dir, "store"))
		if err != nil {
			t.Fatal(err)
		}
		wrong, figures := judgeKills(lines, found)
		for _, w := range wrong {
			t.Errorf("store %d, %d kills: %s", stores, n, w)
		}
		all.add(figures)
	}
	t.Logf("%d kills of processes on %d stores. %s", done, stores, all)
}

func killCommand(ctx context.Context, dir string, life int, seed uint64, last bool) *exec.Cmd {
	exe, err := os.Executable()
	if err != nil {
		exe = os.Args[0]
	}
	cmd := exec.CommandContext(ctx, exe)
	cmd.Env = append(os.Environ(), killDir+"="+dir, fmt.Sprint(killLife, "=", life), fmt.Sprint(killSeed, "=", seed))
	if last {
		cmd.Env = append(cmd.Env, killLast+"=1")
	}
	return cmd
}

// killAtRandom kills a process after a random time, or after it has written a random number of lines
// to its log.
func killAtRandom(t *testing.T, rnd *rand.Rand, dir string, life int) {
	cmd := killCommand(t.Context(), dir, life, rnd.Uint64(), false)
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	after, lines := time.Minute, 1+rnd.IntN(500)
	if rnd.IntN(4) == 0 {
		after, lines = time.Duration(rnd.Int64N(int64(300*time.Millisecond))), 1<<30
	}
	kill := time.AfterFunc(after, func() { _ = cmd.Process.Kill() }) // an error means that the process has already ended
	defer kill.Stop()
	for r := bufio.NewReader(out); lines > 0; lines-- {
		if _, err := r.ReadByte(); err != nil {
			break
		}
	}
	if lines == 0 {
		_ = cmd.Process.Kill() // an error means that the process has already ended, and Wait reports this
	}
	_, _ = io.Copy(io.Discard, out) // the pipe ends with the process
	if err := cmd.Wait(); complaints.Len() > 0 {
		t.Fatalf("process %d ended without being killed: %v: %s", life, err, bytes.TrimSpace(complaints.Bytes()))
	}
}
