package command

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/bgagent/bgagent"
)

// TurnError is the error of a turn that failed or was interrupted.
type TurnError struct {
	Program string    // Program.Executable
	Problem string    // reason for the failure, in one line
	Code    int       // exit code; -1 if a signal terminated the program
	Signal  os.Signal // signal that terminated the program; nil if it exited on its own
	Stderr  string    // end of the program's standard error, at most 8 KiB

	// Provider describes the failure at the model provider that made the turn fail. It is nil if
	// the turn failed for another reason, or if the program does not report the reason.
	Provider *bgagent.ProviderError
}

// Unwrap returns Provider, so that [errors.As] finds it.
func (e *TurnError) Unwrap() error {
	if e.Provider == nil {
		return nil
	}
	return e.Provider
}

// Error returns the program and the problem in one line.
func (e *TurnError) Error() string { return "command: " + e.Program + ": " + e.Problem }

// outcome describes how a program ended, apart from its standard output.
type outcome struct {
	program string
	plain   bool  // whether the program prints plain text
	stopped error // reason why the client stopped the program; nil if it did not
	code    int
	signal  os.Signal
	stderr  string
	left    error // names the processes of the turn that could not be terminated; nil if all have ended
}

// interruptedCodes are the exit codes for the signals HUP, INT, KILL and TERM: 128 plus the
// signal's number. Shells and programs that catch signals exit with these codes.
var interruptedCodes = []int{129, 130, 137, 143}

// The method "judge" returns how the turn ended. A turn succeeds only if the program reports
// success. A plain-text program reports success with exit code 0.
func (t *turn) judge(x outcome) (bgagent.TurnEnd, error) {
	said := t.out.said()
	end := bgagent.TurnEnd{Text: said.text, Usage: said.used}
	if x.left != nil { // logged, because a turn that succeeds returns no error that could contain the problem
		t.client.log(slog.LevelWarn, x.left.Error(), t.session)
	}
	if x.plain {
		end.Text = strings.TrimSpace(end.Text)
	}
	cutOff := said.cutOff()
	succeeded := said.end != nil && !cutOff && (said.end.stop == bgagent.StopEndOfTurn || said.end.stop == bgagent.StopUntold)
	switch {
	case t.lost != nil:
		end.Stop = bgagent.StopError
		t.lost.Code, t.lost.Signal, t.lost.Stderr = x.code, x.signal, x.stderr
		return end, t.lost
	case succeeded:
		end.Stop, end.Remark = said.end.stop, t.remark()
		return end, nil
	case errors.Is(x.stopped, errAborted):
		end.Stop = bgagent.StopAborted
		return end, nil
	case x.stopped != nil:
		end.Stop = bgagent.StopAborted
		return end, x.stopped
	case cutOff:
		end.Stop = bgagent.StopInterrupted
	case said.end != nil:
		end.Stop = said.end.stop
	case x.plain && x.code == 0 && !t.garbled:
		return end, nil
	case x.plain && x.code == 0:
		end.Stop = bgagent.StopError
	default:
		end.Stop = t.unsaid(said, x)
	}
	switch end.Stop {
	case bgagent.StopLength, bgagent.StopTurnLimit, bgagent.StopRefused, bgagent.StopAborted:
		if said.end.problem == "" {
			return end, nil
		}
	}
	err := t.problem(said, x)
	if end.Stop == bgagent.StopError {
		err.Provider = t.provider(said, x, err.Problem)
	}
	return end, err
}

// cutOff reports whether the program exited while its agent was waiting for background work.
func (s *said) cutOff() bool {
	return s.end != nil && len(s.background) > 0 && badness(s.end.stop) == 0
}

// The method "unsaid" returns the stop reason for a turn whose program exited without reporting the
// end of the turn. If the program's last request to the provider failed before the program exited,
// the turn was not interrupted.
func (t *turn) unsaid(said said, x outcome) bgagent.StopReason {
	begun := said.known && !x.plain && said.failed == nil
	if x.signal != nil || slices.Contains(interruptedCodes, x.code) || x.code == 0 && begun {
		return bgagent.StopInterrupted
	}
	return bgagent.StopError
}

// problem returns the error of a turn that failed or was interrupted.
func (t *turn) problem(said said, x outcome) *TurnError {
	if said.end == nil && !said.known && !x.plain && x.code == 0 {
		return &TurnError{Program: x.program, Problem: t.unknown(), Stderr: x.stderr}
	}
	e := &TurnError{Program: x.program, Code: x.code, Signal: x.signal, Stderr: x.stderr}
	detail := hint(x.stderr)
	if said.lastErr != "" {
		detail = oneLine(said.lastErr)
	}
	switch {
	case said.cutOff():
		e.Problem, detail = "it exited while its agent was waiting for background work; its own background work was cut off: "+oneLine(strings.Join(said.background, ", ")), ""
	case said.end != nil && said.end.problem != "":
		e.Problem, detail = oneLine(said.end.problem), ""
	case said.end != nil:
		e.Problem = "it reported that the turn failed"
	case x.signal != nil:
		e.Problem = fmt.Sprintf("it was terminated by a signal from outside (%v)", x.signal)
	case t.garbled && x.code == 0:
		e.Problem, detail = "its output is not UTF-8 text; make it print UTF-8, or UTF-16 with a byte-order mark", ""
	case x.code == 0:
		e.Problem = "it exited with code 0 in the middle of the turn"
	default:
		e.Problem = "it exited with code " + strconv.Itoa(x.code)
	}
	if detail != "" {
		e.Problem += ": " + detail
	}
	if x.left != nil {
		e.Problem += "; " + x.left.Error()
	}
	if len(said.denied) > 0 {
		e.Problem += "; it was not allowed to use " + oneLine(strings.Join(slices.Compact(slices.Sorted(slices.Values(said.denied))), ", "))
	}
	if remark := t.remark(); remark != "" {
		e.Problem += "; " + remark
	}
	return e
}

// remark describes the output that was not understood. It returns "" if there was none.
func (t *turn) remark() string {
	text := t.noise.String()
	if t.noise.Dropped > 0 {
		text += fmt.Sprintf(" (Config.MaxLine: %d bytes)", t.client.cfg.MaxLine)
	}
	return text
}

func oneLine(s string) string { return cut(strings.Join(strings.Fields(s), " "), 1000) }

func copyAll(w io.Writer, r io.Reader) { _, _ = io.Copy(w, r) }
