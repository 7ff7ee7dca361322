//go:build unix

package command

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/tempdir"
	"github.com/stretchr/testify/require"
)

// The function "asks" returns the argument that a manager uses to restore a session if it does not
// know the state of the last prompt.
func asks(text string, s saved) bgagent.SessionRestore {
	s.Version = savedVersion
	data, _ := json.Marshal(s)
	return bgagent.SessionRestore{
		Spec: bgagent.SessionSpec{Agent: "a", Depth: 1, Instance: secondLife}, Session: "cmd_x", Saved: data,
		Last: bgagent.Prompt{ID: "bg_1.1.2", Text: text}, Instance: earlierLife,
	}
}

// earlierLife is the instance of an earlier manager that left no processes running.
const earlierLife = "life-without-processes"

// storing describes a program and a recorded session, which can be written into a home directory.
type storing struct {
	look  func(context.Context, Lookup) (Stored, error)
	file  string // recorded session in testdata/stored
	path  string // path of the session file in the home directory
	id    string
	first string // first prompt of the recorded session
	ends  bool   // whether the reader can recognize the end of a turn
}

var storings = map[string]storing{
	"claude": {
		look: lookClaude, file: "claude.jsonl", path: ".claude/projects/-src/bd1736b3-df5b-490b-b3ce-90d999c6f0f0.jsonl", id: "bd1736b3-df5b-490b-b3ce-90d999c6f0f0", ends: true,
		first: "first prompt  with spaces\n@tool Bash {\"command\":\"env sleep 0.3; echo one > made.txt\",\"description\":\"a test\"}\n@text hello\n@say done now",
	},
	"codex": {
		look: lookCodex, file: "codex.jsonl", path: ".codex/sessions/2026/11/29/rollout-2026-11-29T05-47-36-01a225d8-3746-7353-be4b-a3ed1539bec0.jsonl", id: "01a225d8-3746-7353-be4b-a3ed1539bec0", ends: true,
		first: "first prompt  with spaces\n@tool exec_command {\"cmd\":\"sleep 0.3; echo one > made.txt\"}\n@text hello\n@say done now",
	},
	"gemini": {
		look: lookGemini, file: "gemini.jsonl", path: ".gemini/tmp/src/chats/session-2026-11-29T05-47-cd5b2dc4.jsonl", id: "cd5b2dc4-30a7-4b50-92f0-f100e2a4a039",
		first: "first prompt  with spaces\n@tool run_shell_command {\"command\":\"sleep 0.3; echo one > made.txt\",\"description\":\"a test\"}\n@text hello\n@say done now",
	},
}

// The method "put" writes a session file into a new home directory. It returns a function that reads
// the session.
func (s storing) put(t testing.TB, data []byte) func() (Stored, error) {
	t.Helper()
	home := tempdir.New(t)
	path := filepath.Join(home, filepath.FromSlash(s.path))
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
	require.NoError(t, os.WriteFile(path, data, 0o600))
	return func() (Stored, error) {
		return s.look(t.Context(), Lookup{Session: s.id, Prompt: s.first, Env: []string{"HOME=" + home}})
	}
}

func (s storing) recorded(t testing.TB) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "stored", s.file))
	require.NoError(t, err)
	return data
}

func TestARecordedSessionIsUnderstood(t *testing.T) {
	for name, s := range storings {
		st, err := s.put(t, s.recorded(t))()
		require.NoError(t, err, name)
		want := Stored{Session: s.id, Prompts: []string{s.first, "@say again\n"}}
		if s.ends {
			want.Ended, want.End = true, bgagent.TurnEnd{Stop: bgagent.StopEndOfTurn, Text: "again"}
		}
		require.Equal(t, want, st, name)
	}
}

