package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/statedir"
	"github.com/charmbracelet/x/ansi"
	"github.com/charmbracelet/x/term"
)

// statusCmd is the command "bgagent status".
type statusCmd struct {
	JSON bool `name:"json" help:"Print one JSON object per command and line."`
}

// Help implements kong's help provider.
func (statusCmd) Help() string {
	return `Shows, for each running command, its tasks and what they do or wait for, its pools, the tasks that failed in the last 24 hours with the reasons, and the cost of the latest attempts of all these tasks. It also shows the tasks that dead commands have left. A running serve is asked; everything else comes from the state folder.

Exit codes: 0 the state was printed; 1 something could not be read, or the output could not be written; 2 invalid input.`
}

const (
	statusAge    = 24 * time.Hour // tasks that ended longer ago are not counted
	statusEnded  = 1000           // maximum number of ended tasks that are read per store; the tasks launched last are read
	statusFailed = 10             // maximum number of failed tasks that are listed per store
)

// standing is what "bgagent status --json" prints about a store.
type standing struct {
	Command string     `json:"command"` // serve, mcp or run
	Path    string     `json:"path"`    // configuration file, working directory or results folder
	Store   string     `json:"store"`   // folder of the store
	Owner   int        `json:"owner"`   // PID of the process that uses the store; 0 if there is none
	Since   *time.Time `json:"since,omitempty"`
	Process string     `json:"process,omitempty"` // name of the process in its cluster
	Host    string     `json:"host,omitempty"`    // machine of a cluster's process
	MCP     string     `json:"mcp,omitempty"`     // address of the tools
	Page    string     `json:"page,omitempty"`    // address of the page

	Running int `json:"running"` // these tasks have a slot, or wait for an answer or for their own tasks
	Queued  int `json:"queued"`
	Parked  int `json:"parked"`

	// Number of tasks that ended in the last 24 hours.
	Completed int  `json:"completed"`
	Failed    int  `json:"failed"`
	Cancelled int  `json:"cancelled"`
	AtLeast   bool `json:"at_least,omitempty"` // there might be more, because not all ended tasks were read

	Usage bgagent.Usage       `json:"usage"` // total of the latest attempts of the tasks above
	Pools []bgagent.PoolStats `json:"pools,omitempty"`
	Tasks []bgagent.Task      `json:"tasks"` // the tasks that have not ended, and those that failed
}

// Run implements the subcommand.
func (c statusCmd) Run(all *cli, stop stops) error {
	folder, err := all.folder()
	if err != nil {
		return err
	}
	stores, err := folder.Stores()
	if err != nil {
		return fmt.Errorf("reading the state folder: %w", err)
	}
	shown := 0
	width := terminalWidth()
	err = eachView(stop.soft, stores, statusEnded, func(v *view) error {
		v.refresh(stop.soft)
		st := v.standing(time.Now())
		if !v.lives && st.Running+st.Queued+st.Parked == 0 {
			return nil
		}
		shown++
		if c.JSON {
			e := json.NewEncoder(os.Stdout)
			e.SetEscapeHTML(false)
			return e.Encode(st)
		}
		var text strings.Builder
		if err := v.writeStanding(&text, st, time.Now(), width); err != nil {
			return err
		}
		_, err := io.WriteString(&stdout, fold(text.String(), width))
		return err
	})
	if shown == 0 && !c.JSON {
		fmt.Fprintln(&stdout, "nothing runs and no task waits; bgagent tasks lists the tasks that have ended")
	}
	return err
}

// terminalWidth returns the terminal's number of columns, or 0 if standard output is not a terminal.
func terminalWidth() int {
	width, _, err := term.GetSize(os.Stdout.Fd())
	if err != nil {
		return 0
	}
	return width
}

// The function "fold" breaks lines between two words if they are wider than the terminal. The rest of a line
// is indented by two more columns. Lines that contain a command to copy are not broken. If the width is 0,
// there is no terminal.
func fold(text string, width int) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		words := strings.TrimLeft(line, " ")
		indent := line[:len(line)-len(words)]
		if room := width - len(indent) - 2; room > 0 && ansi.StringWidth(line) > width && !strings.HasPrefix(words, "bgagent answer ") {
			line = indent + strings.ReplaceAll(ansi.Wordwrap(strings.TrimSuffix(words, "\n"), room, ""), "\n", "\n"+indent+"  ") + "\n"
		}
		b.WriteString(line)
	}
	return b.String()
}

// The method "standing" summarizes the view's tasks.
func (v *view) standing(now time.Time) standing {
	st := standing{Command: v.Kind, Path: v.Path, Store: v.Dir, AtLeast: v.more, Tasks: []bgagent.Task{}}
	if st.Process = v.process; v.process != "" {
		st.Host = v.owner.Host
	}
	if v.lives {
		st.Owner, st.Since = v.owner.PID, &v.owner.Since
	}
	if v.now != nil {
		st.MCP, st.Page, st.Pools = v.now.MCP, v.now.Page, v.now.Pools
	}
	for _, t := range v.tasks {
		switch {
		case t.Status.Terminal() && now.Sub(t.Ended) > statusAge:
			continue
		case t.Status == bgagent.Completed:
			st.Completed++
		case t.Status == bgagent.Cancelled:
			st.Cancelled++
		case t.Status == bgagent.Failed:
			if st.Failed++; st.Failed <= statusFailed {
				st.Tasks = append(st.Tasks, t)
			}
		default:
			switch state, _ := doing(t, now, 0); state {
			case "queued":
				st.Queued++
			case "parked":
				st.Parked++
			default:
				st.Running++
			}
			st.Tasks = append(st.Tasks, t)
		}
		u := t.Progress.Usage
		st.Usage.InputTokens += u.InputTokens
		st.Usage.OutputTokens += u.OutputTokens
		st.Usage.Cost += u.Cost
	}
	return st
}

