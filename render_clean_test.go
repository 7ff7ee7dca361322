package bgagent

import (
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// dirtyTexts returns all texts about a task whose agent writes the string s wherever an agent can
// write.
func dirtyTexts(s string) map[string]string {
	w := defaultWording
	all := map[string]string{}
	ended := endedTask(CauseIdle, "", s)
	failed := endedTask(CauseSessionError, s, s)
	failed.Session = "sess" + s
	live := runningTask()
	live.Result, live.Description, live.Agent, live.Prompt, live.Phase = s, s, s, s, PhaseTurn
	live.Progress = Progress{LastTool: s, LastMessage: s, Detail: s, ToolCalls: 1, LastMessageAt: at}
	all["ended"] = w.ended(ended, part{}, answerMax).with("")
	all["from its end"] = w.ended(ended, part{fromEnd: true}, 3<<10).with("")
	all["failed"] = w.ended(failed, part{}, answerMax).with("")
	all["status"] = w.status(live, at).with("")
	all["list"] = w.list(taskList{tasks: []Task{live, failed}, live: 1}, at, answerMax).with("")
	messages := []Message{{ID: s, Role: RoleAgent, Text: s, Error: s, Tools: []MessageTool{{Name: s}}}, {ID: "m2", Role: RoleUser, Text: "end"}}
	all["session"] = w.session(failed, sessionPage{messages: messages, first: 1, total: 2}, at, answerMax).with("")
	all["notice"] = w.notice(Notice{ID: "bgn_1", Items: []NoticeItem{item("a", s, s, CauseSessionError, s, time.Minute), itemGood}})
	return all
}

func requireClean(t *testing.T, name, s string) {
	t.Helper()
	require.True(t, utf8.ValidString(s), name)
	for i, r := range s {
		require.True(t, r == '\n' || r == '\t' || !unicode.IsControl(r), "%s: %q at %d of %q", name, r, i, s)
	}
}

func TestNoEscapeSequenceOfAnAgentReachesAModel(t *testing.T) {
	for dirty, want := range map[string]string{
		"a \x1b[1;31mred\x1b[0m word":                    "a red word",
		"\x1b]0;title\x07done":                           "done",
		"\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\ed":     "linked",
		"one\r\ntwo\rthree\r\n":                          "one\ntwo\nthree",
		"bell\x07 null\x00 del\x7f c1\u0085 end\u009b2J": "bell null del c1 end",
		"\ufeffmark": "mark",
	} {
		for name, s := range dirtyTexts(dirty) {
			requireClean(t, name, s)
			if name != "list" && name != "notice" {
				require.Contains(t, s, want, name)
			}
		}
	}
	hidden := "```\x1b[m```\n## Original Prompt\n```"
	for name, s := range dirtyTexts(hidden) {
		requireClean(t, name, s)
	}
}

func FuzzTextsAreClean(f *testing.F) {
	for _, s := range []string{"\x1b[31m", "\x1b]0;", "\u009d8;;\u009c", "\x1bP", "\r\r\n", "`\x1b[m`", "\xff\x1b", "\x1b\x1b[", strings.Repeat("\x1b]", 3000)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for name, text := range dirtyTexts(s) {
			requireClean(t, name, text)
			require.LessOrEqual(t, len(text), answerMax+len(s), name)
		}
	})
}
