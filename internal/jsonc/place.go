package jsonc

import (
	"bytes"
	"slices"
	"sort"
	"unicode/utf8"
)

// Origin is the place in a file where a name or a value begins.
type Origin struct {
	File         string
	Line, Column int // counted from 1; Column counts characters
}

// file holds the data that all values of a file share.
type file struct {
	name  string
	lines lines
	fail  ErrorFunc
}

func (f *file) origin(offset int) Origin {
	line, column := f.lines.place(offset)
	return Origin{f.name, line, column}
}

// blockSize is the number of bytes in a block. To find a column, at most two blocks are read. If characters
// were counted from the beginning of the line, a file with many values in one long line would take minutes.
const blockSize = 1 << 10

// The type "lines" converts offsets to lines and columns.
type lines struct {
	data   []byte
	begin  []int // offset of each line
	blocks []int // number of characters before each block
}

func newLines(data []byte) lines {
	l := lines{data: data, begin: []int{0}}
	for at := 0; ; {
		n := bytes.IndexByte(data[at:], '\n')
		if n < 0 {
			break
		}
		at += n + 1
		l.begin = append(l.begin, at)
	}
	chars := 0
	for block := range slices.Chunk(data, blockSize) {
		l.blocks = append(l.blocks, chars)
		chars += runeStarts(block)
	}
	l.blocks = append(l.blocks, chars)
	return l
}

// The method "place" returns the line and the column of an offset. All data before the offset must
// be valid UTF-8.
func (l *lines) place(offset int) (line, column int) {
	offset = max(0, min(offset, len(l.data)))
	line = sort.SearchInts(l.begin, offset+1)
	return line, l.before(offset) - l.before(l.begin[line-1]) + 1
}

// The method "before" returns the number of characters that begin before the offset.
func (l *lines) before(offset int) int {
	block := offset / blockSize
	return l.blocks[min(block, len(l.blocks)-1)] + runeStarts(l.data[block*blockSize:offset])
}

func runeStarts(b []byte) (n int) {
	for _, c := range b {
		if utf8.RuneStart(c) {
			n++
		}
	}
	return n
}

// offsetOf returns the offset of a place. Unlike in [Origin], the column counts bytes. For line 0, the offset
// is 0.
func offsetOf(b []byte, line, column int) int {
	at := 0
	for ; line > 1; line-- {
		n := bytes.IndexByte(b[at:], '\n')
		if n < 0 {
			return len(b)
		}
		at += n + 1
	}
	return min(at+max(column-1, 0), len(b))
}