// writeStanding writes the state of a store for people. The argument "width" is the terminal's width; 0 means
// that there is no terminal.
func (v *view) writeStanding(w io.Writer, st standing, now time.Time, width int) error {
	fmt.Fprintf(w, "%s: %s\n", v, v.state())
	if st.MCP != "" {
		at := "MCP: " + st.MCP
		if st.Page != "" {
			at += ", page: " + st.Page
		}
		fmt.Fprintf(w, "  %s\n", at)
	}
	atLeast := ""
	if st.AtLeast {
		atLeast = "at least "
	}
	line := fmt.Sprintf("%d running, %d queued, %d parked; in the last 24 hours: %s%d completed, %d failed, %d cancelled",
		st.Running, st.Queued, st.Parked, atLeast, st.Completed, st.Failed, st.Cancelled)
	if u := st.Usage; u != (bgagent.Usage{}) {
		line += fmt.Sprintf("; latest attempts: %s%d tokens in, %d out, $%.2f", atLeast, u.InputTokens, u.OutputTokens, u.Cost)
	}
	if !v.lives {
		line = "it left " + line
	}
	fmt.Fprintf(w, "  %s\n", line)
	for _, p := range st.Pools {
		if p.Waiting > 0 || p.CoolUntil.After(now) {
			fmt.Fprintf(w, "  %s\n", poolLine(p, now))
		}
	}
	var rows [][]any
	for _, t := range st.Tasks {
		state, detail := doing(t, now, v.silent())
		took := "-"
		switch {
		case t.Status.Terminal():
			detail = strings.TrimSpace(now.Sub(t.Ended).Round(time.Second).String() + " ago: " + detail)
		case !v.lives:
			state, detail = "was "+state, ""
		}
		if !t.Started.IsZero() && (v.lives || t.Status.Terminal()) {
			took = t.Duration(now).Round(time.Second).String()
		}
		rows = append(rows, clean(t.ID, state, t.Agent, took, detail, t.Description))
	}
	if err := writeRows(w, rows, 4, width); err != nil {
		return err
	}
	if v.lives {
		for _, t := range st.Tasks {
			v.writeQuestions(w, t)
		}
	}
	if st.Failed > statusFailed {
		_, err := fmt.Fprintf(w, "  (%d further tasks failed; bgagent tasks --all lists them)\n", st.Failed-statusFailed)
		return err
	}
	return nil
}

// writeQuestions writes the titles of a task's questions, and the commands that answer them.
func (v *view) writeQuestions(w io.Writer, t bgagent.Task) {
	for _, q := range t.Questions {
		fmt.Fprintf(w, "  %s asks: %s; bgagent show %s prints the question\n", clean(t.ID, q.Title, t.ID)...)
		if v.Kind != statedir.Serve { // commands can answer only the questions of a serve
			continue
		}
		for _, command := range answerCommands(t.ID, q) {
			fmt.Fprintf(w, "    %s\n", command)
		}
	}
}

// writeRows writes a table. If the table is wider than the terminal, the column with the index "detail" is
// printed below each row.
func writeRows(w io.Writer, rows [][]any, detail, width int) error {
	var whole, short bytes.Buffer
	table, narrow := tabwriter.NewWriter(&whole, 0, 0, 2, ' ', 0), tabwriter.NewWriter(&short, 0, 0, 2, ' ', 0)
	for _, r := range rows {
		format := "  %s" + strings.Repeat("\t%s", len(r)-1)
		fmt.Fprintf(table, format+"\n", r...)
		fmt.Fprintf(narrow, strings.TrimSuffix(format, "\t%s")+"\n", slices.Delete(slices.Clone(r), detail, detail+1)...)
	}
	_, _ = table.Flush(), narrow.Flush()                                                // writing to memory never fails
	tooLong := func(line string) bool { return utf8.RuneCountInString(line) > width+1 } // including the end of the line
	if width <= 0 || !slices.ContainsFunc(slices.Collect(strings.Lines(whole.String())), tooLong) {
		_, err := w.Write(whole.Bytes())
		return err
	}
	i := 0
	for line := range strings.Lines(short.String()) {
		if text := rows[i][detail].(string); text != "" {
			line += "    " + text + "\n"
		}
		if _, err := io.WriteString(w, line); err != nil {
			return err
		}
		i++
	}
	return nil
}

// poolLine describes a pool that tasks wait for.
func poolLine(p bgagent.PoolStats, now time.Time) string {
	line := fmt.Sprintf("pool %s: %d of %d in use, %d waiting", clean(p.Name)[0], p.InUse, p.Limit, p.Waiting)
	if p.CoolUntil.After(now) {
		line += "; its provider refuses turns, so none begins before " + clock(p.CoolUntil, now)
	}
	return line
}
