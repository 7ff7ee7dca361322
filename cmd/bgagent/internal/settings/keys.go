package settings

import (
	"slices"
	"strings"

	"github.com/bgagent/bgagent/internal/spell"
)

// Kind specifies how an agent runs.
type Kind string

// The kinds of agents.
const (
	InProc   Kind = "inproc"   // a demo agent inside this program
	Command  Kind = "command"  // a command line, started for every turn
	ACP      Kind = "acp"      // a program that speaks the Agent Client Protocol
	Opencode Kind = "opencode" // an agent on an opencode server
)

// shape is the form of a key's value.
type shape uint8

const (
	shapeText     shape = iota // a string
	shapeTexts                 // a list of strings
	shapeBool                  // true or false
	shapeRules                 // permissions
	shapeReplicas              // one of the numbers in the variable "replicas"
)

// key describes one key of an agent.
type key struct {
	name  string
	shape shape
	kinds []Kind   // kinds of agents that can have the key; nil means all
	enum  []string // allowed values of a string; nil means any
	about string
}

var (
	kinds   = []string{string(InProc), string(Command), string(ACP), string(Opencode)}
	presets = []string{"codex", "claude", "gemini", "opencode", "generic"}
	files   = []string{"none", "read", "write"}
	formats = []string{"text", "lines"}
	actions = []string{"allow", "deny", "ask"}
)

// keys is the table of an agent's keys, in the order of the documentation and of the output. The
// schema is generated from this table.
var keys = []key{
	{"kind", shapeText, nil, kinds, "What runs the agent. If a later file gives the kind, it replaces what an earlier file says about the agent; otherwise the two are merged key by key."},
	{"description", shapeText, nil, nil, "What the agent is good for, in one line. Models read it to choose an agent."},
	{"model", shapeText, nil, nil, "Model of tasks that name none. Limits by model and provider apply to it."},
	{"directory", shapeText, nil, nil, "Working directory of tasks that name none. Relative to the file that names it; ~/ is the home directory."},
	{"permissions", shapeRules, nil, nil, "What the agent may do, by tool or kind of access, and by pattern. The last rule that matches decides."},

	{"agent", shapeText, []Kind{InProc, Opencode}, nil, "Name of the demo agent, or of the agent on the opencode server, if it differs from the agent's name."},
	{"preset", shapeText, []Kind{Command}, presets, "How the program is called and read. generic reads a prompt from standard input and prints its answer."},
	{"command", shapeTexts, []Kind{Command, ACP}, nil, "The program and its first arguments. No shell sees them. A relative path is relative to the folder of the file that names it; a name without a slash is looked up in PATH. A preset other than generic has its own."},
	{"args", shapeTexts, []Kind{Command}, nil, "Further arguments."},
	{"env", shapeTexts, []Kind{Command, ACP}, nil, "Environment variables for the program, in addition to those that every program needs: NAME, NAME* or NAME=value."},
	{"profile", shapeText, []Kind{Command}, nil, "The program's own name for an agent or a set of settings."},
	{"leaveRetries", shapeBool, []Kind{Command}, nil, "Whether the program leaves requests that its provider refused to bgagent, which gives the slot to another task and repeats the turn. Only for the preset claude. Default false."},
	{"format", shapeText, []Kind{Command}, formats, "What a generic program prints: plain text, or JSON lines."},
	{"mode", shapeText, []Kind{ACP}, nil, "Id of the session mode, such as plan."},
	{"auth", shapeText, []Kind{ACP}, nil, "Id of the authentication method, such as gemini-api-key."},
	{"files", shapeText, []Kind{ACP}, files, "Which files below its directory the agent may ask bgagent for: none (the default), read, or write."},
	{"terminals", shapeBool, []Kind{ACP}, nil, "Whether the agent may ask bgagent to run commands. Default false."},
	{"url", shapeText, []Kind{Opencode}, nil, "Where the server listens, such as http://127.0.0.1:4096."},
	{"username", shapeText, []Kind{Opencode}, nil, "User name for a server with a password. Default opencode."},
	{"passwordEnv", shapeText, []Kind{Opencode}, nil, "Name of the environment variable that holds the server's password."},
}

// notifyKey is the key "notify" at the top level of a file.
var notifyKey = key{"notify", shapeTexts, nil, nil, "A program and its arguments. It runs when a task ends badly, when a task asks a question, and when the last task has ended, with a sentence as its last argument. No shell sees it. A relative path is relative to the folder of the file."}

// The variable "required" holds, for each kind, the key that its agents must have.
var required = map[Kind]string{Command: "preset", ACP: "command", Opencode: "url"}

func keyNamed(name string) *key {
	for i := range keys {
		if keys[i].name == name {
			return &keys[i]
		}
	}
	return nil
}

// The method "has" reports whether agents of the kind can have the key.
func (k *key) has(kind Kind) bool { return k.kinds == nil || slices.Contains(k.kinds, kind) }

// keysOf returns the names of the keys that agents of the kind can have.
func keysOf(kind Kind) []string {
	var out []string
	for i := range keys {
		if keys[i].has(kind) {
			out = append(out, keys[i].name)
		}
	}
	return out
}

// The function "nearest" returns the valid name that the user probably meant by a misspelled name. It returns
// "" if no valid name is similar.
func nearest(name string, names []string) string {
	best, least := "", 1+min(3, len(name)/3)
	for _, other := range names {
		if d := spell.Distance(strings.ToLower(name), strings.ToLower(other), least); d < least {
			best, least = other, d
		}
	}
	return best
}

// oneOf lists values for an error message.
func oneOf(values []string) string {
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = `"` + v + `"`
	}
	if len(quoted) == 1 {
		return quoted[0]
	}
	return strings.Join(quoted[:len(quoted)-1], ", ") + " or " + quoted[len(quoted)-1]
}
