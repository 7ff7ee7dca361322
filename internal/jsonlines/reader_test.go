package jsonlines

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"
	"unicode/utf16"

	"github.com/stretchr/testify/require"
)

func objects(t testing.TB, r io.Reader, cfg Config) (all []string, n Noise) {
	t.Helper()
	in := NewReader(r, cfg)
	for {
		object, err := in.Next()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				all = append(all, "error: "+err.Error())
			}
			return all, in.Noise()
		}
		all = append(all, string(object))
	}
}

func TestObjectsAreFoundInAnyNoise(t *testing.T) {
	const a, b = `{"a":1}`, `{"b":{"c":"}"}}`
	for name, tc := range map[string]struct {
		in    string
		want  []string
		texts int
	}{
		"nothing":                           {"", nil, 0},
		"lines":                             {a + "\n\n" + b + "\r\n" + a, []string{a, b, a}, 0},
		"byte-order mark":                   {"\ufeff" + a + "\n\ufeff" + b + "\n", []string{a, b}, 0},
		"byte-order mark after a colour":    {"\x1b[0m\ufeff" + a, []string{a}, 0},
		"colours":                           {"\x1b[1;32m" + a + "\x1b[0m\n", []string{a}, 0},
		"title, ended by BEL":               {"\x1b]0;the title\x07" + a, []string{a}, 0},
		"title, ended by ST":                {"\x1b]0;the title\x1b\\" + a, []string{a}, 0},
		"title that contains an object":     {"\x1b]0;" + b + "\x07" + a, []string{a}, 0},
		"title without an end":              {"\x1b]0;the title" + a, []string{a}, 1},
		"title without an end, and then":    {"\x1b]0;x" + a + "\x1b]0;y\x07", []string{a}, 1},
		"device control":                    {"\x1bP1$r0m\x1b\\" + a, []string{a}, 0},
		"other strings":                     {"\x1b_a\x1b\\\x1b^b\x1b\\\x1bXc\x1b\\" + a, []string{a}, 0},
		"short sequences":                   {"\x1b(B\x1b7\x1bc\x1b=\x1b[?25l\x1b[>4;1m" + a, []string{a}, 0},
		"sequence cut off":                  {"\x1b[" + a + "\n\x1b" + b + "\n\x1b(" + a, []string{a, b, a}, 0},
		"sequences inside":                  {`{"a"` + "\x1b[0m" + `:1}` + "\n", []string{a}, 0},
		"control characters":                {"\x00\x08\x0e" + a + "\x04", []string{a}, 0},
		"bell inside":                       {`{"a":` + "\x07" + `1}`, []string{a}, 0},
		"progress":                          {"10 %\r20 %\r" + a + "\n", []string{a}, 2},
		"progress behind":                   {a + "\r10 %\r\n", []string{a}, 1},
		"carriage return before the end":    {a + "\r\r\n" + b, []string{a, b}, 0},
		"banner":                            {"Welcome to 1.0!" + a + "\n", []string{a}, 1},
		"banner with a brace":               {"Welcome to {x} {" + a + "\n", []string{a}, 1},
		"banner in colours":                 {"\x1b[1mWelcome\x1b[0m " + a + "\n", []string{a}, 1},
		"event stream":                      {"event: x\ndata: " + a + "\n", []string{a}, 2},
		"several":                           {a + b + " " + a + "\n", []string{a, b, a}, 0},
		"several behind a banner":           {"hello " + a + b + "\n", []string{a, b}, 1},
		"text behind":                       {a + " done\n" + b, []string{a, b}, 1},
		"text before and behind":            {"log: " + a + " done\n" + b, []string{b}, 3},
		"text between":                      {a + " and " + b + "\n", []string{a, b}, 1},
		"in quotation marks":                {"'" + a + "'\n", nil, 3},
		"list":                              {"[" + a + "," + b + "]\n", nil, 5},
		"value of a broken object":          {`{"x":` + a + "\n" + b, []string{b}, 1},
		"last value of a broken object":     {`{"x":[1,` + a + "\n" + b, []string{b}, 1},
		"only value of a broken object":     {`{"x":[` + a + "\n" + b, []string{b}, 1},
		"end of an object":                  {`x":` + a + "}\n" + b, []string{b}, 1},
		"string of a broken object":         {`{"x":"print {\"a\":1}` + "\n" + b, []string{b}, 1},
		"cut in a number and joined":        {`{"x":1` + a + "\n", []string{a}, 1},
		"cut in a string and joined":        {`{"x":"yy` + a + "\n", []string{a}, 1},
		"cut in a nested object and joined": {`{"x":[{"y":"z` + a + "\n", []string{a}, 1},
		"words of other languages":          {`{"x":NaN,"y":[-Infinity,Infinity,None,True],"z":1e5,"s":"NaN"}`, []string{`{"x":null,"y":[null,null,null,true],"z":1e5,"s":"NaN"}`}, 0},
		"control characters in a string":    {"{\"x\":\"a\tb\rc\"}", []string{`{"x":"a b c"}`}, 0},
		"characters above 127":              {"\x1b[0m" + `{"x":"naïve 日本 🎉 ` + "\ufeff\u009b\x7f" + `"}`, []string{`{"x":"naïve 日本 🎉 ` + "\ufeff\u009b\x7f" + `"}`}, 0},
		"invalid UTF-8":                     {"\xff\x80" + a + "\n", []string{a}, 1},
		"not JSON":                          {`{"x":}` + "\n" + `{'y':1}` + "\n" + `{"z":1` + "\n" + a, []string{a}, 3},
		"empty object":                      {"{}\n{ }\n", []string{"{}", "{ }"}, 0},
		"other values":                      {"1\nnull\n\"x\"\n[]\n" + a, []string{a}, 4},
		"spaces are no text":                {" \t \x1b[0m \n" + a, []string{a}, 0},
		"escaped quotes and backslashes":    {`x{"x":"\\\"{"}` + "\n", []string{`{"x":"\\\"{"}`}, 1},
		"object behind one that does not":   {"x" + a + "y" + b + "\n", []string{b}, 3},
	} {
		for how, r := range map[string]io.Reader{"at once": strings.NewReader(tc.in), "in bytes": iotest.OneByteReader(strings.NewReader(tc.in))} {
			got, n := objects(t, r, Config{})
			require.Equal(t, tc.want, got, "%s, %s", name, how)
			require.Equal(t, tc.texts, n.Texts, "%s: %s", name, n)
		}
	}
}

