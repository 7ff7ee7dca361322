// Package mdtext builds Markdown for a model and makes untrusted text safe to insert into that
// Markdown. Inserted text cannot begin a line, and it cannot end a cell, a code span or a
// fence.
//
// This package uses package cleantext to remove characters that control a terminal. The two
// packages are separate because some output for files and terminals must be cleaned but is not
// Markdown.
package mdtext

import "strings"

// CellMax is the maximum length of a table cell in bytes.
const CellMax = 1024

// Builder builds text. The zero value is empty and ready to use.
type Builder struct{ strings.Builder }

// Line writes the parts as one line.
func (b *Builder) Line(parts ...string) {
	for _, s := range parts {
		b.WriteString(s)
	}
	b.WriteByte('\n')
}

// Field writes a line with a label and a value.
func (b *Builder) Field(label, value string) { b.Line(label, ": ", value) }

// Row writes one row of a table. The content of a cell cannot end the cell or the row.
// Row changes the cells in place.
func (b *Builder) Row(cells ...string) {
	b.safeRow(safeCells(cells))
}

// TableHead writes the head of a table and the delimiter row.
func (b *Builder) TableHead(cells ...string) {
	b.Row(cells...)
	b.WriteString("|" + strings.Repeat(" --- |", len(cells)) + "\n")
}

// Table writes the head of a table, and then writes rows until the next row would not fit. The rows
// may take at most room bytes. Table returns the number of rows that it wrote. It changes the cells
// in place.
func (b *Builder) Table(room int, head []string, rows [][]string) (shown int) {
	b.TableHead(head...)
	room += b.Len()
	for _, cells := range rows {
		long := len("|\n")
		for _, c := range safeCells(cells) {
			long += len(c) + len("  |")
		}
		if b.Len()+long > room {
			break
		}
		b.safeRow(cells)
		shown++
	}
	return shown
}

// safeRow writes a row of cells that are already safe.
func (b *Builder) safeRow(cells []string) {
	b.WriteByte('|')
	for _, c := range cells {
		b.WriteByte(' ')
		b.WriteString(c)
		b.WriteString(" |")
	}
	b.WriteByte('\n')
}

// safeCells makes cells safe in place and returns them.
func safeCells(cells []string) []string {
	for i, c := range cells {
		cells[i] = escapeCell(OneLine(c, CellMax))
	}
	return cells
}

// escapeCell escapes the bars in a cell. It doubles only the backslashes before a bar, so
// that backslashes in paths are not changed.
func escapeCell(s string) string {
	if !strings.Contains(s, "|") {
		return s
	}
	var b strings.Builder
	slashes := 0
	for i := range len(s) {
		if s[i] == '|' {
			b.WriteString(strings.Repeat(`\`, slashes) + `\`)
		}
		if s[i] == '\\' {
			slashes++
		} else {
			slashes = 0
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
