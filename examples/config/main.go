// Command config prints the background-task settings that apply in a project. For each setting, it
// prints the value and the file, line and column where the value is set.
//
//	config [-defaults] [project directory]
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"github.com/bgagent/bgagent"
)

func main() {
	defaults := flag.Bool("defaults", false, "also print the values that no file sets")
	flag.Parse()
	project := "."
	if flag.NArg() > 0 {
		project = flag.Arg(0)
	}
	if err := run(os.Stdout, project, *defaults); err != nil {
		fmt.Fprintln(os.Stderr, err) // one line per mistake, with the position of the mistake
		os.Exit(1)
	}
}

func run(w io.Writer, project string, defaults bool) error {
	paths, err := bgagent.FindConfigFiles(project)
	if err != nil {
		return err
	}
	file, err := bgagent.LoadConfig(paths...)
	if err != nil {
		return err
	}
	if len(paths) == 0 {
		fmt.Fprintln(w, "There is no configuration file: all values are the defaults.")
	}
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, s := range file.Settings() {
		if defaults || s.Origin != (bgagent.Origin{}) {
			fmt.Fprintf(out, "%s\t%s\t%v\n", s.Name(), s.Value, s.Origin)
		}
	}
	for _, k := range file.Ignored() {
		fmt.Fprintln(out, k)
	}
	return out.Flush()
}
