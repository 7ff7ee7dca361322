package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/settings"
	"github.com/bgagent/bgagent/internal/cleantext"
)

// configCmd is the command "bgagent config".
type configCmd struct {
	Schema bool `xor:"what" help:"Print the JSON Schema of a configuration file instead."`
	JSON   bool `name:"json" xor:"what" help:"Print one JSON object with the files, and each value with its origin."`
}

// Help implements kong's help provider.
func (configCmd) Help() string {
	return `The user's file is bgagent/bgagent.jsonc in the configuration folder; the project's is the first .bgagent.jsonc here or in a directory above. The project's wins, key by key. docs/program.md describes every key.

Exit codes: 0 the configuration was printed; 1 the output could not be written; 2 invalid input.`
}

// Run implements the subcommand.
func (c configCmd) Run(all *cli) error {
	if c.Schema {
		_, err := os.Stdout.Write(settings.Schema)
		return err
	}
	set, err := all.settings()
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(os.Stdout, set)
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	printSettings(w, set)
	return w.Flush()
}

// printSettings writes a line for each value: its key, the value and its origin.
func printSettings(w io.Writer, set *settings.Settings) {
	fmt.Fprintf(w, "// files, later over earlier: %s\n", cleantext.Line(strings.Join(orNone(set.Files), ", ")))
	for _, v := range values(set) {
		fmt.Fprintf(w, "%s\t%s\t%s\n", v.Key, v.Value, v.Origin)
	}
}

// value is one effective value, with its key and origin.
type value struct {
	Key    string          `json:"key"`
	Value  json.RawMessage `json:"value"`
	Origin string          `json:"origin"`
}

// The function "values" returns the effective values, in the order of the documentation.
func values(set *settings.Settings) (all []value) {
	for _, s := range set.Limits.Settings() {
		all = append(all, value{"background_task." + s.Name(), json.RawMessage(s.Value), s.Origin.String()})
	}
	for _, a := range set.Agents {
		for _, f := range a.Fields() {
			all = append(all, value{a.Path(f.Key), json.RawMessage(f.Value), origin(f.Origin, set)})
		}
	}
	if len(set.Notify) > 0 {
		if b, err := json.Marshal(set.Notify); err == nil {
			all = append(all, value{"notify", b, set.NotifyOrigin().String()})
		}
	}
	if c := set.Cluster; c != nil {
		all = append(all, value{"cluster", json.RawMessage(c.String()), c.Origin().String()})
	}
	return all
}

// printJSON writes the file names and the values as one JSON object.
func printJSON(w io.Writer, set *settings.Settings) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(struct {
		Files  []string `json:"files"`
		Values []value  `json:"values"`
	}{append([]string{}, set.Files...), values(set)})
}

func orNone(files []string) []string {
	if len(files) == 0 {
		return []string{"none"}
	}
	return files
}

// origin describes the origin of an agent's value. If there is no configuration file,
// the agents were detected, and the origin is the program that was found.
func origin(o bgagent.Origin, set *settings.Settings) string {
	switch {
	case o == bgagent.Origin{}:
		return "built in"
	case set.Detected:
		return "found: " + o.File
	}
	return o.String()
}
