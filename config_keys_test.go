package bgagent

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// docTable returns the table that the doc comment of FileConfig must contain.
func docTable() string {
	var b strings.Builder
	fmt.Fprintf(&b, "//\t%-37s%-12s%s\n", "key", "default", "0 means")
	for i := range fileKeys {
		k := &fileKeys[i]
		zero := k.zero
		switch {
		case k.kind == keyWake:
			zero = `refused; "batch", "each" or "never"`
		case k.kind == keySwitch || k.kind == keyFlag:
			zero = "refused; true or false"
		case zero == "":
			zero = "refused"
		}
		fmt.Fprintf(&b, "//\t%-37s%-12s%s\n", k.key, k.standard(), zero)
	}
	return b.String()
}

// markdownTables returns the tables that docs/configuration.md must contain.
func markdownTables() (keys, ignored string) {
	var b strings.Builder
	b.WriteString("| Key | Default | 0 means | Field of `Config` | Meaning |\n| --- | --- | --- | --- | --- |\n")
	for i := range fileKeys {
		k := &fileKeys[i]
		zero, name := k.zero, "`"+k.key+"`"
		if zero == "" {
			zero = "refused"
		}
		if k.alias != "" {
			name += " (also `" + k.alias + "`, not 0)"
		}
		fmt.Fprintf(&b, "| %s | `%s` | %s | `%s` | %s |\n", name, k.standard(), zero, k.field, k.about)
	}
	keys = b.String()
	b.Reset()
	b.WriteString("| Key | Instead |\n| --- | --- |\n")
	for _, f := range foreignKeys {
		fmt.Fprintf(&b, "| `%s` | %s |\n", f.key, f.reason)
	}
	return keys, b.String()
}

func TestDocumentationHoldsTheTableOfKeys(t *testing.T) {
	source, err := os.ReadFile("config_file.go")
	require.NoError(t, err)
	require.True(t, strings.Contains(string(source), docTable()), "the comment of FileConfig must contain this table:\n%s", docTable())

	page, err := os.ReadFile("docs/configuration.md")
	require.NoError(t, err)
	keys, ignored := markdownTables()
	require.True(t, strings.Contains(string(page), keys), "docs/configuration.md must hold this table:\n%s", keys)
	require.True(t, strings.Contains(string(page), ignored), "docs/configuration.md must hold this table:\n%s", ignored)
}

// If a new field of Config had no key, a file could not set it.
func TestEveryDurationAndCountHasAKeyThatAgreesOnZero(t *testing.T) {
	var c Config
	canBeOff := map[string]bool{"RetainText": true, "NoticeResult": true, "Limits.Default": true, "Limits.Model": true, "Limits.Provider": true, "Limits.Total": true, "Limits.Agent": true, "Wake": false, "Ask": false, "ModelsMayPermit": false, "OptionalTools": false, "TaskBudget": true, "Fallback": false}
	for i := range timeLimits {
		if timeLimits[i].key == "" { // the file cannot set this limit
			continue
		}
		canBeOff[timeLimits[i].field] = timeLimits[i].off != ""
	}
	for _, n := range c.counts() {
		canBeOff[n.name] = n.unlimited
	}
	seen := map[string]bool{}
	for i := range fileKeys {
		k := &fileKeys[i]
		off, known := canBeOff[k.field]
		require.True(t, known, "%s sets the field %s, which does not exist", k.key, k.field)
		if k.kind != keySwitch {
			require.Equal(t, off, k.zero != "", "%s: the meaning of 0 must match Config.%s", k.key, k.field)
		}
		require.False(t, seen[k.field] && !strings.HasPrefix(k.key, inBreaker), "%s has two keys", k.field)
		seen[k.field] = true
		for _, name := range []string{k.key, k.alias} {
			if name != "" {
				require.Same(t, k, keyNamed(name))
				_, foreign := foreignReason(name)
				require.False(t, foreign, name)
			}
		}
		require.Equal(t, k.kind == keyMs, strings.HasSuffix(k.key, "Ms"), k.key)
	}
	for field := range canBeOff {
		require.True(t, seen[field], "Config.%s has no key", field)
	}
}

func TestNearestKeyFindsWhatWasMeant(t *testing.T) {
	for name, want := range map[string]string{
		"staleTimeout":            "staleTimeoutMs",
		"stale_timeout_ms":        "staleTimeoutMs",
		"modelConcurency":         "modelConcurrency",
		"DefaultConcurrency":      "defaultConcurrency",
		"timeToLive":              "taskTtlMs",
		"taskCleanupDelay":        "taskCleanupDelayMs",
		"maxToolCall":             "maxToolCalls",
		"circuitBraker":           "circuitBreaker",
		"wak":                     "wake",
		"wait":                    "",
		"x":                       "",
		"":                        "",
		"colour":                  "",
		strings.Repeat("long", 9): "",
	} {
		require.Equal(t, want, nearestKey(name), name)
	}
}
