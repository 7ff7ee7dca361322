package jsonlines

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
)

// Config says how a [Reader] reads. The zero value is useful.
type Config struct {
	// MaxLine is how many bytes of a line are kept; 16 MiB when zero. A string in
	// a longer line is cut to an eighth of it. A line that is still too long is
	// dropped.
	MaxLine int

	// MaxNoise is how many bytes may come before the first object that is not
	// rejected, before Next returns ErrNoise; no bound when zero.
	MaxNoise int

	// Echo is what the program was told. See the package's documentation.
	Echo string

	// Skipped, if set, is called by Next with each text that is no object. The
	// text is valid during the call only. It is not called for dropped lines.
	Skipped func(text []byte)
}

const (
	defaultMaxLine = 16 << 20
	bufferSize     = 32 << 10
	mostOfLine     = 16 // times MaxLine, with all that is cut
)

// ErrNoise is returned by [Reader.Next] when Config.MaxNoise bytes have come and
// none of them were an object that was understood.
var ErrNoise = errors.New("jsonlines: nothing that was printed is understood")

// Reader finds the objects in what a program prints. Next and Reject are called
// by one goroutine; Noise may be called by any.
type Reader struct {
	cfg   Config
	in    *bufio.Reader
	err   error
	echo  []byte
	found [][]byte // objects of the line
	given int      // how many of them were returned
	last  []byte   // the one returned last
	heard bool     // an object was not rejected
	long  []byte   // the beginning of a line that does not fit into the buffer
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

// Next returns the next object. It is valid JSON, and valid until the next call.
// The error is io.EOF at the end, ErrNoise, or what reading has failed with.
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

// Reject says that the object which Next has returned last is not understood. It
// counts as noise then.
func (r *Reader) Reject(object []byte) {
	if r.last != nil {
		r.last = nil
		r.noise.add(object)
	}
}

// Noise returns what was not understood so far.
func (r *Reader) Noise() Noise { return r.noise.get() }

// readLine returns the next line without its end. It returns nothing for one
// that is dropped, and sets err at the end.
func (r *Reader) readLine() []byte {
	r.long = r.long[:0]
	if cap(r.long) > 1<<20 { // one long line is no reason to keep its memory
		r.long = nil
	}
	var sh *shortener
	total, told := 0, 0
	for {
		piece, err := r.in.ReadSlice('\n')
		total += len(piece)
		if err == nil && total == len(piece) && total <= r.cfg.MaxLine {
			return bytes.TrimRight(piece, "\r\n") // the usual case, without a copy
		}
		if sh == nil && len(r.long)+len(piece) > r.cfg.MaxLine+1 {
			sh = &shortener{most: r.cfg.MaxLine / 8}
			whole := r.long
			r.long = sh.append(whole[:0], whole)
		}
		switch {
		case sh == nil:
			r.long = append(r.long, piece...)
		case len(r.long) <= r.cfg.MaxLine+1 && total/mostOfLine <= r.cfg.MaxLine:
			r.long = sh.append(r.long, piece)
		default: // it need not end
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
			r.noise.dropping(total, true)
			return nil
		case told > 0 && !r.heard && r.cfg.MaxNoise > 0 && r.noise.bytes() > r.cfg.MaxNoise:
			r.err = ErrNoise
			return nil
		}
	}
}

// blank is what may stand around objects: white space, and byte-order marks.
const blank = " \t\r" + bom

// divide finds the objects of a line.
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
