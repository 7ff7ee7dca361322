package realagent

import (
	"encoding/json"
	"os"
	"path/filepath"
)

// Model names in the configurations of the programs.
const (
	OpencodeModel = "scripted/scripted" // provider/model
	CodexModel    = "scripted"
	CodexACPModel = "gpt-5.5"
	GeminiModel   = "gemini-2.5-flash"
	ClaudeModel   = "claude-sonnet-4-5"
)

func opencodeEnv(w *World) map[string]string {
	return map[string]string{
		"OPENCODE_CONFIG": w.path("opencode.json"),
		// No server listens on this port, so every download fails immediately.
		"npm_config_registry":              "http://127.0.0.1:9",
		"npm_config_fetch_retries":         "0",
		"OPENCODE_DISABLE_MODELS_FETCH":    "1",
		"OPENCODE_DISABLE_AUTOUPDATE":      "1",
		"OPENCODE_DISABLE_LSP_DOWNLOAD":    "1",
		"OPENCODE_DISABLE_DEFAULT_PLUGINS": "1",
		"OPENCODE_DISABLE_SHARE":           "1",
		"OPENCODE_DISABLE_CLAUDE_CODE":     "1",
		"OPENCODE_DISABLE_EMBEDDED_WEB_UI": "1",
	}
}

func subagent(description, prompt string, permission map[string]any) map[string]any {
	return map[string]any{"mode": "subagent", "description": description, "prompt": prompt, "permission": permission}
}

// opencodeConfig returns the initial configuration of opencode. World.OpencodeConfig may
// change it.
func (w *World) opencodeConfig() map[string]any {
	deny := map[string]any{"task": "deny"}
	models := map[string]any{}
	for _, name := range []string{"scripted", "other"} {
		models[name] = map[string]any{"name": name, "tool_call": true, "limit": map[string]any{"context": 128_000, "output": 8192}}
	}
	return map[string]any{
		"autoupdate": false, "share": "disabled", "snapshot": false,
		"model": OpencodeModel, "small_model": OpencodeModel, "enabled_providers": []any{"scripted"},
		"provider": map[string]any{"scripted": map[string]any{
			"npm": "@ai-sdk/openai-compatible", "name": "Scripted", "models": models,
			"options": map[string]any{"baseURL": w.Model.URL + "/v1", "apiKey": "none"},
		}},
		"agent": map[string]any{
			"worker":    subagent("Does one delegated piece of work", "You are a worker.", deny),
			"explore":   subagent("Searches code", "You are an explorer.", deny),
			"oracle":    subagent("Gives advice", "You are an oracle.", deny),
			"librarian": subagent("Looks things up", "You are a librarian.", deny),
			"asker":     subagent("Asks before it runs a command", "You are an asker.", map[string]any{"bash": "ask"}),
		},
		"permission": map[string]any{"edit": "allow", "bash": "allow", "webfetch": "deny"},
	}
}

func (w *World) writeOpencode() error {
	if err := w.writeJSON("opencode.json", w.opencode); err != nil {
		return err
	}
	// These files keep opencode from installing a package into its configuration folder
	// in the background. The installation would need a network.
	dependency := map[string]any{"@opencode-ai/plugin": "*"}
	if err := os.MkdirAll(w.path("config", "opencode", "node_modules"), 0o755); err != nil {
		return err
	}
	if err := w.writeJSON("config/opencode/package.json", map[string]any{"dependencies": dependency}); err != nil {
		return err
	}
	return w.writeJSON("config/opencode/package-lock.json", map[string]any{
		"lockfileVersion": 3, "packages": map[string]any{"": map[string]any{"dependencies": dependency}},
	})
}

func codexEnv(w *World) map[string]string {
	return map[string]string{"CODEX_HOME": w.path("codex"), "SCRIPTED_KEY": "none", "RUST_LOG": "error"}
}

// codexACPEnv returns an environment that makes the agent ask for permission before it runs a command. It
// sets a model that the agent knows, because otherwise the agent adds a warning to every answer.
func codexACPEnv(w *World) map[string]string {
	env := codexEnv(w)
	env["INITIAL_AGENT_MODE"] = "read-only"
	env["CODEX_CONFIG"] = `{"model":"` + CodexACPModel + `"}`
	return env
}

// writeCodex writes the configuration of codex. In its sandbox, codex makes empty folders such as .git in
// each folder that it may write to, and leaves them behind if it is killed. Therefore, /tmp must not be one
// of these folders: in a folder with an empty .git, the go command fails.
func (w *World) writeCodex() error {
	return w.write("codex/config.toml", []byte(`model = "`+CodexModel+`"
model_provider = "scripted"
approval_policy = "never"
sandbox_mode = "danger-full-access"
check_for_update_on_startup = false

[analytics]
enabled = false

[sandbox_workspace_write]
exclude_slash_tmp = true
exclude_tmpdir_env_var = true

[model_providers.scripted]
name = "Scripted"
base_url = "`+w.Model.URL+`/v1"
wire_api = "responses"
env_key = "SCRIPTED_KEY"
requires_openai_auth = false
`+w.codex))
}

func geminiEnv(w *World) map[string]string {
	return map[string]string{
		"GEMINI_API_KEY": "none", "GOOGLE_GEMINI_BASE_URL": w.Model.URL,
		"GEMINI_CLI_TRUST_WORKSPACE": "true", "NO_COLOR": "1",
	}
}

func (w *World) writeGemini() error {
	return w.writeJSON("home/.gemini/settings.json", map[string]any{
		"security":  map[string]any{"auth": map[string]any{"selectedType": "gemini-api-key"}},
		"model":     map[string]any{"name": GeminiModel},
		"telemetry": map[string]any{"enabled": false},
		"privacy":   map[string]any{"usageStatisticsEnabled": false},
		"general":   map[string]any{"enableAutoUpdate": false, "disableAutoUpdate": true},
		"ide":       map[string]any{"enabled": false},
	})
}

func claudeEnv(w *World) map[string]string {
	return map[string]string{
		"ANTHROPIC_BASE_URL": w.Model.URL, "ANTHROPIC_API_KEY": "none", "ANTHROPIC_MODEL": ClaudeModel,
		"CLAUDE_CONFIG_DIR":                        w.path("claude"),
		"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
		"DISABLE_AUTOUPDATER":                      "1",
		"ENABLE_TOOL_SEARCH":                       "false", // with this setting, requests contain all tools
	}
}

// writeClaude writes a configuration for Claude Code. It contains the answers to the questions
// that Claude Code asks the first time it is started in a terminal.
func (w *World) writeClaude() error {
	return w.writeJSON("claude/.claude.json", map[string]any{
		"hasCompletedOnboarding": true,
		"customApiKeyResponses":  map[string]any{"approved": []any{"none"}},
		"projects":               map[string]any{w.Dir: map[string]any{"hasTrustDialogAccepted": true}},
	})
}

// The method "write" writes a file into the world's folder. The name is a slash-separated path.
func (w *World) write(name string, content []byte) error {
	path := w.path(filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, content, 0o644)
}

func (w *World) writeJSON(name string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return w.write(name, b)
}
