// Package kills contains the code that is shared by tests that kill a process with live tasks: the
// log of the process, its main loop, and a judge that decides from outside whether the tasks were
// lost or repeated.
package kills

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/bgagent/bgagent"
)

// Line is one line of the log.
type Line struct {
	What   string // see the constants
	Life   int    // number of the process; the first process that used the store has number 1
	At     time.Time
	Task   string `json:",omitempty"` // id
	Name   string `json:",omitempty"` // description of the task
	Prompt string `json:",omitempty"` // prompt id
	Text   string `json:",omitempty"` // text of the prompt, or the answer
	Item   string `json:",omitempty"` // id of the notice's item

	// The end of an attempt, as it was reported.
	Attempt int            `json:",omitempty"`
	Status  bgagent.Status `json:",omitempty"`
	Cause   bgagent.Cause  `json:",omitempty"`
}

// The values of [Line.What].
const (
	Opened     = "opened"     // the manager has opened the store
	Accepted   = "accepted"   // Launch has returned the task
	Begin      = "begin"      // a turn begins
	End        = "end"        // a turn ends
	Told       = "told"       // the parent is notified that an attempt has ended
	Ended      = "ended"      // a subscriber is notified that an attempt has ended
	Cancelling = "cancelling" // Cancel is called
	Cancelled  = "cancelled"  // Cancel has returned without an error
	Unknown    = "unknown"    // Cancel has not found an accepted task
	Closed     = "closed"     // the manager was closed
)

// Log appends lines to a file. For each line, it also writes an empty line to the standard output,
// so that the process can be killed after a number of lines.
type Log struct {
	life  int
	f     *os.File
	moves io.Writer
}

// OpenLog opens the log in the folder; life is the number of the process.
func OpenLog(dir string, life int) (*Log, error) {
	f, err := os.OpenFile(filepath.Join(dir, "log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	return &Log{life, f, os.Stdout}, err
}

// Add writes a line. It panics if that fails, because the judgement needs every line.
func (l *Log) Add(x Line) {
	x.Life, x.At = l.life, time.Now()
	b, err := json.Marshal(x)
	if err == nil {
		_, err = l.f.Write(append(b, '\n')) // one call, so that the line is written as a whole
	}
	if err != nil {
		panic(err)
	}
	fmt.Fprintln(l.moves)
}

// ReadLog reads the log in the folder. If there is no log, it returns no lines.
func ReadLog(dir string) (lines []Line, err error) {
	f, err := os.Open(filepath.Join(dir, "log"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r := bufio.NewReader(f)
	for {
		b, err := r.ReadBytes('\n')
		if len(b) == 0 {
			return lines, nil
		}
		var x Line
		if err = errors.Join(err, json.Unmarshal(b, &x)); err != nil {
			return nil, err
		}
		lines = append(lines, x)
	}
}