func TestRepeatedInputIsNoEvent(t *testing.T) {
	const end = `{"type":"end"}`
	echo := Config{Echo: "Print\n" + end + "\nin the end: " + end}
	for in, want := range map[string][]string{
		"> in the end: " + end + "\n":        nil,
		end + " is what I was told\n":        nil,
		"prompt: " + end + end + "\n":        nil,
		end + "\n":                           {end}, // a line that consists of the event is not a repetition of the input
		"\x1b[0m" + end + "\x1b[0m\r\n":      {end},
		"Welcome! " + `{"type":"x"}` + "\n":  {`{"type":"x"}`},
		`{"type":"text","text":"{\"type\": `: nil,
	} {
		got, _ := objects(t, strings.NewReader(in), echo)
		require.Equal(t, want, got, in)
	}
}

func TestLongLinesAreBounded(t *testing.T) {
	long := strings.Repeat("x", 100_000)
	const after = `{"after":1}`
	cut := func(text string, n int) string { return fmt.Sprintf("%s [cut: %d more bytes]", text[:n], len(text)-n) }
	lines, escapes, chars := strings.Repeat(`\n`, 50_000), strings.Repeat(`\u00e4`, 20_000)+`\"`, strings.Repeat("日", 40_000)
	for name, tc := range map[string]struct {
		in      string
		most    int
		want    []string
		dropped int
	}{
		"that fits":         {`{"x":"` + long + `"}` + "\n" + after, 200_000, []string{`{"x":"` + long + `"}`, after}, 0},
		"a long string":     {`{"x":"` + long + `","type":"y"}` + "\n" + after, 16_000, []string{`{"x":"` + cut(long, 2000) + `","type":"y"}`, after}, 0},
		"long strings":      {`{"x":"` + long + `","y":["` + long + `"]}` + "\n" + after, 16_000, []string{`{"x":"` + cut(long, 2000) + `","y":["` + cut(long, 2000) + `"]}`, after}, 0},
		"long and short":    {`{"x":"` + long + `","y":"` + long[:2000] + `"}` + "\n" + after, 16_000, []string{`{"x":"` + cut(long, 2000) + `","y":"` + long[:2000] + `"}`, after}, 0},
		"escapes":           {`{"x":"` + lines + `"}` + "\n" + after, 8_008, []string{`{"x":"` + cut(lines, 1002) + `"}`, after}, 0},
		"unicode escapes":   {`{"x":"` + escapes + `"}` + "\n" + after, 8_000, []string{`{"x":"` + cut(escapes, 1002) + `"}`, after}, 0},
		"characters":        {`{"x":"` + chars + `"}` + "\n" + after, 8_000, []string{`{"x":"` + cut(chars, 1002) + `"}`, after}, 0},
		"text":              {long + "\n" + after + "\n" + long, 50_000, []string{after}, 2},
		"too many things":   {`{"x":[` + strings.Repeat("1,", 50_000) + `1]}` + "\n" + after, 50_000, []string{after}, 1},
		"just too long":     {strings.Repeat("y", 101) + "\n" + after, 100, []string{after}, 1},
		"only a little cut": {`{"x":"` + long[:95] + `"}` + "\n" + after, 100, []string{`{"x":"` + cut(long[:95], 12) + `"}`, after}, 0},
	} {
		for how, r := range map[string]io.Reader{"at once": strings.NewReader(tc.in), "in bytes": iotest.OneByteReader(strings.NewReader(tc.in))} {
			got, n := objects(t, r, Config{MaxLine: tc.most})
			require.Equal(t, tc.want, got, "%s, %s", name, how)
			require.Equal(t, tc.dropped, n.Dropped, "%s, %s", name, how)
		}
	}
}

