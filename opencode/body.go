package opencode

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// The bounds below limit the size of a server's responses. Decompression can turn a small body into
// a large one. Decoding can turn a small text into a large value: the three bytes "{}," can become
// a large struct. Therefore, bytes are counted after decompression, values are counted during
// reading, and lists are decoded element by element.

const (
	// maxBody is the maximum size of a response in bytes, after decompression. A page of messages
	// with the output of many tools takes several MB.
	maxBody = 64 << 20

	// maxRefusal is the maximum number of bytes that are read from an error response.
	maxRefusal = 64 << 10

	// maxValues is the maximum number of objects, lists and commas in one response or event. A page
	// of a hundred messages with a hundred parts each has about a tenth of this number.
	maxValues = 1 << 20

	// maxElements is the maximum number of elements of one list.
	maxElements = 100_000
)

var (
	errTooLarge   = fmt.Errorf("the server has sent more than %d MB in one answer", maxBody>>20)
	errTooMany    = fmt.Errorf("the server has sent more than %d values in one answer", maxValues)
	errNoBody     = errors.New("the answer has no body")
	errLongList   = fmt.Errorf("the server has sent a list of more than %d elements", maxElements)
	errTrailing   = errors.New("the answer continues after its end")
	errNotAList   = errors.New("a list was expected")
	errNotAnEntry = errors.New("an object was expected")
)

// The type "bounded" reads a response, and fails if the response exceeds the bounds.
type bounded struct {
	r      io.Reader
	bytes  int
	values counter
}

// Read reduces each run of whitespace to one character. Otherwise, a decoder would scan the whole
// run again for each piece of it that arrives.
func (b *bounded) Read(p []byte) (n int, err error) {
	for n == 0 && err == nil && len(p) > 0 {
		n, err = b.r.Read(p)
		if b.bytes += n; b.bytes > maxBody {
			return 0, errTooLarge
		}
		if n = b.values.add(p[:n]); b.values.n > maxValues {
			return 0, errTooMany
		}
	}
	return n, err
}

// counter counts the values in JSON text. It ignores the contents of strings.
type counter struct {
	n                      int
	quoted, escaped, blank bool
}

// add counts the values in the next bytes. Outside of strings, it removes all but the first of several
// successive whitespace characters. The remaining bytes move to the front of p, and add returns their
// number.
func (c *counter) add(p []byte) (kept int) {
	for _, b := range p {
		blank := false
		switch {
		case c.escaped:
			c.escaped = false
		case c.quoted:
			c.escaped = b == '\\'
			c.quoted = b != '"'
		case b == '"':
			c.quoted = true
		case b == '{' || b == '[' || b == ',':
			c.n++
		default:
			blank = b == ' ' || b == '\n' || b == '\r' || b == '\t'
		}
		if !blank || !c.blank {
			p[kept] = b
			kept++
		}
		c.blank = blank
	}
	return kept
}

// The function "small" reports whether the JSON text p has at most maxValues values.
func small(p []byte) bool {
	if len(p) <= maxValues {
		return true
	}
	var c counter
	c.add(bytes.Clone(p))
	return c.n <= maxValues
}

// elements is implemented by values that decode a list element by element. call.out can be such a value.
type elements interface {
	// element decodes the next element.
	element(d *json.Decoder) error
}

// list decodes a list of T and skips elements that are not objects.
type list[T any] struct{ items []T }

func (l *list[T]) element(d *json.Decoder) error {
	var raw json.RawMessage
	if err := d.Decode(&raw); err != nil {
		return err
	}
	if raw[0] != '{' {
		return nil
	}
	if len(l.items) == maxElements {
		return errLongList
	}
	var x T
	if err := lenient(json.Unmarshal(raw, &x)); err != nil {
		return err
	}
	l.items = append(l.items, x)
	return nil
}

// count implements the interface "elements". It only counts the elements of a list.
type count struct{ n int }

func (c *count) element(d *json.Decoder) error {
	c.n++
	var skip struct{}
	return lenient(d.Decode(&skip))
}

// lenient ignores an error about the type of a field, because the decoder has left only this field
// unset. In other versions of the server, a field can have a different type.
func lenient(err error) error {
	var t *json.UnmarshalTypeError
	if errors.As(err, &t) {
		return nil
	}
	return err
}

// The function "decode" decodes the body of a response into the value to which out points. The body must
// contain exactly one value.
func decode(body io.Reader, out any) error {
	in := bufio.NewReaderSize(&bounded{r: body}, 64<<10)
	if start, _ := in.Peek(3); bytes.Equal(start, []byte("\xef\xbb\xbf")) {
		_, _ = in.Discard(3)
	}
	d := json.NewDecoder(in)
	err := decodeValue(d, out)
	if err == nil {
		if _, err = d.Token(); err == nil {
			return errTrailing
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
	}
	return err
}

func decodeValue(d *json.Decoder, out any) error {
	if e, ok := out.(elements); ok {
		return decodeList(d, e)
	}
	var raw json.RawMessage
	if err := d.Decode(&raw); err != nil {
		return noBody(err)
	}
	if _, ok := out.(*bool); ok && raw[0] != 'n' {
		return json.Unmarshal(raw, out)
	}
	if raw[0] != '{' {
		return errNotAnEntry
	}
	return lenient(json.Unmarshal(raw, out))
}

func decodeList(d *json.Decoder, e elements) error {
	t, err := d.Token()
	if err != nil {
		return noBody(err)
	}
	if t != json.Delim('[') {
		return errNotAList
	}
	for d.More() {
		if err := e.element(d); err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil {
		if errors.Is(err, io.EOF) {
			return io.ErrUnexpectedEOF
		}
		return err
	}
	return nil
}

// noBody converts the error for an empty response into errNoBody. It returns other errors
// unchanged.
func noBody(err error) error {
	if errors.Is(err, io.EOF) {
		return errNoBody
	}
	return err
}
