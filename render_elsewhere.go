package bgagent

import (
	"strconv"
	"strings"

	"github.com/bgagent/bgagent/internal/mdtext"
)

// The functions in this file write texts about tasks of other processes.

// The method "belongs" names the process to which the task belongs. If the process has not
// answered, the result also says why.
func (x TaskElsewhere) belongs() string {
	s := "the process " + mdtext.Code(x.Process, nameMax)
	if x.Stored != "" {
		s += ", which " + mdtext.OneLine(x.Stored, reasonMax)
	}
	return s
}

func noteElsewhere(x TaskElsewhere) string {
	s := "This task belongs to " + x.belongs() + "."
	if x.Stored != "" {
		s += " You see the state that was stored last."
	}
	return s
}

// maxNotes is the maximum number of notes about other processes in one answer.
const maxNotes = 5

// sizeOf returns the maximum number of bytes that the notes add to an answer.
func sizeOf(notes []string) (n int) {
	for _, s := range notes[:min(len(notes), maxNotes)] {
		n += len(s) + 2
	}
	return n + 40
}

// The method "and" returns the answer with the notes below its head.
func (a answer) and(notes []string) answer {
	for i, s := range notes {
		if i == maxNotes {
			s = "And so on: " + strconv.Itoa(len(notes)-i) + " more."
		}
		if a.head = strings.TrimRight(a.head, "\n") + "\n\n" + s + "\n"; i == maxNotes {
			break
		}
	}
	return a
}

// notesElsewhere says for each other process how many of the listed tasks belong to it.
func notesElsewhere(listed []Task, byID map[string]TaskElsewhere) (notes []string) {
	var first []TaskElsewhere // one task of each process, in the order of the list
	count := map[string]int{}
	for _, t := range listed {
		if x, is := byID[t.ID]; is {
			if count[x.belongs()]++; count[x.belongs()] == 1 {
				first = append(first, x)
			}
		}
	}
	for _, x := range first {
		s := "Tasks in this list that belong to " + x.belongs() + ": " + strconv.Itoa(count[x.belongs()]) + "."
		if x.Stored != "" {
			s += " You see the state that was stored last."
		}
		notes = append(notes, s)
	}
	return notes
}

func noteMissingElsewhere(err error) string {
	return "Tasks of other processes can be missing here: " + mdtext.OneLine(err.Error(), reasonMax) + "."
}

// onlyElsewhere returns the answer to a call that only the process of the task can carry out.
func onlyElsewhere(x TaskElsewhere) string {
	return "Task " + mdtext.Code(x.Task.ID, idMax) + " belongs to " + x.belongs() + ". From here, it can only be read and cancelled, and its questions can be answered."
}

func failedElsewhere(ref string, err error) string {
	return "Task " + mdtext.Code(ref, idMax) + " is not one of this process, and asking the others failed and changed nothing: " + mdtext.OneLine(err.Error(), reasonMax) + "."
}

func uncertainElsewhere(ref string) string {
	return "It is not known whether task " + mdtext.Code(ref, idMax) + " has got the request: its process did not answer. Read the task to find out before you repeat the request."
}
