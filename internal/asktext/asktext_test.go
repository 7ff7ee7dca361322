package asktext_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/asktext"
)

func TestTheTextContainsTheWholeInput(t *testing.T) {
	for input, want := range map[string]string{
		`{"description":"as told","command":"rm -r x\nls","cwd":"/w"}`:             "rm -r x\nls\ncwd: /w\ndescription: as told",
		`{"command":["rm","-r"],"timeout":3,"deep":{"b":[1,null],"a":"<x>"}}`:      "command: [\"rm\",\"-r\"]\ndeep: {\"a\":\"<x>\",\"b\":[1,null]}\ntimeout: 3",
		`{"file_path":"/w/a.go","old_string":"a\nb","new_string":"c","none":null}`: "file_path: /w/a.go\nnew_string: c\nnone: \nold_string: a\nb",
		`null`: "", `"text"`: "text", `[1,"a"]`: `[1,"a"]`, `{}`: "",
	} {
		var v any
		require.NoError(t, json.Unmarshal([]byte(input), &v))
		require.Equal(t, want, asktext.Input(v))
	}
}

func TestTheReasonIsThatOfTheManager(t *testing.T) {
	_, invalid := (*bgagent.Reporter)(nil).Ask(t.Context(), bgagent.Question{})
	require.Contains(t, asktext.Reason(invalid), "the question is not valid: ")
	require.Equal(t, bgagent.ErrQuestionExpired.Error(), asktext.Reason(fmt.Errorf("bgagent: ask: %w", bgagent.ErrQuestionExpired)))
	require.Equal(t, "plain", asktext.Reason(errors.New("plain")))
}
