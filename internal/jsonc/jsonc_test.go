package jsonc

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// problem is an example of an error type that a caller might define.
type problem struct {
	at   Origin
	key  string
	text string
}

func (p *problem) Error() string { return p.text }

func parse(data string) (Value, error) {
	return Parse("f", []byte(data), func(at Origin, key, text string) error { return &problem{at, key, text} })
}

func TestPlacesAreCountedInCharacters(t *testing.T) {
	_, err := parse("{\n\"ü\": [\"→\", tru]\n}")
	var e *problem
	require.ErrorAs(t, err, &e)
	require.Equal(t, Origin{"f", 2, 12}, e.at)

	for _, mark := range []string{"", byteOrderMark} {
		v, err := parse(mark + "{\n\"ü\": [\"→\", true], // ö\n\"b\": {}}")
		require.NoError(t, err)
		members, ok := v.Members()
		require.True(t, ok)
		require.Equal(t, Origin{"f", 2, 1}, members[0].At())
		list, ok := members[0].Value.Elements()
		require.True(t, ok)
		require.Equal(t, Origin{"f", 2, 12}, list[1].Origin())
		require.Equal(t, `["→",true]`, members[0].Value.String())
		require.Equal(t, Origin{"f", 3, 6}, members[1].Value.Origin())
		require.Equal(t, Origin{"f", 1, 1}, v.Origin(), "the mark takes no column")
	}
}

func TestPlacesOnALongLineAreFoundFromAnyBlock(t *testing.T) {
	v, err := parse(" [" + strings.Repeat(`"→ü", `, 3*blockSize) + "\n" + strings.Repeat(`"a", `, blockSize) + "]")
	require.NoError(t, err)
	list, _ := v.Elements()
	require.Len(t, list, 4*blockSize)
	for i, e := range list[:3*blockSize] {
		require.Equal(t, Origin{"f", 1, 3 + 6*i}, e.Origin())
	}
	for i, e := range list[3*blockSize:] {
		require.Equal(t, Origin{"f", 2, 1 + 5*i}, e.Origin())
	}
}

func TestACarriageReturnAloneEndsALine(t *testing.T) {
	for _, end := range []string{"\n", "\r\n", "\r"} {
		data := []byte(strings.ReplaceAll("// first\n{\n\"a\": 1, // limit\n\"b\": /* x\ny */ 2 // last\n}\n", "\n", end))
		before := bytes.Clone(data)
		v, err := Parse("f", data, nil)
		require.NoError(t, err, "%q", end)
		members, _ := v.Members()
		require.Len(t, members, 2, "a comment ends with its line: %q", end)
		require.Equal(t, Origin{"f", 4, 1}, members[1].At(), "%q", end)
		require.Equal(t, Origin{"f", 5, 6}, members[1].Value.Origin(), "%q", end)
		require.Equal(t, before, data, "the bytes of the caller are not changed")
	}
	_, err := parse("{\"a\": \"x\ry\"}")
	require.Error(t, err, "a string cannot contain a newline")
}

func TestErrorsAreThoseOfTheCaller(t *testing.T) {
	v, err := parse(`{"a": 1}`)
	require.NoError(t, err)
	members, _ := v.Members()
	require.Equal(t, &problem{Origin{"f", 1, 2}, "k", "is x"}, members[0].Errorf("k", "is %s", "x"))
	require.Equal(t, &problem{Origin{"f", 1, 7}, "k", "is x"}, members[0].Value.Errorf("k", "is %s", "x"))
}

func TestBracketsThatStandTooDeepAreRefused(t *testing.T) {
	_, err := parse(strings.Repeat("[", MaxDepth) + strings.Repeat("]", MaxDepth))
	require.NoError(t, err)
	_, err = parse(strings.Repeat("[", MaxDepth+1) + strings.Repeat("]", MaxDepth+1))
	require.EqualError(t, err, fmt.Sprintf("is nested more than %d levels deep", MaxDepth))
}

func TestValuesAreNamed(t *testing.T) {
	for text, want := range map[string]string{"{}": "an object", "[]": "a list", `"\u0061"`: `the string "a"`, "1e3": "the number 1e3", "null": "null", "true": "true"} {
		v, err := parse(text)
		require.NoError(t, err)
		require.Equal(t, want, v.Describe())
	}
}

func TestKeysAreQuotedWhereTheyMustBe(t *testing.T) {
	for name, want := range map[string]string{"a-b_1": "p.a-b_1", "$schema": "p.$schema", "a b": `p["a b"]`, "": `p[""]`, "ü": `p["ü"]`, "a.b": `p["a.b"]`, "{": `p["{"]`} {
		require.Equal(t, want, Key("p", name))
	}
	require.Equal(t, `["`+strings.Repeat("a", 120)+`"]`, Key("", strings.Repeat("a", 200)))
}

// FuzzParse checks that a parsed value is the same after it is written and parsed again, and
// that all places are within the file.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"", "{}", "//", "[[", "{\"a\": null,}", "\ufeff{}", "{\"\xff\": 1}", "/* [ */ {}", "[1, // ö\r\n\"→\", {\"b\": [tru]}]",
		"\ufeff\ufeff{}", "{\"a\": \"\\u2028\", \"a\": [1e3, -0.5]}", "'", "{\n\"a: 1}", "\xff\xfe{", "{} /* a", "[1] 2", "{//\r\"a\": 1}\r", "\r\r\n{}",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := parse(string(data))
		text := bytes.TrimPrefix(data, []byte(byteOrderMark))
		all := bytes.Split(oneLineEnd(text), []byte("\n"))
		inFile := func(at Origin) {
			require.True(t, 1 <= at.Line && at.Line <= len(all), "%v", at)
			require.True(t, 1 <= at.Column && at.Column <= 1+utf8.RuneCount(all[at.Line-1]), "%v", at)
		}
		if err != nil {
			p := err.(*problem)
			inFile(p.at)
			require.NotContains(t, p.text, "\n", "an error is one line")
			return
		}
		walk(v, func(at Origin) { inFile(at) })
		again, err := parse(v.String())
		require.NoError(t, err, v.String())
		require.Equal(t, v.String(), again.String())
		require.NotContains(t, v.Describe(), "\n")
	})
}

func walk(v Value, f func(Origin)) {
	f(v.Origin())
	members, _ := v.Members()
	for _, m := range members {
		f(m.At())
		walk(m.Value, f)
	}
	elements, _ := v.Elements()
	for _, e := range elements {
		walk(e, f)
	}
}
