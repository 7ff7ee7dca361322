package bgagent_test

import (
	"strings"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

func TestUltraworkIsFoundAsAWord(t *testing.T) {
	for _, prompt := range []string{
		"ultrawork", "ulw", "ULW", "UltraWork please", "ulw: fix the build", "fix it, ulw.", "Fix it...ulw", "(ulw)", "**ulw**", "\"ultrawork\"",
		"/ulw fix it", "first line\nulw\nlast", "ulw\r\nrest", "\tulw", "lance l'ultrawork", "lance l’ultrawork", "ulw, s'il te plaît", "ulw!", "¿ulw?",
		"请用ulw修复", "ulw로 해줘", "ultraworkで直して", "в ulw режиме", "בulw", "ulw，修复", "ulwx ulw", "the mode — ulw — is on", "ulw 🚀", "🚀ulw",
		"a ` in the text, ulw", "two ``` in a line ulw", "`code` ulw `code`", "    ulw, indented", "``a`` ulw ``b``",
		"```go\ncode\n```\nulw", "~~~\n```\n~~~\nulw", "> ```\n> code\n> ```\n> ulw", "one `stray\n\nulw and another ` stray",
		"ultrawork ultrawork.go",
	} {
		require.True(t, bgagent.DetectUltrawork(prompt), "%q", prompt)
	}
}

func TestUltraworkIsNotFoundInsideOtherWordsNamesAndCode(t *testing.T) {
	for _, prompt := range []string{
		"", " ", "ultra work", "ultra-work", "ulwx", "xulw", "ulw2", "2ulw", "ulw_x", "_ulw", "ultraworks", "ultraworking", "éulw", "ulwé",
		"ulwe\u0301", "ulw\u0301", "e\u0301ulw", "ulwş", "ulw٣", "ulwª", "u l w", "u\u200blw", "ｕｌｗ",
		"fix ultrawork.go", "src/ulw", "ulw/config", `C:\ulw\x`, "my-ulw", "ulw-loop", "ulw@example.org", "me@ulw", "файл/ulw", "v1.ulw",
		"`ulw`", "say `ulw` or ``ultrawork``", "`` ` ulw ` ``", "`a\nulw`", "```\nulw\n```", "```ulw\n```", "~~~\nulw", "```\nulw", "````\n```\nulw\n````",
		"  ```sh\n  ulw\n  ```", "> ```\n> ulw\n> ```", "```\n~~~\nulw\n~~~\n```",
		"ul\u212aw", "ultrawor\u212a",
	} {
		require.False(t, bgagent.DetectUltrawork(prompt), "%q", prompt)
	}
}

// Prompts come from people and models. Checking a hostile prompt must not take minutes.
func TestUltraworkInLargePrompts(t *testing.T) {
	start := time.Now()
	var runs strings.Builder
	for n := 1; runs.Len() < 1<<20; n++ {
		runs.WriteString("x " + strings.Repeat("`", n) + " ")
	}
	for _, part := range []string{"ulwx ", "`", "` ", "x-ulw-", "```\n", "\n", "ulw\xff-", runs.String()} {
		bgagent.DetectUltrawork(strings.Repeat(part, 1+(1<<20)/len(part)))
	}
	require.Less(t, time.Since(start), 20*time.Second)
}

func FuzzDetectUltrawork(f *testing.F) {
	f.Add("a `b` ``` c\n~~~\nulw")
	f.Add("```\n> ```\nultrawork")
	f.Fuzz(func(t *testing.T, prompt string) {
		found := bgagent.DetectUltrawork(prompt)
		require.Equal(t, found, bgagent.DetectUltrawork(strings.ReplaceAll(prompt, "ulw", "ULW")), "case must not matter")
		lower := strings.ToLower(prompt)
		if found {
			require.True(t, strings.Contains(lower, "ulw") || strings.Contains(lower, "ultrawork"))
		}
		require.True(t, bgagent.DetectUltrawork("ulw\n\n"+prompt), "later text must not hide a word in an earlier paragraph")
	})
}