// If a program is killed, its session file can stop at any byte.
func TestACutSessionNeverPassesForAnAnswerOrForNoPrompt(t *testing.T) {
	for name, s := range storings {
		whole := s.recorded(t)
		home := tempdir.New(t)
		path := filepath.Join(home, filepath.FromSlash(s.path))
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		seen, ends := false, 0
		for n := 0; n <= len(whole); n++ {
			if n%61 != 0 && n > 0 && whole[n-1] != '\n' {
				continue
			}
			require.NoError(t, os.WriteFile(path, whole[:n], 0o600))
			st, err := s.look(t.Context(), Lookup{Session: s.id, Env: []string{"HOME=" + home}})
			if err != nil {
				require.ErrorIs(t, err, bgagent.ErrNoSession)
				require.False(t, seen, "%s: %d", name, n)
				continue
			}
			state, _ := st.state(s.first, nil)
			seen = seen || len(st.Prompts) > 0
			switch state {
			case bgagent.PromptMissing:
				require.False(t, seen, "%s: %d", name, n)
			case bgagent.PromptAnswered:
				ends++
				require.Equal(t, "done now", st.End.Text, "%s: %d", name, n)
				require.True(t, whole[n-1] == '\n', "%s: %d", name, n)
			}
		}
		require.True(t, seen, name)
		require.Equal(t, s.ends, ends > 0, name)
	}
}

func TestALineThatIsNotUnderstoodMakesTheSessionUnclear(t *testing.T) {
	for name, s := range storings {
		whole := s.recorded(t)
		first, rest, _ := bytes.Cut(whole, []byte("\n"))
		for _, bad := range []string{"{\"type\":", "\x00\x00\x00", "not an object"} {
			st, err := s.put(t, bytes.Join([][]byte{first, []byte(bad), rest}, []byte("\n")))()
			require.NoError(t, err, name)
			require.True(t, st.Unclear, "%s: %q", name, bad)
		}
	}
}

func TestASessionThatIsNotThereIsMissingOnlyInAFolderOfTheProgram(t *testing.T) {
	for name, s := range storings {
		home := tempdir.New(t)
		l := Lookup{Session: s.id, Prompt: s.first, Env: []string{"HOME=" + home}}
		_, err := s.look(t.Context(), l)
		require.Error(t, err, name)
		require.NotErrorIs(t, err, bgagent.ErrNoSession, name)
		require.NoError(t, os.MkdirAll(filepath.Join(home, strings.SplitN(s.path, "/", 2)[0]), 0o700))
		_, err = s.look(t.Context(), l)
		require.ErrorIs(t, err, bgagent.ErrNoSession, name)
		l.Env = nil
		_, err = s.look(t.Context(), l)
		require.NotErrorIs(t, err, bgagent.ErrNoSession, name)
		for _, id := range []string{"../../secret", "*", "a/b"} {
			l.Session, l.Env = id, []string{"HOME=" + home}
			_, err = s.look(t.Context(), l)
			require.ErrorIs(t, err, errName, name)
		}
	}
}

func TestAFolderThatCannotBeReadDecidesNothing(t *testing.T) {
	for name, s := range storings {
		home := tempdir.New(t)
		dirs := strings.Split(s.path, "/")
		require.NoError(t, os.MkdirAll(filepath.Join(home, dirs[0]), 0o700))
		require.NoError(t, os.Symlink("loop", filepath.Join(home, dirs[0], dirs[1]))) // two symbolic links that point to each other cannot be read
		require.NoError(t, os.Symlink(dirs[1], filepath.Join(home, dirs[0], "loop")))
		_, err := s.look(t.Context(), Lookup{Session: s.id, Env: []string{"HOME=" + home}})
		require.Error(t, err, name)
		require.NotErrorIs(t, err, bgagent.ErrNoSession, name)
	}
}

func TestTheProgramsOwnVariablesNameItsFolder(t *testing.T) {
	for name, variable := range map[string]string{"claude": "CLAUDE_CONFIG_DIR", "codex": "CODEX_HOME", "gemini": "GEMINI_CLI_HOME"} {
		s, home := storings[name], tempdir.New(t)
		path := filepath.Join(home, filepath.FromSlash(s.path))
		dir := filepath.Join(home, strings.SplitN(s.path, "/", 2)[0])
		if name == "gemini" {
			dir = home
		}
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, s.recorded(t), 0o600))
		st, err := s.look(t.Context(), Lookup{Session: s.id, Env: []string{variable + "=" + dir, "HOME=" + tempdir.New(t)}})
		require.NoError(t, err, name)
		require.Len(t, st.Prompts, 2, name)
	}
}

// claudeFile returns the result of reading a claude session file with the given lines.
func claudeFile(t *testing.T, lines ...string) (Stored, error) {
	t.Helper()
	return storings["claude"].put(t, []byte(strings.Join(lines, "\n")+"\n"))()
}

