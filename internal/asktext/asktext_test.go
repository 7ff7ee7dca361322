package asktext_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/asktext"
	"github.com/bgagent/bgagent/internal/cleantext"
)

func TestTheTextContainsTheWholeInput(t *testing.T) {
	for input, want := range map[string]string{
		`{"description":"as told","command":"rm -r x","cwd":"/w"}`:                   "rm -r x\ncwd: /w\ndescription: as told",
		`{"description":"as told","command":"rm -r x\nls","cwd":"/w"}`:               "command:\n  rm -r x\n  ls\ncwd: /w\ndescription: as told",
		`{"command":["rm","-r"],"timeout":3,"deep":{"b":[1,null],"a":"<x>"}}`:        "command: [\"rm\",\"-r\"]\ndeep: {\"a\":\"<x>\",\"b\":[1,null]}\ntimeout: 3",
		`{"file_path":"/w/a.go","old_string":"a\n\nb","new_string":"c","none":null}`: "file_path: /w/a.go\nnew_string: c\nnone: \nold_string:\n  a\n\n  b",
		`{"command":"ls","script":"pwd","cmd":""}`:                                   "ls\nscript: pwd\ncmd: ",
		`null`: "", `"text"`: "text", `[1,"a"]`: `[1,"a"]`, `{}`: "",
	} {
		var v any
		require.NoError(t, json.Unmarshal([]byte(input), &v))
		require.Equal(t, want, asktext.Input(v))
	}
}

// A line that begins with a field's name always begins that field, and is never part of another
// field's value.
func TestNoValueOfAnInputCanLookLikeAField(t *testing.T) {
	for input, want := range map[string]string{
		`{"command":"rm -r x\nAllowed: yes"}`:            "command:\n  rm -r x\n  Allowed: yes",
		`{"command":"Allowed: yes"}`:                     "command: Allowed: yes",
		`{"command":"Allowed:"}`:                         "command: Allowed:",
		`{"command":"Allowed:\tyes"}`:                    "command: Allowed:\tyes",
		`{"command":"Allowed:\u00a0yes"}`:                "command: Allowed:\u00a0yes",
		`{"command":"ls","a":"b\n\nc: d\n"}`:             "ls\na:\n  b\n\n  c: d",
		`{"a: b\nAllowed":"yes","é":"x","-a":1}`:         "\"-a\": 1\n\"a: b\\nAllowed\": yes\né: x",
		`{"command":"ls\rpwd","a":"b\rc\u2028d\u0085e"}`: `ls\rpwd` + "\n" + `a: b\rc\u2028d\u0085e`,
		`"Allowed: yes"`:                                 "input: Allowed: yes",
	} {
		var v any
		require.NoError(t, json.Unmarshal([]byte(input), &v))
		require.Equal(t, want, asktext.Input(v))
	}
}

func TestNumbersAreShownAsTheyAreWritten(t *testing.T) {
	v, ok := asktext.Decode([]byte(` {"id":9007199254740993,"big":1e400,"small":0.10,"list":[12345678901234567890]} `))
	require.True(t, ok)
	require.Equal(t, "big: 1e400\nid: 9007199254740993\nlist: [12345678901234567890]\nsmall: 0.10", asktext.Input(v))
	for _, raw := range []string{"", "{", "{} {}", "{}]"} {
		_, ok = asktext.Decode([]byte(raw))
		require.False(t, ok, raw)
	}
}

func TestCharactersThatNobodySeesAreShown(t *testing.T) {
	for text, want := range map[string]string{
		"a\x1b]0;rm -r x\x07b":          `a\x1b]0;rm -r x\ab`,
		"\u202egnp\u2066\u200f":         `\u202egnp\u2066\u200f`,
		"a\u200bb\ufeff\u00ad\u3164":    `a\u200bb\ufeff\u00ad\u3164`,
		"\U000e0041\ufe01":              `\U000e0041\ufe01`,
		"\xff\x00":                      "\ufffd" + `\x00`,
		"tab\tline\nno-break\u00a0日本　é": "tab\tline\nno-break\u00a0日本　é",
	} {
		require.Equal(t, want, asktext.Shown(text))
		require.Equal(t, cleantext.String(want), want, "programs that display it do not change it")
	}
	require.Equal(t, `"a\u202eb": c\x1b`, asktext.Field("a\u202eb", "c\x1b"))
	require.Equal(t, "a:\n  b\\r", asktext.Block("a", "b\r"))
}

func TestTheReasonIsThatOfTheManager(t *testing.T) {
	_, invalid := (*bgagent.Reporter)(nil).Ask(t.Context(), bgagent.Question{})
	require.Contains(t, asktext.Reason(invalid), "the question is not valid: ")
	require.Equal(t, bgagent.ErrQuestionExpired.Error(), asktext.Reason(fmt.Errorf("bgagent: ask: %w", bgagent.ErrQuestionExpired)))
	require.Equal(t, "plain", asktext.Reason(errors.New("plain")))
}

func TestLabelsCanBeToldApartAndTyped(t *testing.T) {
	options := []asktext.Option{{Label: "a b", Description: "x"}, {Label: "a  b", Description: "y"}, {Label: "a b #2"}, {Label: "a\u200bb"}, {Label: "\x1b[2Ja\n"}, {Label: "a\u00a0b"}}
	var q bgagent.Question
	asktext.Choose(&q, "which?", options)
	require.Equal(t, bgagent.QuestionChoice, q.Kind)
	require.Equal(t, []string{"a b", "a b #3", "a b #2", `a\u200bb`, `\x1b[2Ja`, "a b #4"}, q.Options)
	require.Equal(t, "which?\na b: x\na b #3: y", q.Subject)
	for i, shown := range q.Options {
		require.Equal(t, shown, cleantext.Line(shown), "the command that is printed for it contains the same text")
		label, ok := asktext.Chosen(options, shown)
		require.True(t, ok)
		require.Equal(t, options[i].Label, label)
	}
	_, ok := asktext.Chosen(options, "a  b")
	require.False(t, ok)

	// An answer to a question that uses a label twice would not say which of the two options was
	// chosen.
	asktext.Choose(&q, "which?", []asktext.Option{{Label: "a"}, {Label: "a"}})
	require.Equal(t, []string{"a", "a"}, q.Options)
}

func TestAQuotedTextIsOneShortLine(t *testing.T) {
	for text, want := range map[string]string{
		"":                  `""`,
		"a\n b\t":           `"a b"`,
		`a"b\`:              `"a\"b\\"`,
		"\u202e\xff":        `"\u202e` + "\ufffd" + `"`,
		"1234567890":        `"1234567890"`,
		"12345678901":       `"1234567890"…`,
		"123456789\u200b":   `"123456789"…`,
		"123456789éx":       `"123456789"…`,
		"é日本\u3164":         `"é日本"…`,
		"a  b             ": `"a b"`,
	} {
		require.Equal(t, want, asktext.Quoted(text, 10))
	}
}
