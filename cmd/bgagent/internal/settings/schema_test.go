package settings

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/jsonschema-go/jsonschema"
	"github.com/stretchr/testify/require"
	"github.com/tailscale/hujson"
)

var update = flag.Bool("update", false, "write bgagent.schema.json")

func TestTheShippedSchemaIsMadeFromTheTableOfKeys(t *testing.T) {
	want, err := makeSchema()
	require.NoError(t, err)
	if *update {
		require.NoError(t, os.WriteFile("bgagent.schema.json", want, 0o644))
		return
	}
	require.Equal(t, string(want), string(Schema), "go test -run ShippedSchema ./internal/settings -update writes it")
}

// The variable "documents" maps configurations to whether they are valid. The schema and the parser must
// both accept a valid configuration and refuse an invalid one.
var documents = map[string]bool{
	`{}`: true,
	`{"$schema": "x", "agents": null, "background_task": null}`: true,
	`{"$schema": 1}`:             false,
	`{"agent": {}}`:              false,
	`[]`:                         false,
	`{"agents": []}`:             false,
	`{"agents": {"a": null}}`:    true,
	`{"agents": {"a": "codex"}}`: false,
	`{"agents": {"count": {"kind": "inproc"}}}`:                                              true,
	`{"agents": {"count": {"kind": "inproc", "url": "http://x"}}}`:                           false,
	`{"agents": {"": {"kind": "inproc", "agent": "count"}}}`:                                 false,
	`{"agents": {"*": {"kind": "inproc", "agent": "count"}}}`:                                false,
	`{"agents": {"a b": {"kind": "inproc", "agent": "count"}}}`:                              false,
	`{"agents": {"a": {"kind": "none"}}}`:                                                    false,
	`{"agents": {"a": {"kind": "command"}}}`:                                                 false,
	`{"agents": {"a": {"kind": "command", "preset": "codex"}}}`:                              true,
	`{"agents": {"a": {"kind": "command", "preset": "cobol"}}}`:                              false,
	`{"agents": {"a": {"kind": "command", "preset": "codex", "model": null}}}`:               true,
	`{"agents": {"a": {"kind": "command", "preset": "codex", "model": ""}}}`:                 false,
	`{"agents": {"a": {"kind": "command", "preset": "codex", "model": "a\nb"}}}`:             false,
	`{"agents": {"a": {"kind": "command", "preset": "codex", "args": [""]}}}`:                true,
	`{"agents": {"a": {"kind": "command", "preset": "codex", "args": []}}}`:                  false,
	`{"agents": {"a": {"kind": "command", "preset": "codex", "command": [""]}}}`:             false,
	`{"agents": {"a": {"kind": "command", "preset": "codex", "terminals": true}}}`:           false,
	`{"agents": {"a": {"kind": "command", "preset": "claude", "leaveRetries": true}}}`:       true,
	`{"agents": {"a": {"kind": "acp", "command": ["x"], "leaveRetries": true}}}`:             false,
	`{"agents": {"a": {"kind": "acp", "command": ["x"], "terminals": true}}}`:                true,
	`{"agents": {"a": {"kind": "acp", "command": ["x"], "terminals": 1}}}`:                   false,
	`{"agents": {"a": {"kind": "acp", "command": "x"}}}`:                                     false,
	`{"agents": {"a": {"kind": "acp"}}}`:                                                     false,
	`{"agents": {"a": {"kind": "opencode", "url": "http://127.0.0.1:1", "agent": "b"}}}`:     true,
	`{"agents": {"a": {"kind": "opencode"}}}`:                                                false,
	`{"agents": {"wait": {"kind": "inproc", "permissions": {"edit": "deny"}}}}`:              true,
	`{"agents": {"wait": {"kind": "inproc", "permissions": {"bash": {"git *": "allow"}}}}}`:  true,
	`{"agents": {"wait": {"kind": "inproc", "permissions": {"bash": {"git *": "maybe"}}}}}`:  false,
	`{"agents": {"wait": {"kind": "inproc", "permissions": {"": "deny"}}}}`:                  false,
	`{"agents": {"wait": {"kind": "inproc", "permissions": ["edit"]}}}`:                      false,
	`{"agents": {"wait": {"kind": "inproc", "colour": "red"}}}`:                              false,
	`{"background_task": {"defaultConcurrency": 0, "wake": "each"}}`:                         true,
	`{"background_task": {"wake": "sometimes"}}`:                                             false,
	`{"background_task": {"maxDepth": 0}}`:                                                   false,
	`{"background_task": {"taskTtlMs": -1}}`:                                                 false,
	`{"background_task": {"providerConcurrency": {"anthropic": 3, "openai": null}}}`:         true,
	`{"background_task": {"providerConcurrency": {"": 3}}}`:                                  false,
	`{"background_task": {"totalConcurrency": 2, "agentConcurrency": {"explore": 1}}}`:       true,
	`{"background_task": {"totalConcurrency": -1}}`:                                          false,
	`{"background_task": {"agentConcurrency": {"explore": -1}}}`:                             false,
	`{"background_task": {"maxToolCalls": 0, "circuitBreaker": null}}`:                       true,
	`{"background_task": {"circuitBreaker": {"enabled": false, "consecutiveThreshold": 0}}}`: true,
	`{"background_task": {"circuitBreaker": {"maxToolCalls": 5, "enabled": null}}}`:          true,
	`{"background_task": {"circuitBreaker": {"maxToolCalls": -5}}}`:                          false,
	`{"background_task": {"circuitBreaker": {"enabled": 1}}}`:                                false,
	`{"background_task": {"circuitBreaker": []}}`:                                            false,
	`{"background_task": {"modelConcurrency": 3}}`:                                           false,
	`{"background_task": {"budget": {"task": {"cost": 2.5, "toolCalls": 0}, "tree": null}}}`: true,
	`{"background_task": {"budget": {"tree": {"periodMs": 5, "totalTokens": null}}}}`:        true,
	`{"background_task": {"budget": {"task": {"periodMs": 5}}}}`:                             false,
	`{"background_task": {"budget": {"task": {"cost": -1}}}}`:                                false,
	`{"background_task": {"budget": {"task": {"tokens": 5}}}}`:                               false,
	`{"background_task": {"budget": {"all": {}}}}`:                                           false,
	`{"background_task": {"budget": {"task": {"inputTokens": 1.5}}}}`:                        false,
	`{"background_task": {"budget": 3}}`:                                                     false,
	`{"background_task": {"fallback": {"a/opus": ["b/large"], "mini": [], "c": null}}}`:      true,
	`{"background_task": {"fallback": null, "fallbackAfterMs": 0}}`:                          true,
	`{"background_task": {"fallback": {"a": "b"}}}`:                                          false,
	`{"background_task": {"fallback": {"a": [" "]}}}`:                                        false,
	`{"background_task": {"fallback": {"": ["b"]}}}`:                                         false,
	`{"background_task": {"fallback": {"a": ["b", "b"]}}}`:                                   false,
	`{"background_task": {"fallback": ["b"]}}`:                                               false,
	`{"background_task": {"nonsense": 3}}`:                                                   true, // a newer host might have the key
	`{"cluster": null}`:                                                                      true,
	`{"cluster": {}}`:                                                                        false,
	`{"cluster": "nats://a"}`:                                                                false,
	`{"cluster": {"url": "nats://a"}}`:                                                       true,
	`{"cluster": {"url": "nats://a:4222, tls://[::1]:4222,wss://b", "name": "my-agents", "credentialsFile": "x", "caFile": "~/ca.pem", "replicas": 3}}`: true,
	`{"cluster": {"url": "nats://a", "name": null, "credentialsFile": null, "replicas": null, "takeOver": false}}`:                                      true,
	`{"cluster": {"url": "nats://a", "certFile": "c", "keyFile": "k"}}`:                                                                                 true,
	`{"cluster": {"url": "nats://a", "certFile": "c"}}`:                                                                                                 false,
	`{"cluster": {"url": "nats://a", "keyFile": "k"}}`:                                                                                                  false,
	`{"cluster": {"url": "nats://a", "credentialsFile": ""}}`:                                                                                           false,
	`{"cluster": {"url": "nats://a", "name": "a_b"}}`:                                                                                                   false,
	`{"cluster": {"url": "nats://a", "replicas": 2}}`:                                                                                                   false,
	`{"cluster": {"url": "nats://a", "takeOver": "no"}}`:                                                                                                false,
	`{"cluster": {"url": "nats://a", "replicas": "3"}}`:                                                                                                 false,
	`{"cluster": {"url": "nats://a", "server": "b"}}`:                                                                                                   false,
	`{"cluster": {"url": "nats://me:secret@a"}}`:                                                                                                        false,
	`{"cluster": {"url": "nats://a,nats://token@b"}}`:                                                                                                   false,
	`{"cluster": {"url": "a:4222"}}`:                                                                                                                    false,
	`{"cluster": {"url": "http://a"}}`:                                                                                                                  false,
	`{"cluster": {"url": "nats://"}}`:                                                                                                                   false,
	`{"cluster": {"url": "nats://a,"}}`:                                                                                                                 false,
	`{"cluster": {"url": ""}}`:                                                                                                                          false,
	`{"cluster": {"url": null}}`:                                                                                                                        false,
	"{\"agents\": {\"wait\": {\"kind\": \"inproc\", // a comment, and a comma too many\n},},}":                                                          true,
}

func TestTheSchemaAndTheParserAcceptTheSame(t *testing.T) {
	var schema jsonschema.Schema
	require.NoError(t, json.Unmarshal(Schema, &schema))
	resolved, err := schema.Resolve(nil)
	require.NoError(t, err)
	for doc, good := range documents {
		path := filepath.Join(t.TempDir(), "bgagent.jsonc")
		require.NoError(t, os.WriteFile(path, []byte(doc), 0o600))
		_, parsed := Load(path)
		plain, err := hujson.Standardize([]byte(doc))
		require.NoError(t, err)
		var v any
		require.NoError(t, json.Unmarshal(plain, &v))
		checked := resolved.Validate(v)
		if good {
			require.NoError(t, parsed, doc)
			require.NoError(t, checked, doc)
		} else {
			require.Error(t, parsed, doc)
			require.Error(t, checked, doc)
		}
	}
}