// endless is a reader that repeats the same text forever, without newlines.
type endless string

func (e endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = e[i%len(e)]
	}
	return len(p), nil
}

func TestOutputWithoutAnyObjectIsGivenUp(t *testing.T) {
	for name, r := range map[string]io.Reader{
		"a line without an end":   endless("0"),
		"a string without an end": io.MultiReader(strings.NewReader(`{"x":"`), endless("0")),
		"garbage":                 endless("garbage\n"),
		"objects":                 endless(`{"x":1}` + "\n"),
	} {
		in := NewReader(r, Config{MaxNoise: 10_000, MaxLine: 50_000})
		var err error
		for err == nil {
			var object []byte
			if object, err = in.Next(); err == nil {
				in.Reject(object)
			}
		}
		require.ErrorIs(t, err, ErrNoise, name)
		require.True(t, in.Noise().Any(), name)
	}
	in := NewReader(io.LimitReader(io.MultiReader(strings.NewReader("{}\n"), endless("garbage\n")), 100_000), Config{MaxNoise: 10_000})
	_, err := in.Next()
	require.NoError(t, err)
	_, err = in.Next()
	require.ErrorIs(t, err, io.EOF, "output with an object that was understood is not given up")
}

func TestTheTimeForALineIsLinearInItsLength(t *testing.T) {
	const n = 1 << 18 // a reader with quadratic run time would take hours
	began := time.Now()
	for _, piece := range []string{`{"a":`, `,{"`, "{", `":[{"`, `x{"a":1}`, "\x1b]", "\r{\"", "{ ", `{"a":"`} {
		_, _ = objects(t, strings.NewReader(strings.Repeat(piece, n)), Config{Echo: strings.Repeat("x{", 1<<16)})
	}
	require.Less(t, time.Since(began), 5*time.Minute)
}

func TestNoiseSaysHowMuchAndWhatFirst(t *testing.T) {
	in := NewReader(strings.NewReader("\x1b[31mWarning:\tolé\x1b[0m\x07 \xff\n"+strings.Repeat("x", 1000)+"\n"+`{"a":1}`+"\n"), Config{})
	object, err := in.Next()
	require.NoError(t, err)
	require.Equal(t, `2 lines were not understood, the first: "Warning: olé �"`, in.Noise().String())
	in.Reject(object)
	in.Reject(object)
	require.Equal(t, 3, in.Noise().Texts, "an object is rejected once")

	_, n := objects(t, strings.NewReader(strings.Repeat("日", 1000)), Config{})
	require.Equal(t, `1 line was not understood, the first: "`+strings.Repeat("日", 33)+`…"`, n.String())
	_, n = objects(t, strings.NewReader(strings.Repeat("x", 1000)), Config{MaxLine: 10})
	require.Equal(t, "1 line was too long to be read", n.String())
	require.Empty(t, Noise{}.String())
	require.False(t, Noise{}.Any())
}