func TestWhatClaudeStores(t *testing.T) {
	const (
		queued  = `{"type":"queue-operation","operation":"enqueue","content":"do it"}`
		asked   = `{"type":"user","version":"2.1.332","message":{"content":"do it"}}`
		text    = `{"type":"assistant","message":{"id":"m1","model":"m","content":[{"type":"text","text":"all done"}],"stop_reason":"end_turn"}}`
		thought = `{"type":"assistant","message":{"id":"m1","model":"m","content":[{"type":"thinking","thinking":"hm"}],"stop_reason":null}}`
		call    = `{"type":"assistant","message":{"id":"m2","model":"m","content":[{"type":"tool_use","id":"c","name":"Bash","input":{"command":"x"}}],"stop_reason":"tool_use"}}`
		behind  = `{"type":"assistant","message":{"id":"m2","model":"m","content":[{"type":"tool_use","id":"c","name":"Bash","input":{"run_in_background":true}}],"stop_reason":"tool_use"}}`
		result  = `{"type":"user","message":{"content":[{"type":"tool_result","tool_use_id":"c","content":"x"}]}}`
		nothing = `{"type":"assistant","message":{"id":"m3","model":"<synthetic>","content":[{"type":"text","text":"No response requested."}],"stop_reason":"stop_sequence"}}`
		failed  = `{"type":"assistant","isApiErrorMessage":true,"message":{"id":"m4","model":"m","content":[{"type":"text","text":"API Error"}],"stop_reason":"stop_sequence"}}`
		halved  = `{"type":"assistant","message":{"id":"m5","model":"m","content":[{"type":"text","text":"half an"}],"stop_reason":"max_tokens"}}`
		inside  = `{"type":"user","isSidechain":true,"message":{"content":"a subagent's prompt"}}`
		note    = `{"type":"user","message":{"content":[{"type":"text","text":"[Request interrupted by user]"}]}}`
	)
	for name, x := range map[string]struct {
		lines []string
		ends  string
		stop  bgagent.StopReason
	}{
		"answered":                    {[]string{queued, asked, thought, text}, "all done", bgagent.StopEndOfTurn},
		"answered after a call":       {[]string{asked, call, result, inside, text}, "all done", bgagent.StopEndOfTurn},
		"cut by the limit":            {[]string{asked, halved}, "half an", bgagent.StopLength},
		"asked only":                  {[]string{queued, asked}, "", 0},
		"in a call":                   {[]string{asked, thought, call}, "", 0},
		"after a call":                {[]string{asked, call, result}, "", 0},
		"its own answer":              {[]string{asked, nothing}, "", 0},
		"an error":                    {[]string{asked, failed}, "", 0},
		"a note about an abort":       {[]string{asked, call, note}, "", 0},
		"with work behind its back":   {[]string{asked, behind, result, text}, "", 0},
		"a thought without an answer": {[]string{asked, thought}, "", 0},
	} {
		st, err := claudeFile(t, x.lines...)
		require.NoError(t, err, name)
		require.Equal(t, []string{"do it"}, st.Prompts, name)
		require.False(t, st.Unclear, name)
		require.Equal(t, x.ends != "", st.Ended, name)
		if st.Ended {
			require.Equal(t, bgagent.TurnEnd{Stop: x.stop, Text: x.ends}, st.End, name)
		}
	}
	_, err := claudeFile(t, queued, `{"type":"mode"}`)
	require.ErrorIs(t, err, bgagent.ErrNoSession, "a prompt in the queue is not in the conversation")
	st, err := claudeFile(t, queued, `{"type":"conversation"}`)
	require.NoError(t, err)
	require.True(t, st.Unclear, "a line of an unknown type might be the prompt")
	old := strings.Replace(asked, "2.1.332", "1.0.44", 1)
	for _, lines := range [][]string{{old}, {old, asked}, {asked, old}} {
		st, err = claudeFile(t, lines...)
		require.NoError(t, err)
		require.True(t, st.Unclear, "that version might have continued the session under another id")
	}
}

