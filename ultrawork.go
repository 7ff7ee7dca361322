package bgagent

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// DetectUltrawork reports whether a prompt asks for ultrawork mode with the word "ultrawork" or
// "ulw". A host can then change its behaviour. The library itself does not react to these words.
//
// Case does not matter. The word must stand alone:
//
//   - If a Latin letter, digit, underscore or accent is next to the word, the word is part of
//     another word (ulwx, ulw2, my_ulw) and does not count. A letter of another script can be next
//     to the word, because many scripts do not put a space next to a foreign word: 请ulw and ulw로
//     count.
//   - If a hyphen, slash, backslash, dot or at sign joins the word to another letter or digit, the
//     word is part of a name (ulw-test, src/ulw, ultrawork.go, ulw@example.org) and does not count.
//     Elsewhere these characters are punctuation: "Go. ulw." counts.
//   - In code, the word does not count. Code is a fenced block or a code span in backquotes. A
//     fenced block that is not closed extends to the end of the prompt.
func DetectUltrawork(prompt string) bool {
	return slices.ContainsFunc(paragraphs(prompt), func(p string) bool { return hasUltrawork(withoutSpans(p)) })
}

// hasUltrawork reports whether the text, from which code has been removed, contains one of the
// words.
func hasUltrawork(text string) bool {
	lower := asciiLower(text)
	for _, word := range []string{"ultrawork", "ulw"} {
		for end := 0; ; {
			i := strings.Index(lower[end:], word)
			if i < 0 {
				break
			}
			start := end + i
			end = start + len(word)
			if !joinedBefore(text[:start]) && !joinedAfter(text[end:]) {
				return true
			}
		}
	}
	return false
}

// asciiLower returns s with all ASCII letters in lower case. Unlike strings.ToLower, it keeps the
// position of every byte.
func asciiLower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

func joinedBefore(s string) bool {
	r, n := utf8.DecodeLastRuneInString(s)
	if isJoiner(r) {
		r, _ = utf8.DecodeLastRuneInString(s[:len(s)-n])
		return inWord(r) || unicode.IsLetter(r)
	}
	return inWord(r)
}

func joinedAfter(s string) bool {
	r, n := utf8.DecodeRuneInString(s)
	if isJoiner(r) {
		r, _ = utf8.DecodeRuneInString(s[n:])
		return inWord(r) || unicode.IsLetter(r)
	}
	return inWord(r)
}

func isJoiner(r rune) bool { return strings.ContainsRune(`-/\.@`, r) }

func inWord(r rune) bool {
	return r == '_' || unicode.In(r, unicode.Latin, unicode.Nd, unicode.M)
}

// paragraphs returns the text outside fenced blocks, split at fences and empty lines. A code span
// cannot extend across a fence or an empty line.
func paragraphs(s string) []string {
	var out []string
	var text strings.Builder
	flush := func() {
		if text.Len() > 0 {
			out = append(out, text.String())
			text.Reset()
		}
	}
	fence := "" // mark of the open fence; empty if none is open
	for line := range strings.Lines(s) {
		line = strings.Trim(line, " \t\r\n>") // a fence can be indented or quoted
		mark, info := fenceMark(line)
		switch {
		case fence != "":
			if info == "" && strings.HasPrefix(mark, fence) {
				fence = ""
			}
		case mark != "" && !(mark[0] == '`' && strings.Contains(info, "`")):
			flush()
			fence = mark
		case line == "":
			flush()
		default:
			text.WriteString(line + "\n")
		}
	}
	flush()
	return out
}

// fenceMark returns the three or more backquotes or tildes at the start of a line, and the rest of
// the line without surrounding white space. If the line does not begin with a mark, both results
// are empty.
func fenceMark(line string) (mark, info string) {
	for _, c := range []string{"`", "~"} {
		info = strings.TrimLeft(line, c)
		if n := len(line) - len(info); n >= 3 {
			return line[:n], strings.TrimSpace(info)
		}
	}
	return "", ""
}

// withoutSpans replaces each code span with a space. A code span lies between two runs of
// backquotes of the same length. A run without a matching run is text.
func withoutSpans(s string) string {
	var runs [][2]int // start and end of each run
	for i := 0; i < len(s); i++ {
		if s[i] == '`' {
			end := len(s) - len(strings.TrimLeft(s[i:], "`"))
			runs = append(runs, [2]int{i, end})
			i = end
		}
	}
	next := make([]int, len(runs)) // index of the next run of the same length; 0 if there is none
	last := map[int]int{}
	for i := len(runs) - 1; i >= 0; i-- {
		n := runs[i][1] - runs[i][0]
		next[i], last[n] = last[n], i
	}
	var b strings.Builder
	at := 0
	for i := 0; i < len(runs); i++ {
		if j := next[i]; j > 0 {
			b.WriteString(s[at:runs[i][0]] + " ")
			at, i = runs[j][1], j
		}
	}
	b.WriteString(s[at:])
	return b.String()
}
