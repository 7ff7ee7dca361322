package jsonlines

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"
)

// wrappings are formats that surround an object with noise. %s stands for the object.
var wrappings = []string{
	"%s\n", "%s\r\n", "\ufeff%s\n", " \t%s \n", "\x1b[1;31m%s\x1b[0m\n", "\x1b]0;a title\x07%s\n", "\x1b]0;a title\x1b\\%s\x1b]0;\x07\n", "\x1bP+q\x1b\\%s\n",
	"a banner%s\n", "a banner: {%s\n", "10 %%\r20 %%\r%s\n", "\x1b[2K\r%s\n", "%s and more\n", "%s\x00\x07\n", "\x1b[%s\n", "line\n%s\nline\n", "{\"torn\":\"li%s\n",
}

// FuzzNoise checks that objects within noise are read unchanged.
func FuzzNoise(f *testing.F) {
	f.Add("text", "noise", uint64(1))
	f.Add("{\"a\":\"\\\\\"}", "{\"a\":1}", uint64(2))
	f.Add("\x1b]0;x\ufeff", "\x1b[", uint64(3))
	f.Add("}]", "{\"a\":[{\"b\":\"c", uint64(4))
	f.Fuzz(func(t *testing.T, text, noise string, seed uint64) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		noise = strings.ReplaceAll(noise, "fuzz", "")
		var want []string
		var stream bytes.Buffer
		for i := range 1 + rnd.IntN(8) {
			b, err := json.Marshal(map[string]any{"fuzz": i, "inner": map[string]any{"s": text}, "t": []any{text, nil, 1.5}})
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, string(b))
			if rnd.IntN(3) == 0 {
				stream.WriteString("\n" + noise + "\n")
			}
			fmt.Fprintf(&stream, wrappings[rnd.IntN(len(wrappings))], b)
		}
		var in io.Reader = &stream
		if rnd.IntN(2) == 0 {
			in = iotest.OneByteReader(in)
		}
		all, n := objects(t, in, Config{})
		var got []string
		for _, o := range all {
			if strings.HasPrefix(o, `{"fuzz":`) {
				got = append(got, o)
			}
		}
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("got %q, want %q", got, want)
		}
		if !utf8.ValidString(n.String()) || len(n.First) > mostShown+len("…") {
			t.Errorf("what is said of the noise: %q", n.String())
		}
	})
}

// FuzzReader checks the properties of the reader that hold for any input.
func FuzzReader(f *testing.F) {
	for _, w := range wrappings {
		f.Add([]byte(fmt.Sprintf(w, `{"a":"b","c":[1,{}]}`)), 1000)
	}
	f.Add([]byte(`{"a":"`+strings.Repeat("x", 100)+`\u00e4"}`), 50)
	f.Fuzz(func(t *testing.T, in []byte, most int) {
		if most < 1 || most > 1<<20 {
			return
		}
		all, n := objects(t, bytes.NewReader(in), Config{MaxLine: most})
		slow, m := objects(t, iotest.OneByteReader(bytes.NewReader(in)), Config{MaxLine: most})
		if strings.Join(all, "\n") != strings.Join(slow, "\n") || n != m {
			t.Errorf("read in bytes it is %q (%s) and at once %q (%s)", slow, m, all, n)
		}
		for _, o := range all {
			if !json.Valid([]byte(o)) || o[0] != '{' || len(o) > 2*most+16 {
				t.Errorf("no object: %q", o)
			}
		}
	})
}

// FuzzText checks the properties of the text functions that hold for any input.
func FuzzText(f *testing.F) {
	f.Add("a\x1b[1mb\r\n\x1b]0;x\x1b\\\x9b\u009b", 3)
	f.Fuzz(func(t *testing.T, in string, at int) {
		whole := Clean(in)
		for i, c := range []byte(whole) {
			if c < ' ' && c != '\n' && c != '\t' || c == 0x7f {
				t.Errorf("%q has %q at %d", whole, c, i)
			}
		}
		if at < 0 || at > len(in) {
			return
		}
		var c Cleaner
		if got := c.Clean(in[:at]) + c.Clean(in[at:]) + c.Rest(); got != whole {
			t.Errorf("in pieces %q, at once %q", got, whole)
		}
	})
}
