package bgagent_test

import (
	"errors"
	"fmt"

	"github.com/bgagent/bgagent"
)

func ExampleLoadConfig() {
	file, err := bgagent.LoadConfig("testdata/tutorial.json")
	if err != nil {
		fmt.Println(err)
		return
	}
	var cfg bgagent.Config
	file.Apply(&cfg)
	fmt.Println("anthropic:", cfg.Limits.Provider["anthropic"])
	fmt.Println("claude-opus-4-5:", cfg.Limits.Model["claude-opus-4-5"])
	fmt.Println("default:", cfg.Limits.Default)
	// Output:
	// anthropic: 3
	// claude-opus-4-5: 2
	// default: 3
}

func ExampleParseConfig() {
	_, err := bgagent.ParseConfig("oh-my-opencode.json", []byte(`{
  "background_task": {
    "staleTimeout": 300000,      // the key ends in Ms
    "defaultConcurrency": "3",   // a number has no quotation marks
  },
}`))
	fmt.Println(err)
	if e, ok := errors.AsType[*bgagent.ConfigFileError](err); ok {
		fmt.Println("the first is in line", e.Line)
	}
	// Output:
	// oh-my-opencode.json:3:5: background_task.staleTimeout: is not a known key; did you mean staleTimeoutMs?
	// oh-my-opencode.json:4:27: background_task.defaultConcurrency: is the string "3"; it must be a whole number, or 0 for no limit
	// the first is in line 3
}

func ExampleFileConfig_Settings() {
	file, err := bgagent.ParseConfig("oh-my-opencode.json", []byte(`{
  "background_task": {
    "modelConcurrency": { "gpt-5.2": 2 },
    "quotaRouting": { "enabled": true },
  },
}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, s := range file.Settings()[:3] {
		fmt.Println(s.Name(), s.Value, s.Origin)
	}
	for _, k := range file.Ignored() {
		fmt.Println(k)
	}
	// Output:
	// modelConcurrency["gpt-5.2"] 2 oh-my-opencode.json:3:27
	// defaultConcurrency 5 default
	// maxDepth 1 default
	// oh-my-opencode.json:4:5: background_task.quotaRouting is ignored: the program chooses models with Config.Model
}

func ExampleFormatConfig() {
	text, err := bgagent.FormatConfig(bgagent.Config{
		Limits:       bgagent.Limits{Default: bgagent.Unlimited},
		StaleTimeout: bgagent.Disabled,
		MaxDepth:     2,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Print(string(text))
	// Output:
	// {
	//   "background_task": {
	//     "defaultConcurrency": 0,
	//     "maxDepth": 2,
	//     "staleTimeoutMs": 0
	//   }
	// }
}

func ExampleDetectUltrawork() {
	fmt.Println(bgagent.DetectUltrawork("ulw: find out why the build is slow"))
	fmt.Println(bgagent.DetectUltrawork("fix the typo in ultrawork.go"))
	fmt.Println(bgagent.DetectUltrawork("what does `ulw` do?"))
	// Output:
	// true
	// false
	// false
}
