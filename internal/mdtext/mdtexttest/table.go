// Package mdtexttest parses tables written by package mdtext.
package mdtexttest

import "strings"

// ParseTable returns the rows of the first table in s. As in Markdown, a bar ends a cell
// unless it follows an odd number of backslashes.
func ParseTable(s string) (rows [][]string) {
	for l := range strings.Lines(s) {
		l = strings.TrimSuffix(l, "\n")
		if !strings.HasPrefix(l, "|") {
			if rows != nil {
				break
			}
			continue
		}
		var row []string
		var cell strings.Builder
		slashes := 0
		for i := 1; i < len(l); i++ {
			switch c := l[i]; {
			case c == '\\':
				slashes++
				continue
			case c == '|':
				cell.WriteString(strings.Repeat(`\`, slashes/2))
				if slashes%2 == 1 {
					cell.WriteByte('|')
				} else {
					row = append(row, strings.TrimSpace(cell.String()))
					cell.Reset()
				}
			default:
				cell.WriteString(strings.Repeat(`\`, slashes))
				cell.WriteByte(c)
			}
			slashes = 0
		}
		rows = append(rows, row)
	}
	return rows
}
