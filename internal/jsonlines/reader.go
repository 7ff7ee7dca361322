package jsonlines

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
)

// Config configures a [Reader]. The zero value is ready for use.
type Config struct {
	// MaxLine is the maximum length of a line in bytes. Zero means 16 MiB. In a longer line, each long string
	// is cut to an eighth of MaxLine and gets the note "[cut: 123 more bytes]". A line that is still too long
	// is dropped.
	MaxLine int

	// MaxNoise is the maximum number of bytes of noise before the first object that is
	// not rejected. If there is more noise, Next returns ErrNoise. Zero means no limit.
	MaxNoise int

	// Echo is the text that was sent to the program. See the package documentation.
	Echo string

	// Told, if set, returns further text that was sent to the program, such as text sent while
	// the program was running. Next calls Told.
	Told func() string

	// Skipped, if set, is called with each piece of text that is not an object. Next makes the
	// calls, and the text is valid only during the call. Skipped is not called for dropped
	// lines.
	Skipped func(text []byte)

	// Dropped, if set, is called once for each line that is dropped because it is too long, possibly before
	// its end is read. The argument is the beginning of the line; long strings in it may be shortened. Next
	// makes the calls, and the argument is valid only during the call.
	Dropped func(beginning []byte)
}

const (
	defaultMaxLine = 16 << 20
	bufferSize     = 32 << 10
	mostOfLine     = 16 // a line longer than mostOfLine times MaxLine is dropped before its end is read
)

// ErrNoise is returned by [Reader.Next] if it has read more than Config.MaxNoise bytes of
// noise and every object so far was rejected.
var ErrNoise = errors.New("jsonlines: nothing that was printed is understood")

// Reader finds the objects in the output of a program. Only one goroutine may call
// Next and Reject; any goroutine may call Noise.
type Reader struct {
	cfg   Config
	in    *bufio.Reader
	err   error
	echo  []byte
	found [][]byte // objects of the current line
	given int      // number of objects in the field "found" that have been returned
	last  []byte   // object that was returned last; nil if it was rejected
	heard bool     // whether an object has been returned and not rejected
	long  []byte   // beginning of a line that does not fit into the buffer
	clean []byte
	parts []part
	noise noise
}

// NewReader returns a reader of r.
func NewReader(r io.Reader, cfg Config) *Reader {
	if cfg.MaxLine <= 0 {
		cfg.MaxLine = defaultMaxLine
	}
	return &Reader{cfg: cfg, echo: []byte(cfg.Echo), in: bufio.NewReaderSize(UTF8(r), bufferSize)}
}

// Next returns the next object. The object is valid JSON, and its bytes remain valid until
// the next call to Next. The error is io.EOF at the end, ErrNoise, or a read error.
func (r *Reader) Next() ([]byte, error) {
	r.heard = r.heard || r.last != nil
	r.last = nil
	for r.given == len(r.found) {
		switch {
		case r.err != nil:
			return nil, r.err
		case !r.heard && r.cfg.MaxNoise > 0 && r.noise.bytes() > r.cfg.MaxNoise:
			r.err = ErrNoise
			return nil, r.err
		}
		r.divide(r.readLine())
	}
	r.last = r.found[r.given]
	r.given++
	return r.last, nil
}

// Reject counts the object as noise. It must be the object that the last call to Next
// returned.
func (r *Reader) Reject(object []byte) {
	if r.last != nil {
		r.last = nil
		r.noise.add(object)
	}
}

// Noise returns the noise that has been read so far.
func (r *Reader) Noise() Noise { return r.noise.get() }

// readLine returns the next line without its line ending. It returns nil if the line is
// dropped. At the end of the input, it sets r.err.
func (r *Reader) readLine() []byte {
	r.long = r.long[:0]
	if cap(r.long) > 1<<20 { // release the memory of a long line
		r.long = nil
	}
	var sh *shortener
	total, told := 0, 0
	for {
		piece, err := r.in.ReadSlice('\n')
		total += len(piece)
		if err == nil && total == len(piece) && total <= r.cfg.MaxLine {
			return bytes.TrimRight(piece, "\r\n") // the usual case needs no copy
		}
		if sh == nil && len(r.long)+len(piece) > r.cfg.MaxLine+1 {
			sh = &shortener{most: r.cfg.MaxLine / 8}
			r.long = sh.append(nil, r.long)
		}
		switch {
		case sh == nil:
			r.long = append(r.long, piece...)
		case len(r.long) <= r.cfg.MaxLine+1 && total/mostOfLine <= r.cfg.MaxLine:
			r.long = sh.append(r.long, piece)
		default: // drop the line now, because it may never end
			if told == 0 {
				if len(r.long) == 0 { // the first piece is already too long
					r.long = sh.append(nil, piece[:min(len(piece), r.cfg.MaxLine)])
				}
				r.drops(r.long)
			}
			r.noise.dropping(total-told, told == 0)
			told = total
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			r.err = err
		}
		switch {
		case told > 0 && (err == nil || r.err != nil):
			return nil
		case err == nil || r.err != nil:
			if line := bytes.TrimRight(r.long, "\r\n"); len(line) <= r.cfg.MaxLine {
				return line
			}
			r.drops(r.long)
			r.noise.dropping(total, true)
			return nil
		case told > 0 && !r.heard && r.cfg.MaxNoise > 0 && r.noise.bytes() > r.cfg.MaxNoise:
			r.err = ErrNoise
			return nil
		}
	}
}

func (r *Reader) drops(beginning []byte) {
	if r.cfg.Dropped != nil {
		r.cfg.Dropped(beginning)
	}
}

// blank holds the characters that are ignored around objects: white space and byte-order
// marks.
const blank = " \t\r" + bom

// The method "divide" finds the objects of a line.
func (r *Reader) divide(line []byte) {
	r.found, r.given = r.found[:0], 0
	text := bytes.Trim(line, blank)
	switch {
	case len(text) == 0:
	case text[0] == '{' && json.Valid(text):
		r.found = append(r.found, text)
	default:
		r.salvage(text)
	}
}
