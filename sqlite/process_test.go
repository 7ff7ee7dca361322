package sqlite

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/kills"
	"github.com/bgagent/bgagent/storetest"
)

// A separate process, the child, writes the script to a store. Both processes can generate the script.
const (
	childDir  = "BGAGENT_SQLITE_TEST_DIR"
	childLong = 400
)

var childScript = storetest.NewScript(31, childLong, time.Now().Truncate(24*time.Hour))

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		if err := child(dir); err != nil {
			fmt.Println("failed:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if o, ok := kills.Ordered(); ok {
		if err := killedProcess(o); err != nil {
			fmt.Fprintln(os.Stderr, "failed:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// ahead is the number of batches that the child may write before the parent has read the reports
// about them.
const ahead = 5

// child writes the missing batches of the script and reports each batch after writing it.
func child(dir string) error {
	s := New(dir, Options{KeepFor: -1, KeepTasks: -1, KeepBytes: -1})
	c, err := s.Open(context.Background(), bgagent.StoreOwner{PID: os.Getpid(), Program: "the child"})
	if err != nil {
		return err
	}
	heard := bufio.NewScanner(os.Stdin)
	for n := int(c.Batch) + 1; n <= childLong; n++ {
		if n > int(c.Batch)+ahead {
			heard.Scan()
		}
		if err := s.Write(context.Background(), childScript.Batch(n)); err != nil {
			return err
		}
		fmt.Println(n)
	}
	return s.Close()
}

func TestAKilledProcessLosesNothingAndLeavesNoLock(t *testing.T) {
	dir := folder(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s := New(dir, Options{KeepFor: -1, KeepTasks: -1, KeepBytes: -1})
	acked := 0
	for range 6 {
		cmd := exec.Command(exe)
		cmd.Env = append(os.Environ(), childDir+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		begun, heard := acked, 0
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if _, err := fmt.Sscan(lines.Text(), &acked); err != nil {
				t.Errorf("the child reported %s", lines.Text())
			}
			heard++
			if acked == begun+10 { // while the child owns the store, no other process can open it
				var owned *bgagent.StoreOwnedError
				if _, err := s.Open(t.Context(), bgagent.StoreOwner{}); !errors.As(err, &owned) || owned.Owner.PID != cmd.Process.Pid {
					t.Errorf("while the child had the store open, Open returned %v", err)
				}
			}
			if acked == begun+20 {
				_ = cmd.Process.Kill() // fails if the child has already ended
			}
			_, _ = fmt.Fprintln(in) // fails if the child has been killed
		}
		_ = cmd.Wait() // returns an error, because the child was killed
		c, err := s.Open(t.Context(), bgagent.StoreOwner{})
		if err != nil {
			t.Fatal(err)
		}
		if heard < 20 || c.Outdated != "" {
			t.Errorf("batch %d was acknowledged; outdated: %q", acked, c.Outdated)
		}
		if err := childScript.Check(t.Context(), s, c, acked, acked+ahead+1); err != nil {
			t.Error(err)
		}
		acked = int(c.Batch)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
