package main

import (
	"fmt"
	"html"
	"strconv"
	"strings"
	"unicode/utf8"
)

// cell is one character position of a screen.
type cell struct {
	char  rune
	style string // parameters of the escape sequence for its colour
}

// screen emulates a terminal. It handles only the escape sequences that the table uses.
type screen struct {
	cols     int
	cells    [][]cell
	row, col int
	style    string
}

// screenOf returns a screen to which the output has been written.
func screenOf(out string, cols int) *screen {
	s := &screen{cols: cols}
	for len(out) > 0 {
		if strings.HasPrefix(out, "\x1b[") {
			end := strings.IndexFunc(out[2:], func(r rune) bool { return r >= '@' && r <= '~' })
			if end < 0 {
				break // the rest of the escape sequence has not been printed yet
			}
			s.control(out[2:2+end], out[2+end])
			out = out[3+end:]
			continue
		}
		if rest, ok := strings.CutPrefix(out, "\x1bM"); ok { // one line up
			s.row, out = max(s.row-1, 0), rest
			continue
		}
		if out == "\x1b" {
			break // the escape sequence is incomplete
		}
		r, size := utf8.DecodeRuneInString(out)
		out = out[size:]
		switch {
		case r == '\n':
			s.row++
		case r == '\r':
			s.col = 0
		case r == '\b':
			s.col = max(s.col-1, 0)
		case r >= ' ':
			s.put(r)
		}
	}
	return s
}

func (s *screen) line() []cell {
	for len(s.cells) <= s.row {
		s.cells = append(s.cells, []cell(nil))
	}
	for len(s.cells[s.row]) < s.cols {
		s.cells[s.row] = append(s.cells[s.row], cell{char: ' '})
	}
	return s.cells[s.row]
}

func (s *screen) put(r rune) {
	if s.col >= s.cols {
		s.row, s.col = s.row+1, 0
	}
	s.line()[s.col] = cell{r, s.style}
	s.col++
}

// The method "control" executes an escape sequence.
func (s *screen) control(parameters string, what byte) {
	first, _, _ := strings.Cut(parameters, ";")
	n, err := strconv.Atoi(first)
	if err != nil {
		n = 1
	}
	switch what {
	case 'A':
		s.row = max(s.row-n, 0)
	case 'B':
		s.row += n
	case 'C':
		s.col = min(s.col+n, s.cols-1)
	case 'D':
		s.col = max(s.col-n, 0)
	case 'G':
		s.col = n - 1
	case 'K':
		clear(s.blanks(s.col, s.cols))
	case 'X':
		clear(s.blanks(s.col, min(s.col+n, s.cols)))
	case 'P':
		line := s.line()
		copy(line[s.col:], line[min(s.col+n, s.cols):])
		clear(line[max(s.cols-n, s.col):])
	case '@':
		line := s.line()
		copy(line[min(s.col+n, s.cols):], line[s.col:])
		clear(line[s.col:min(s.col+n, s.cols)])
	case 'J':
		clear(s.blanks(s.col, s.cols))
		s.cells = s.cells[:s.row+1]
	case 'b':
		char := s.line()[s.col-1].char
		for range n {
			s.put(char)
		}
	case 'm':
		s.style = parameters
	}
}

// The method "blanks" returns the cells of the current line between two columns. The caller clears them.
func (s *screen) blanks(from, to int) []cell { return s.line()[from:to] }

// String returns the lines of the screen without trailing blanks.
func (s *screen) String() string {
	var b strings.Builder
	for _, line := range s.cells {
		text := ""
		for _, c := range line {
			text += string(max(c.char, ' '))
		}
		b.WriteString(strings.TrimRight(text, " ") + "\n")
	}
	return b.String()
}

// The method "from" returns the part of the screen that starts at the first line that begins with the text.
func (s *screen) from(begin string) *screen {
	for i, line := range strings.Split(s.String(), "\n") {
		if strings.HasPrefix(line, begin) {
			return &screen{cols: s.cols, cells: s.cells[i:]}
		}
	}
	return s
}

// colours maps the parameters of an escape sequence to a colour in the picture.
var colours = map[string]string{"2": "#8b949e", "31": "#f47067", "32": "#57ab5a", "33": "#daaa3f", "36": "#39c5cf"}

// svg returns a picture of the screen, below a line with the command.
func (s *screen) svg(command string) string {
	const width, height, left, top = 8.4, 18, 12.0, 26
	var b strings.Builder
	rows := strings.Count(strings.TrimRight(s.String(), "\n"), "\n") + 1
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%.0f" height="%d" role="img" aria-label="%s in a terminal of %d columns"><rect width="100%%" height="100%%" rx="8" fill="#1c2128"/><g font-family="ui-monospace,SFMono-Regular,Menlo,Consolas,DejaVu Sans Mono,monospace" font-size="14" fill="#cdd9e5" xml:space="preserve">`+"\n", float64(s.cols)*width+2*left, (rows+1)*height+24, command, s.cols)
	text := func(row, col int, style, text string) {
		fill := ""
		if c := colours[style]; c != "" {
			fill = ` fill="` + c + `"`
		}
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" textLength="%.1f"%s>%s</text>`+"\n", left+float64(col)*width, top+row*height, float64(utf8.RuneCountInString(text))*width, fill, html.EscapeString(strings.ReplaceAll(text, " ", "\u00a0"))) // browsers collapse several blanks into one
	}
	text(0, 0, "", "$ "+command)
	for row, line := range s.cells[:rows] {
		for col := 0; col < len(line); {
			end := col + 1
			for end < len(line) && line[end].style == line[col].style {
				end++
			}
			part := ""
			for _, c := range line[col:end] {
				part += string(max(c.char, ' '))
			}
			blanks := len(part) - len(strings.TrimLeft(part, " "))
			if part = strings.TrimSpace(part); part != "" {
				text(row+1, col+blanks, line[col].style, part)
			}
			col = end
		}
	}
	return b.String() + "</g></svg>\n"
}
