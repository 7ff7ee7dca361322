//go:build unix

package command

import (
	"errors"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

func TestTextIsUTF16WithAMarkOrUTF8(t *testing.T) {
	// The program passes its prompt to printf as the format, so prompts can contain escapes.
	p := Text("sh")
	p.Start = Form{Args: []string{"-c", `printf "$1"`, "x"}, Prompt: []string{"{prompt}"}}
	c := clientOf(t, Agent{Program: p})
	for prompt, want := range map[string]string{
		`\377\376o\000l\000\351\000\r\000\n\000x\000`: "olé\nx",
		`\376\377\000o\000k`:                          "ok",
		`\357\273\277m\303\251\r\n\033[1mbold\033[0m`: "mé\nbold",
	} {
		end, err := play(t, c, create(t, c), prompt)
		require.NoError(t, err, prompt)
		require.Equal(t, bgagent.TurnEnd{Text: want}, end)
	}
	for _, prompt := range []string{`o\000k\000`, `caf\351`} {
		end, err := play(t, c, create(t, c), prompt)
		require.Contains(t, failure(t, err).Problem, "not UTF-8 text", prompt)
		require.Equal(t, bgagent.StopError, end.Stop)
	}
}

func TestLinesNotUnderstoodAreNamedIfTheTurnEndsBadly(t *testing.T) {
	var logged strings.Builder
	c := linesClient(t, func(cfg *Config) { cfg.Logger = slog.New(slog.NewTextHandler(&logged, nil)) })
	const noise = "\x1b[33mnpm warn\x1b[0m old\n{\"type\":\"message\",\"text\":\"half\"}\nand more\n"
	end, err := play(t, c, create(t, c), "print "+noise)
	require.Equal(t, `it exited with code 0 in the middle of the turn; 2 lines were not understood, the first: "npm warn old"`, failure(t, err).Problem)
	require.Equal(t, bgagent.TurnEnd{Stop: bgagent.StopInterrupted, Text: "half"}, end)
	require.Contains(t, logged.String(), "2 lines were not understood")
	_, err = play(t, c, create(t, c), "print x\n{\"type\":\"end\"}")
	require.NoError(t, err, "a turn that succeeds has no reason that could name them")
}

// If a decoder does not understand the line with the answer, the turn can succeed without an answer.
// Therefore, the lines that were not understood become a remark.
func TestLinesNotUnderstoodAreARemarkIfTheTurnSucceeds(t *testing.T) {
	const end = "\n{\"type\":\"end\"}"
	for printed, want := range map[string]string{
		`hello` + end:                         `1 line was not understood, the first: "hello"`,
		`{"typ":"message","text":"hi"}` + end: "1 line was not understood, the first: `{\"typ\":\"message\",\"text\":\"hi\"}`",
		`{"type":"session","id":"s"}` + "\n" + `{"type":"mesage","text":"hi"}` + end: "1 line was not understood, the first: `{\"type\":\"mesage\",\"text\":\"hi\"}`",
		`{"type":"message","txt":"hi"}` + end:                                        "1 line was not understood, the first: `{\"type\":\"message\",\"txt\":\"hi\"}`",
		`{"type":"text","text":5}` + end:                                             "1 line was not understood, the first: `{\"type\":\"text\",\"text\":5}`",
		`{"type":"text","text":null}` + "\n" + `{"type":"message","text":""}` + end:  "",
		`{"type":"message","text":"hi"}` + "\nwarning" + end:                         `1 line was not understood, the first: "warning"`,
	} {
		c := linesClient(t)
		got, err := play(t, c, create(t, c), "print "+printed)
		require.NoError(t, err, printed)
		require.Equal(t, want, got.Remark, printed)
	}
	c := linesClient(t, func(cfg *Config) { cfg.MaxLine = 1000 })
	got, err := play(t, c, create(t, c), "print "+strings.Repeat("x", 2000)+end)
	require.NoError(t, err)
	require.Equal(t, "1 line was too long to be read (Config.MaxLine: 1000 bytes)", got.Remark)
}

func TestARepeatedPromptIsNoEvent(t *testing.T) {
	c := linesClient(t)
	const end = `{"type":"end"}`
	got, err := play(t, c, create(t, c), "echo: "+end)
	require.Contains(t, failure(t, err).Problem, "in the middle of the turn")
	require.Equal(t, bgagent.StopInterrupted, got.Stop)
}

func TestAFollowUpNeverGoesToAnEmptySessionSilently(t *testing.T) {
	c := linesClient(t)
	id := create(t, c)
	for _, answer := range []string{"one", "two"} { // the program never reports its session
		_, err := play(t, c, id, `print {"type":"message","text":"`+answer+`"}`+"\n"+`{"type":"end"}`)
		require.NoError(t, err)
	}
	end, err := play(t, c, id, "repeat three")
	require.NoError(t, err)
	for _, want := range []string{"was lost by the program", "# You were asked\n\nprint {", "# You answered\n\none", "# You are asked now\n\nrepeat three"} {
		require.Contains(t, end.Text, want)
	}
	page, err := c.Messages(t.Context(), id, "", 10)
	require.NoError(t, err)
	require.Equal(t, "repeat three", page.Messages[4].Text, "only the new prompt is shown")

	c = linesClient(t, func(cfg *Config) { cfg.Keep = 1000 })
	id = create(t, c)
	_, err = play(t, c, id, `print {"type":"message","text":"`+strings.Repeat("x", 2000)+`"}`+"\n"+`{"type":"end"}`)
	require.NoError(t, err)
	_, err = play(t, c, id, "say more")
	require.ErrorContains(t, err, "it never reported its session")
}

func TestAProgramThatPrintsNothingIsStopped(t *testing.T) {
	c := linesClient(t, func(cfg *Config) { cfg.Silence = 50 * time.Millisecond })
	end, err := play(t, c, create(t, c), "muteblock")
	require.Contains(t, failure(t, err).Problem, "it printed nothing for 50ms (Config.Silence)")
	require.Equal(t, bgagent.StopError, end.Stop)
	silent := &turn{client: c}
	_, err = io.ReadAll(silent.hears(strings.NewReader(""), 1))
	require.NoError(t, err)
	require.False(t, silent.heard.Load())
	_, err = io.ReadAll(silent.hears(strings.NewReader("x"), 1))
	require.NoError(t, err)
	require.True(t, silent.heard.Load(), "a program that has printed something is not silent")
}

func TestAProgramKilledBeforeItPrintsWasInterrupted(t *testing.T) {
	for _, p := range []Program{Lines("fake"), Text("fake")} {
		c := clientOf(t, fakeAgent(t, p))
		end, err := play(t, c, create(t, c), "mutekilled")
		require.Contains(t, failure(t, err).Problem, "terminated by a signal from outside")
		require.Equal(t, bgagent.StopInterrupted, end.Stop)
	}
}

func TestBackgroundWorkThatIsCutOffIsNamed(t *testing.T) {
	p := Lines("fake")
	p.Decode = decodeClaude
	c := clientOf(t, fakeAgent(t, p), func(cfg *Config) { cfg.Grace = 100 * time.Millisecond })
	end, err := play(t, c, create(t, c), "print "+claudeStarted+"\n"+claudeFirst)
	require.Contains(t, failure(t, err).Problem, "its own background work was cut off: go test")
	require.Equal(t, bgagent.StopInterrupted, end.Stop)
	require.Equal(t, "I have started the tests and wait for them", end.Text)
	end, err = play(t, c, create(t, c), "printlater 300 "+claudeStarted+"\n"+claudeFirst+"\n|"+claudeDone+"\n"+claudeSecond)
	require.NoError(t, err, "the program is not stopped, even if it waits for longer than the grace time")
	require.Equal(t, "The tests pass", end.Text)
}

func TestACutAnswerIsPartialAndTheReasonSaysWhy(t *testing.T) {
	p := Lines("fake")
	p.Decode = decodeGemini
	c := clientOf(t, fakeAgent(t, p))
	end, err := play(t, c, create(t, c), `print {"type":"message","role":"assistant","content":"half"}`+"\n"+
		`{"type":"error","severity":"warning","message":"Loop detected, stopping execution"}`+"\n"+`{"type":"result","status":"success"}`)
	require.Equal(t, bgagent.TurnEnd{Stop: bgagent.StopTurnLimit, Text: "half"}, end)
	require.Equal(t, "Loop detected, stopping execution", failure(t, err).Problem)
	end, err = play(t, c, create(t, c), `print {"type":"message","role":"assistant","content":"half"}`+"\n"+
		`{"type":"error","severity":"error","message":"Model stream ended without a finish reason."}`+"\n"+`{"type":"result","status":"error"}`)
	require.Equal(t, bgagent.StopError, end.Stop, "even with exit code 0")
	require.Contains(t, failure(t, err).Problem, "Model stream ended without a finish reason.")
}

func TestARefusedPermissionIsNamed(t *testing.T) {
	p := Lines("fake")
	p.Decode = decodeOpencode
	c := clientOf(t, fakeAgent(t, p))
	_, data := record(t, "opencode_rejected")
	end, err := play(t, c, create(t, c), "print "+string(data))
	require.Equal(t, bgagent.StopInterrupted, end.Stop)
	require.Contains(t, failure(t, err).Problem, "The user rejected permission to use this specific tool call.; it was not allowed to use bash")
	require.Equal(t, "! permission requested: bash (ls); auto-rejecting", hint("! permission requested: bash (ls); auto-rejecting\nError: x"))
}

func TestTheHostGetsTheOutputOfAProgram(t *testing.T) {
	var mu sync.Mutex
	printed := map[string]string{}
	p := Text("sh")
	p.Start = Form{Args: []string{"-c", `printf "$1"; printf "$1" >&2; printf more`, "x"}, Prompt: []string{"{prompt}"}}
	c := clientOf(t, Agent{Program: p}, func(cfg *Config) {
		cfg.Printed = func(task string, stream int, p []byte) {
			mu.Lock()
			defer mu.Unlock()
			printed[task+" "+strconv.Itoa(stream)] += string(p)
		}
	})
	_, err := c.RunTurn(t.Context(), create(t, c), bgagent.Prompt{Task: "bg_7", Text: `\033[1ma\377`}, bgagent.NewReporter(func(bgagent.Report) {}))
	require.Error(t, err, "the output is not UTF-8")
	require.Equal(t, map[string]string{"bg_7 1": "\x1b[1ma\xffmore", "bg_7 2": "\x1b[1ma\xff"}, printed)
}

func TestLeftProcessesAreLoggedEvenIfTheTurnSucceeds(t *testing.T) {
	for _, end := range []string{`{"type":"end"}`, `{"type":"end","stop":"error"}`} {
		var logged strings.Builder
		c := linesClient(t, func(cfg *Config) { cfg.Logger = slog.New(slog.NewTextHandler(&logged, nil)) })
		s := c.sessions[create(t, c)]
		turn := &turn{client: c, session: s, out: newOutput(nil, 1, bgagent.Usage{})}
		DecodeLines()([]byte(end), turn.out)
		_, err := turn.judge(outcome{program: "x", left: errors.New("these processes could not be ended: 7 (sleep)")})
		require.Equal(t, strings.Contains(end, "stop"), err != nil)
		require.Contains(t, logged.String(), "these processes could not be ended: 7 (sleep)", end)
	}
}

func TestATurnDoesNotEndDuringBackgroundWork(t *testing.T) {
	o := newOutput(nil, 1, bgagent.Usage{})
	o.Background([]string{"go test"})
	o.End(bgagent.StopEndOfTurn, "I wait for the tests", "")
	require.False(t, o.brief().over, "the wait for the program's exit has not begun")
	require.False(t, o.seal())
	o.Background(nil)
	require.True(t, o.brief().over)
	require.True(t, o.seal())
}

func TestAMessageThatIsCutOffWhileItGrowsIsTold(t *testing.T) {
	p := Lines("fake")
	p.Decode = decodeCodex
	c := clientOf(t, fakeAgent(t, p))
	end, err := play(t, c, create(t, c), "print "+item("updated", "1", "half of it"))
	require.Contains(t, failure(t, err).Problem, "in the middle of the turn")
	require.Equal(t, bgagent.TurnEnd{Stop: bgagent.StopInterrupted, Text: "half of it"}, end)
}

func TestTheKeptConversationIsBounded(t *testing.T) {
	c := linesClient(t, func(cfg *Config) { cfg.Keep = 1000 })
	id := create(t, c)
	for range 3 {
		_, err := play(t, c, id, "big 600")
		require.NoError(t, err)
	}
	page, err := c.Messages(t.Context(), id, "", 10)
	require.NoError(t, err)
	ids := make([]string, len(page.Messages))
	for i, m := range page.Messages {
		ids[i] = m.ID
	}
	require.Equal(t, []string{"msg_5", "msg_6"}, ids)
	_, err = play(t, c, id, "big 3000")
	require.NoError(t, err)
	page, err = c.Messages(t.Context(), id, page.Next, 10)
	require.NoError(t, err)
	require.True(t, slices.ContainsFunc(page.Messages, func(m bgagent.Message) bool {
		return m.Role == bgagent.RoleAgent && len(m.Text) == 1000-len("big 3000")
	}))
	_, err = c.Messages(t.Context(), id, "here", 10)
	require.ErrorContains(t, err, "is not one of this client's")
}
