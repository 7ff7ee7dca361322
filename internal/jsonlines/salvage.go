package jsonlines

import (
	"bytes"
	"encoding/json"
)

// part is an object or a piece of text in a line.
type part struct {
	bytes  []byte
	object bool // whether the part is an object
}

// salvage finds the objects in a line that is not a single object.
func (r *Reader) salvage(line []byte) {
	var s stripper
	r.clean = s.flush(s.append(r.clean[:0], line))
	d := divider{line: r.clean, parts: r.parts[:0], budget: 4*len(r.clean) + 4096}
	for i := 0; i < len(d.line); {
		next := bytes.IndexAny(d.line[i:], "{\r")
		if next < 0 {
			break
		}
		i += next
		if d.line[i] == '\r' {
			d.endText(i, i+1)
			r.settle(d.parts)
			d.parts = d.parts[:0]
			i++
			continue
		}
		object, n := d.objectAt(i)
		if object == nil {
			i++
			continue
		}
		d.endText(i, i+n)
		d.parts = append(d.parts, part{object, true})
		i += n
	}
	d.endText(len(d.line), len(d.line))
	r.settle(d.parts)
	r.parts = d.parts[:0]
	if cap(r.clean) > 1<<20 {
		r.clean = nil
	}
}

// divider divides a line into objects and pieces of text.
type divider struct {
	line   []byte
	text   int // offset at which the current text begins
	parts  []part
	budget int // number of bytes that may still be read without finding an object; keeps the run time linear

	keyed  bool // whether the end of a key was found in the current text
	looked int  // offset up to which the text has been searched for the end of a key
}

// endText ends the current text and begins the next one.
func (d *divider) endText(end, next int) {
	if t := bytes.Trim(d.line[d.text:end], blank); len(t) > 0 {
		d.parts = append(d.parts, part{bytes: t})
	}
	d.text, d.keyed, d.looked = next, false, next
}

// objectAt returns the object that begins at the brace at offset i, and the length of the object in the
// line. The object is nil in three cases: no object begins there, the budget is used up, or the object is a
// value inside a broken object.
func (d *divider) objectAt(i int) (object []byte, n int) {
	if d.budget <= 0 || !begins(d.line[i:]) || d.isValue(i) {
		return nil, 0
	}
	object, n = readObject(d.line[i:])
	if object == nil {
		d.budget -= n
	}
	return object, n
}

// isValue reports whether the object at offset i is a value in a broken object. The object is such a value if
// the text before it ends with the characters that precede a value in JSON.
func (d *divider) isValue(i int) bool {
	key := []byte(`":`)
	if !d.keyed {
		from := max(d.looked-1, d.text)
		d.keyed, d.looked = bytes.Contains(d.line[from:i], key), i
	}
	text := bytes.TrimRight(d.line[d.text:i], " \t\r")
	if bytes.HasSuffix(text, key) {
		return true
	}
	n := len(text)
	return d.keyed && n > 0 && (text[n-1] == '[' || text[n-1] == ',')
}

// The method "settle" adds the objects that count to r.found, and all other parts to the noise. The
// rules are in the package documentation.
func (r *Reader) settle(parts []part) {
	texts, last := 0, 0 // last is one more than the index of the last text
	for i, p := range parts {
		if !p.object {
			texts++
			last = i + 1
		}
	}
	var told []byte
	if r.cfg.Told != nil && texts > 0 && texts < len(parts) {
		told = []byte(r.cfg.Told())
	}
	behind := false
	for i, p := range parts {
		counts := p.object && (!behind || i >= last) &&
			(texts == 0 || i < maxEcho && !bytes.Contains(r.echo, p.bytes) && !bytes.Contains(told, p.bytes))
		switch behind = !p.object || behind && !counts; {
		case counts:
			r.found = append(r.found, p.bytes)
		default:
			r.noise.add(p.bytes)
			if r.cfg.Skipped != nil {
				r.cfg.Skipped(p.bytes)
			}
		}
	}
}

// maxEcho is the maximum number of parts of a line that are searched for in Config.Echo if the line contains
// text. Objects after these parts do not count.
const maxEcho = 100

// The function "begins" reports whether an object may begin with the brace at the start of b.
// This check is fast and excludes most braces in text.
func begins(b []byte) bool {
	b = bytes.TrimLeft(b[1:], " \t\r")
	return len(b) > 0 && (b[0] == '"' || b[0] == '}')
}

// readObject returns the object at the start of b, and its length in b. If there is no
// object, n is the number of bytes that were read.
func readObject(b []byte) (object []byte, n int) {
	depth, inside := 0, false
	for n < len(b) {
		c := b[n]
		n++
		switch {
		case inside && c == '\\':
			n++
		case c == '"':
			inside = !inside
		case inside:
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			if depth--; depth > 0 {
				continue
			}
			if object = b[:n]; !json.Valid(object) {
				object = repaired(object)
			}
			return object, n
		}
	}
	return nil, min(n, len(b))
}

// repaired returns a repaired copy of an object. In the copy, null replaces words that are
// not JSON, and spaces replace control characters in strings. It returns nil if the result is not valid
// JSON.
func repaired(b []byte) []byte {
	out := make([]byte, 0, len(b))
	inside := false
	for i := 0; i < len(b); i++ {
		c := b[i]
		switch {
		case inside && c == '\\' && i+1 < len(b):
			out = append(out, c, b[i+1])
			i++
		case c == '"':
			inside = !inside
			out = append(out, c)
		case inside && c < ' ':
			out = append(out, ' ')
		case inside || !isWord(c) || c >= '0' && c <= '9':
			out = append(out, c)
		default:
			from := i
			for i+1 < len(b) && isWord(b[i+1]) {
				i++
			}
			out = appendWord(out, b[from:i+1])
		}
	}
	if !json.Valid(out) {
		return nil
	}
	return out
}

func isWord(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c >= '0' && c <= '9'
}

// appendWord appends a word that is outside of strings. True and False become lower case. Any other word that
// JSON does not have becomes null, together with a sign before it, as in -Infinity. A word after a digit is
// part of a number, such as 1e5, and is not changed.
func appendWord(out, word []byte) []byte {
	n := len(out)
	switch w := string(word); {
	case n > 0 && out[n-1] >= '0' && out[n-1] <= '9':
		return append(out, word...)
	case n > 0 && (out[n-1] == '-' || out[n-1] == '+'):
		return append(out[:n-1], "null"...)
	case w == "true" || w == "false" || w == "null":
		return append(out, word...)
	case w == "True" || w == "False":
		return append(append(out, word[0]|0x20), word[1:]...)
	}
	return append(out, "null"...)
}