func TestWhatCodexStores(t *testing.T) {
	const (
		meta   = `{"type":"session_meta","payload":{"id":"x","cwd":"/src"}}`
		begun  = `{"type":"event_msg","payload":{"type":"task_started"}}`
		around = `{"type":"response_item","payload":{"type":"message","role":"user","content":[{"type":"input_text","text":"<environment_context>\n"}]}}`
		asked  = `{"type":"response_item","payload":{"type":"message","role":"user","content":[{"type":"input_text","text":"do it"}]}}`
		event  = `{"type":"event_msg","payload":{"type":"item_completed","item":{"type":"UserMessage","content":[{"type":"text","text":"do it"}]}}}`
		older  = `{"type":"event_msg","payload":{"type":"user_message","message":"do it"}}`
		text   = `{"type":"response_item","payload":{"type":"message","role":"assistant","content":[{"type":"output_text","text":"all done"}]}}`
		call   = `{"type":"response_item","payload":{"type":"function_call","name":"exec_command"}}`
		broke  = `{"type":"event_msg","payload":{"type":"error","message":"400"}}`
		ended  = `{"type":"event_msg","payload":{"type":"task_complete","last_agent_message":"all done"}}`
		empty  = `{"type":"event_msg","payload":{"type":"task_complete","last_agent_message":null}}`
	)
	for name, x := range map[string]struct {
		lines   []string
		ends    bool
		unclear bool
	}{
		"answered":                    {[]string{meta, begun, around, asked, event, text, ended}, true, false},
		"answered, older":             {[]string{meta, begun, asked, older, text, ended}, true, false},
		"without an end":              {[]string{meta, begun, asked, event, text}, false, false},
		"a call after the text":       {[]string{meta, begun, asked, event, text, call, ended}, false, false},
		"an error after the text":     {[]string{meta, begun, asked, event, text, broke, ended}, false, false},
		"no message":                  {[]string{meta, begun, asked, event, empty}, false, false},
		"no first line":               {[]string{begun, asked, event}, false, true},
		"a message without its event": {[]string{meta, begun, asked}, false, true},
	} {
		st, err := storings["codex"].put(t, []byte(strings.Join(x.lines, "\n")+"\n"))()
		require.NoError(t, err, name)
		require.Equal(t, x.ends, st.Ended, name)
		require.Equal(t, x.unclear, st.Unclear, name)
	}
}

func TestAThreadWithoutAnIDIsMissingOnlyIfNoneHasThePrompt(t *testing.T) {
	s := storings["codex"]
	home := tempdir.New(t)
	path := filepath.Join(home, filepath.FromSlash(s.path))
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
	require.NoError(t, os.WriteFile(path, s.recorded(t), 0o600))
	for prompt, missing := range map[string]bool{s.first: false, "another prompt": true, "@say again": true} {
		_, err := lookCodex(t.Context(), Lookup{Prompt: prompt, Directory: "/src", Env: []string{"HOME=" + home}})
		require.Equal(t, missing, errors.Is(err, bgagent.ErrNoSession), "%q: %v", prompt, err)
		require.Error(t, err)
	}
	for _, dir := range []string{"/elsewhere", "src/", "/link/to/src"} { // codex stores the path with links resolved, and a command-line argument can select another directory
		_, err := lookCodex(t.Context(), Lookup{Prompt: s.first, Directory: dir, Env: []string{"HOME=" + home}})
		require.ErrorContains(t, err, "has the same prompt", dir)
	}
	_, err := lookCodex(t.Context(), Lookup{Env: []string{"HOME=" + home}})
	require.NotErrorIs(t, err, bgagent.ErrNoSession, "an empty prompt cannot be found")
}

