// Package bridge connects "bgagent mcp --via URL" to a "bgagent serve". The bridge passes on the lines of
// its standard input and output over one connection. Therefore, the server speaks the same protocol with the
// host program as "bgagent mcp" does, in every version of this protocol. The connection begins as an HTTP
// request that is upgraded, as for a WebSocket.
//
// Each open bridge has its own scope. The scope's name consists of the caller's name, the bridge's
// key, and the lowest number that is not used by another open bridge with this key. All bridges of
// a user in the same project and for the same host program have the same key. Therefore, a
// restarted bridge finds the tasks of the earlier one, and two open bridges never share a scope.
//
// A bridge inside a turn of one of the server's tasks has that task's scope: the bridge's tasks are launched
// by the task. All restrictions on the bridges above that bridge also apply to it.
package bridge

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/bgagent/bgagent"
)

// Path is the last part of each request's address.
const Path = "bridge"

const (
	helloHeader = "Bgagent-Bridge"
	protocol    = "bgagent-bridge"
	maxHello    = 32 << 10 // maximum size of the header
)

// Hello describes a bridge to the server.
type Hello struct {
	Key       string `json:"key"`       // see KeyOf
	Directory string `json:"directory"` // working directory for the bridge's tasks; absolute
	Narrow    Narrow `json:"narrow,omitzero"`
	Turn      string `json:"turn,omitempty"` // mark of the turn that contains the bridge; "" if there is none
}

// Narrow restricts a bridge. It never allows more than the server does.
type Narrow struct {
	NoAgents bool     `json:"no_agents,omitempty"` // no agents are allowed
	Without  []string `json:"without,omitempty"`   // names of agents that are not allowed
	// Rules maps the names of agents to rules. An agent in this map is allowed only if the server has the
	// same rules for it.
	Rules      map[string][]bgagent.Permission `json:"rules,omitempty"`
	TaskBudget bgagent.Budget                  `json:"task_budget,omitzero"` // limits of each task
	// TreeBudget limits all tasks of the bridge together. For a bridge inside a turn, it limits each task.
	TreeBudget bgagent.Budget `json:"tree_budget,omitzero"`
}

// encode returns h as the value of the header.
func (h Hello) encode() (string, error) {
	b, err := json.Marshal(h)
	text := base64.RawURLEncoding.EncodeToString(b)
	if err == nil && len(text) > maxHello {
		err = fmt.Errorf("the restrictions in the project's file do not fit into the %d bytes of a request", maxHello)
	}
	return text, err
}

// decode reads the value of the header. An unknown field is an error, because it could be a
// restriction.
func decode(text string) (h Hello, err error) {
	if len(text) > maxHello {
		return h, fmt.Errorf("the header %s is longer than %d bytes", helloHeader, maxHello)
	}
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err == nil {
		dec := json.NewDecoder(strings.NewReader(string(b)))
		dec.DisallowUnknownFields()
		err = dec.Decode(&h)
	}
	switch {
	case err != nil:
		return h, fmt.Errorf("the header %s cannot be read, perhaps because the bridge is another version of bgagent: %w", helloHeader, err)
	case !keyed.MatchString(h.Key):
		return h, fmt.Errorf("%q is not the key of a bridge", h.Key)
	case !filepath.IsAbs(h.Directory):
		return h, fmt.Errorf("the directory %q is not absolute", h.Directory)
	}
	return h, nil
}

// KeyOf returns a bridge's key. The arguments are the user's id, the project's folder and the host program's
// name.
func KeyOf(id, dir, program string) string {
	host, _ := os.Hostname()
	sum := sha256.Sum256([]byte(strings.Join([]string{id, host, dir, program}, "\x00")))
	return readable(filepath.Base(dir)) + "-" + readable(program) + "-" + hex.EncodeToString(sum[:8])
}

// readable returns at most 24 letters and digits from a name, in lower case.
func readable(name string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(name) {
		if (r >= 'a' && r <= 'z' || r >= '0' && r <= '9') && b.Len() < 24 {
			b.WriteRune(r)
		}
	}
	if b.Len() == 0 {
		return "x"
	}
	return b.String()
}