func TestSkippedIsCalledWithEachText(t *testing.T) {
	var skipped []string
	_, _ = objects(t, strings.NewReader("one\n{\"id\":1,\"result\":{]}\nlog: {} x\n"), Config{Skipped: func(b []byte) { skipped = append(skipped, string(b)) }})
	require.Equal(t, []string{"one", `{"id":1,"result":{]}`, "log:", "{}", "x"}, skipped)
}

func TestUTF16WithAMarkIsDecoded(t *testing.T) {
	const text = "{\"x\":\"naïve 日本 🎉\"}\r\n{}\n"
	for name, order := range map[string]func(hi, lo byte) []byte{
		"little end": func(hi, lo byte) []byte { return []byte{lo, hi} },
		"big end":    func(hi, lo byte) []byte { return []byte{hi, lo} },
	} {
		b := order(0xfe, 0xff)
		for _, u := range utf16.Encode([]rune(text)) {
			b = append(b, order(byte(u>>8), byte(u))...)
		}
		for how, r := range map[string]io.Reader{"at once": bytes.NewReader(b), "in bytes": iotest.OneByteReader(bytes.NewReader(b)), "half": bytes.NewReader(append(b, 0))} {
			got, n := objects(t, r, Config{})
			require.Equal(t, []string{`{"x":"naïve 日本 🎉"}`, "{}"}, got, "%s, %s", name, how)
			require.False(t, n.Any())
		}
	}
	all, err := io.ReadAll(UTF8(strings.NewReader("\xff\xfe\x00\xd8a\x00")))
	require.NoError(t, err)
	require.Equal(t, "\ufffda", string(all), "half a pair")
	all, err = io.ReadAll(UTF8(strings.NewReader("x")))
	require.NoError(t, err)
	require.Equal(t, "x", string(all))
}

func TestTheErrorOfTheReaderIsReturned(t *testing.T) {
	broken := errors.New("broken")
	in := NewReader(io.MultiReader(strings.NewReader("{}\n{\"a\":1}"), iotest.ErrReader(broken)), Config{})
	for range 2 {
		_, err := in.Next()
		require.NoError(t, err)
	}
	for range 2 {
		_, err := in.Next()
		require.ErrorIs(t, err, broken)
	}
}

func TestAGoodLineCostsNoMemory(t *testing.T) {
	line := []byte(`{"type":"text","text":"` + strings.Repeat("x", 1000) + `"}` + "\n")
	in := NewReader(bytes.NewReader(bytes.Repeat(line, 1100)), Config{})
	_, _ = in.Next()
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		if _, err := in.Next(); err != nil {
			t.Error(err)
		}
	}))
}

func TestAnObjectIsQuotedSoThatItCanBeRead(t *testing.T) {
	for text, want := range map[string]string{
		`plain`:         `"plain"`,
		`{"a":"b"}`:     "`{\"a\":\"b\"}`",
		"{\"a\":\"`\"}": `"{\"a\":\"` + "`" + `\"}"`,
	} {
		require.Equal(t, want, Noise{First: text}.Quoted())
	}
}

func TestTheBeginningOfADroppedLineIsPassedOn(t *testing.T) {
	var got []string
	in := `{"a":1}` + "\n" + `{"id":"x","list":[` + strings.Repeat("1,", 100) + "1]}\n" + `{"id":"` + strings.Repeat("y", 200) + `","list":[` + strings.Repeat("1,", 5000) + "1]}\n{}\n"
	r := NewReader(strings.NewReader(in), Config{MaxLine: 100, Dropped: func(beginning []byte) { got = append(got, string(beginning[:min(25, len(beginning))])) }})
	for _, want := range []string{`{"a":1}`, "{}"} {
		object, err := r.Next()
		require.NoError(t, err)
		require.Equal(t, want, string(object))
	}
	_, err := r.Next()
	require.Equal(t, io.EOF, err)
	require.Equal(t, []string{`{"id":"x","list":[1,1,1,1`, `{"id":"yyyyyyyyyyyy`}, got, "each line once")
	require.Equal(t, 2, r.Noise().Dropped)
}