func TestAThreadThatIsNotUnderstoodMayHaveThePrompt(t *testing.T) {
	const (
		meta   = `{"type":"session_meta","payload":{"id":"x","cwd":"/src"}}`
		begun  = `{"type":"event_msg","payload":{"type":"task_started"}}`
		around = `{"type":"response_item","payload":{"type":"message","role":"user","content":[{"type":"input_text","text":"<environment_context>\n"}]}}`
		asked  = `{"type":"response_item","payload":{"type":"message","role":"user","content":[{"type":"input_text","text":"do it"}]}}`
		other  = `{"type":"event_msg","payload":{"type":"user_message","message":"do something else"}}`
		text   = `{"type":"response_item","payload":{"type":"message","role":"assistant","content":[{"type":"output_text","text":"all done"}]}}`
	)
	lines := func(list ...string) string { return strings.Join(list, "\n") + "\n" }
	began := time.Now()
	for name, x := range map[string]struct {
		text    string
		file    string
		age     time.Duration // age of the file when the turn began
		missing bool
	}{
		"another prompt":                          {text: lines(meta, begun, other), missing: true},
		"no prompt yet":                           {text: lines(meta, begun, around), missing: true},
		"killed before the event":                 {text: lines(meta, begun, around, asked)},
		"of an unknown format":                    {text: lines(meta, begun, `{"type":"event_msg","payload":{"type":"user_turn","text":"do it"}}`)},
		"of an unknown format, with an answer":    {text: lines(meta, begun, text)},
		"another message, of codex or of a user":  {text: lines(meta, begun, strings.Replace(asked, "do it", "<new_context>", 1))},
		"a cut line":                              {text: lines(meta, begun) + `{"type":"event_msg","payl`},
		"an empty file":                           {text: "", missing: true},
		"no first line":                           {text: lines(begun)},
		"no JSON":                                 {text: lines(meta, "\x00\x00")},
		"a compressed file":                       {text: "x", file: "rollout-2026-11-29T05-47-36-x.jsonl.zst"},
		"a cut line, long before the turn":        {text: lines(meta) + `{"type":`, age: 48 * time.Hour, missing: true},
		"an unknown format, long before the turn": {text: "x", file: "rollout.db", age: 48 * time.Hour, missing: true},
		"the prompt, long before the turn":        {text: lines(meta, begun, asked), age: 48 * time.Hour},
	} {
		home := tempdir.New(t)
		path := filepath.Join(home, ".codex/sessions/2026/11/29", cmp.Or(x.file, "rollout-2026-11-29T05-47-36-x.jsonl"))
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, []byte(x.text), 0o600))
		require.NoError(t, os.Chtimes(path, began.Add(-x.age), began.Add(-x.age)))
		for _, began := range []time.Time{began, {}} {
			_, err := lookCodex(t.Context(), Lookup{Prompt: "do it", Began: began, Env: []string{"HOME=" + home}})
			require.Error(t, err, name)
			missing := x.missing && (x.age == 0 || !began.IsZero())
			require.Equal(t, missing, errors.Is(err, bgagent.ErrNoSession), "%s, begun %v: %v", name, began, err)
		}
	}
}

func TestNothingIsMissingIfAnotherExecutableRunsTheProgram(t *testing.T) {
	home := tempdir.New(t)
	require.NoError(t, os.Mkdir(filepath.Join(home, ".claude"), 0o700))
	for _, x := range []struct {
		command []string
		state   bgagent.PromptState
	}{
		{nil, bgagent.PromptMissing},
		{[]string{"/opt/claude-2/bin/claude"}, bgagent.PromptMissing},
		{[]string{"npx", "-y", "@anthropic-ai/claude-code@2"}, bgagent.PromptMissing},
		{[]string{"node", "/opt/claude-code/cli.js"}, bgagent.PromptMissing},
		{[]string{"ssh", "box", "claude"}, bgagent.PromptUnknown},
		{[]string{"docker", "exec", "-i", "box", "claude"}, bgagent.PromptUnknown},
		{[]string{"sudo", "-u", "claude", "claude"}, bgagent.PromptUnknown},
		{[]string{"env", "HOME=/elsewhere", "claude"}, bgagent.PromptUnknown},
		{[]string{"/opt/bin/claude-in-box"}, bgagent.PromptUnknown},
		{[]string{"/opt/bin/claude.sh"}, bgagent.PromptUnknown},
		{[]string{"npx", "run-in-box"}, bgagent.PromptUnknown},
	} {
		c := clientOf(t, Agent{Program: Claude(), Command: x.command, Env: []string{"HOME=" + home}})
		state, _, err := c.RestoreSession(t.Context(), asks("do it", saved{}))
		require.Equal(t, x.state, state, x.command)
		require.NotErrorIs(t, err, bgagent.ErrNoSession, x.command)
		require.Equal(t, x.state == bgagent.PromptMissing, err == nil, x.command)
	}
}

