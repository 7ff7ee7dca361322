package command

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/jsonlines"
)

// fuzzDecoder checks conditions that must hold for any output of a program. For example, lines that
// are unknown to the decoder do not change anything, all text is valid UTF-8, and the answer is
// reported to the manager.
func fuzzDecoder(f *testing.F, program string) {
	files, err := filepath.Glob(filepath.Join("testdata", program+"_*.jsonl"))
	if err != nil || len(files) == 0 && program != "lines" {
		f.Fatalf("no recorded output of %s: %v", program, err)
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(`{"type":"text","text":"a"}` + "\n" + `{"type":"end"}` + "\n[]\nnull\n{"))
	f.Fuzz(func(t *testing.T, output []byte) {
		said, heard := decodeAll(decoders[program](), 1, bgagent.Usage{}, output)
		again, _ := decodeAll(decoders[program](), 1, bgagent.Usage{}, bytes.ReplaceAll(output, []byte("\n"), []byte("\nnoise\n{\"type\":\"news\"}\n\n")))
		switch {
		case said.end != nil && said.end.stop == bgagent.StopUntold:
			t.Error("an end without a reason")
		case (said.end == nil) != (again.end == nil) || said.text != again.text || said.session != again.session:
			t.Errorf("unknown lines change the meaning of the others: %+v, %+v", said, again)
		case !utf8.ValidString(said.text) || !utf8.ValidString(heard.text):
			t.Errorf("invalid UTF-8: %q, %q", said.text, heard.text)
		case !said.known && (said.end != nil || said.text != "" || said.session != "" || len(heard.events) > 0):
			t.Error("unknown lines reported something")
		case heard.usage.InputTokens < 0 || heard.usage.OutputTokens < 0 || heard.usage.Cost < 0:
			t.Errorf("negative usage: %+v", heard.usage)
		case said.end == nil && !strings.Contains(heard.all, said.text), said.end != nil && said.end.text == "" && !strings.Contains(heard.all, said.text):
			t.Errorf("the answer %q was not reported; the manager heard %q", said.text, heard.all)
		}
	})
}

func FuzzDecodeCodex(f *testing.F)    { fuzzDecoder(f, "codex") }
func FuzzDecodeGemini(f *testing.F)   { fuzzDecoder(f, "gemini") }
func FuzzDecodeOpencode(f *testing.F) { fuzzDecoder(f, "opencode") }
func FuzzDecodeClaude(f *testing.F)   { fuzzDecoder(f, "claude") }
func FuzzDecodeLines(f *testing.F)    { fuzzDecoder(f, "lines") }

// FuzzTextIsNeverLost puts two texts into messages, with or without a tool call between them.
// Both texts must be reported to the manager, and the last text must be the answer.
func FuzzTextIsNeverLost(f *testing.F) {
	f.Add("hello", "there", true)
	f.Add("a\nb", "\"{}\u2028", false)
	f.Fuzz(func(t *testing.T, one, two string, tool bool) {
		one, two = jsonlines.Clean(strings.ToValidUTF8(one, "?")), jsonlines.Clean(strings.ToValidUTF8(two, "?")) // not all characters can be kept
		line := func(v map[string]any) string {
			b, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			return string(b) + "\n"
		}
		out := line(map[string]any{"type": "item.completed", "item": map[string]any{"id": "1", "type": "agent_message", "text": one}})
		if tool {
			out += line(map[string]any{"type": "item.completed", "item": map[string]any{"id": "2", "type": "file_change"}})
		}
		out += line(map[string]any{"type": "item.completed", "item": map[string]any{"id": "3", "type": "agent_message", "text": two}})
		out += line(map[string]any{"type": "turn.completed"})
		said, heard := decodeAll(decodeCodex(), 1, bgagent.Usage{}, []byte(out))
		want := two
		if two == "" {
			want = one
		}
		switch {
		case len(out) > 1<<20: // decodeAll drops lines of this length
		case said.text != want:
			t.Errorf("the answer is %q and should be %q", said.text, want)
		case !strings.Contains(heard.all, one) || !strings.Contains(heard.all, two):
			t.Errorf("the manager heard %q of %q and %q", heard.all, one, two)
		}
	})
}