func TestASessionInFilesOfAnotherPlaceLacksNoPrompt(t *testing.T) {
	for prompt, states := range map[string][2]bgagent.PromptState{
		"first":   {bgagent.PromptInterrupted, bgagent.PromptInterrupted},
		"missing": {bgagent.PromptMissing, bgagent.PromptUnknown},
	} {
		for i, command := range []string{"codex", "docker"} {
			st, err := here("codex", func(context.Context, Lookup) (Stored, error) {
				return Stored{Prompts: []string{"first"}}, nil
			})(t.Context(), Lookup{Command: []string{command}})
			require.NoError(t, err)
			earlier := []sent{{ID: "1", Hash: hashOf("first")}}
			if prompt == "first" {
				earlier = nil
			}
			state, _ := st.state(prompt, earlier)
			require.Equal(t, states[i], state, "%s: %s", command, prompt)
		}
	}
}

func TestWhatOpencodeStores(t *testing.T) {
	const id = "ses_dda273525ffeGh6q6g3XoFLm6c"
	export, err := os.ReadFile("testdata/stored/opencode.json")
	require.NoError(t, err)
	list := `[{"id":"` + id + `","title":"chosen"},{"id":"ses_2","title":"other"}]`
	fails := error(nil)
	run := func(_ context.Context, args ...string) ([]byte, error) {
		if args[0] == "session" {
			return []byte(list), fails
		}
		require.Equal(t, []string{"export", id}, args)
		return export, fails
	}
	l := Lookup{Chosen: "chosen", Directory: "/src", Run: run}
	st, err := lookOpencode(t.Context(), l)
	require.NoError(t, err)
	require.Equal(t, id, st.Session)
	require.Len(t, st.Prompts, 2)
	require.Equal(t, "@say again\n", st.Prompts[1])
	require.True(t, st.Ended)
	require.Equal(t, bgagent.TurnEnd{Stop: bgagent.StopEndOfTurn, Text: "again", Usage: bgagent.Usage{InputTokens: 7398, OutputTokens: 2}}, st.End)

	for _, bad := range []string{`"finish": "length"`, `"finish": "tool-calls"`} { // the last message is not an answer
		cut := strings.LastIndex(string(export), `"finish": "stop"`)
		broken := string(export[:cut]) + bad + string(export[cut+len(`"finish": "stop"`):])
		st, err = readExport(id, []byte(broken))
		require.NoError(t, err)
		require.False(t, st.Ended)
	}
	for _, bad := range []string{"", "{}", `{"info":{"id":"ses_2"},"messages":[]}`, `{"info":{"id":"` + id + `"}}`} {
		_, err = readExport(id, []byte(bad))
		require.ErrorContains(t, err, "not understood")
	}
	for text, missing := range map[string]bool{"": true, "[]": true, `[{"id":"s","title":"x"}]`: true, "{}": false, `[{"title":"x"}]`: false, "Sessions:": false} {
		list = text
		_, err = lookOpencode(t.Context(), l)
		require.Equal(t, missing, errors.Is(err, bgagent.ErrNoSession), text)
		require.Error(t, err)
	}
	fails = errors.New("it exited with code 1: Error: Session not found: " + id)
	_, err = lookOpencode(t.Context(), Lookup{Session: id, Run: run})
	require.ErrorIs(t, err, bgagent.ErrNoSession)
	fails = errors.New("it exited with code 1: database is locked")
	_, err = lookOpencode(t.Context(), Lookup{Session: id, Run: run})
	require.NotErrorIs(t, err, bgagent.ErrNoSession)
	_, err = lookOpencode(t.Context(), Lookup{Chosen: "chosen", Run: run})
	require.ErrorContains(t, err, "its working directory is not known")
	fails, list = nil, `[{"id":"--help","title":"chosen"}]`
	for _, l := range []Lookup{l, {Session: "--help", Run: run}, {Session: "-", Run: run}} {
		_, err = lookOpencode(t.Context(), l)
		require.ErrorIs(t, err, errName)
	}
}

func FuzzStored(f *testing.F) {
	for _, s := range storings {
		f.Add(s.recorded(f))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for name, s := range storings {
			st, err := s.put(t, data)()
			if err == nil && st.Ended && (len(st.Prompts) == 0 && name != "claude" && name != "codex" || st.End.Text == "") {
				t.Errorf("%s: an end without an answer: %+v", name, st)
			}
		}
		_, _ = readExport("x", data)
	})
}
