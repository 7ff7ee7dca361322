package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// JSON-RPC error codes: the first is for a line that is not JSON, and the second for JSON that is not a
// message.
const (
	codeParse   = -32700
	codeInvalid = -32600
)

// stdio returns a transport for MCP over two streams, with one message per line. A line that is not a message
// is answered with an error, as JSON-RPC requires. The protocol library's own transport would end the
// connection at such a line, and the running tasks with it. The argument "from" describes the input in
// warnings.
func stdio(from string, in io.ReadCloser, out io.Writer) mcp.Transport {
	w := &lineWriter{w: out}
	return &mcp.IOTransport{Reader: &lineReader{from: from, in: in, lines: bufio.NewReaderSize(in, 64<<10), refuse: w.refuse}, Writer: w}
}

// lineReader passes on the messages of its input and refuses all other lines.
type lineReader struct {
	from   string
	in     io.Closer
	lines  *bufio.Reader
	ready  []byte // messages that Read has not yet returned
	refuse func(code int, why string) error
}

// Close implements io.Closer.
func (r *lineReader) Close() error { return r.in.Close() }

// Read implements io.Reader.
func (r *lineReader) Read(p []byte) (int, error) {
	for len(r.ready) == 0 {
		line, err := r.line()
		switch messages, code, why := messagesOf(line); {
		case why != "":
			warn("%s: refused a line: %s", r.from, why)
			if err := r.refuse(code, why); err != nil {
				return 0, err
			}
		default:
			r.ready = messages
		}
		if err != nil && len(r.ready) == 0 {
			return 0, err
		}
	}
	n := copy(p, r.ready)
	r.ready = r.ready[n:]
	return n, nil
}

// maxLine is the maximum number of bytes in a line. It is the protocol library's limit.
const maxLine = mcp.DefaultMaxLineLength

// The method "line" returns the next line. If the next line is too long, only its beginning is
// returned.
func (r *lineReader) line() (line []byte, err error) {
	for {
		part, err := r.lines.ReadSlice('\n')
		line = append(line, part[:min(len(part), maxLine-len(line))]...)
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, err
		}
	}
}

// messagesOf returns the messages in a line, each on a separate line. If the line is refused, messagesOf
// returns the error code and the reason instead. An array of messages is split, because later versions of the
// protocol have no arrays, and the library would end the connection at an array.
func messagesOf(line []byte) (out []byte, code int, why string) {
	const blank = " \t\r\n\ufeff" // some programs on Windows begin their output with a byte-order mark
	line = bytes.Trim(line, blank)
	if len(line) == 0 {
		return nil, 0, ""
	}
	if len(line) >= maxLine {
		return nil, codeParse, fmt.Sprintf("it is longer than %d bytes", maxLine)
	}
	all := []json.RawMessage{line}
	if line[0] == '[' {
		all = nil
		if err := json.Unmarshal(line, &all); err == nil && len(all) == 0 {
			return nil, codeInvalid, "it is an empty array"
		}
	}
	if !json.Valid(line) {
		return nil, codeParse, fmt.Sprintf("it is not JSON: %.60q; MCP has one JSON-RPC message per line", line)
	}
	for _, m := range all {
		if _, err := jsonrpc.DecodeMessage(m); err != nil {
			return nil, codeInvalid, fmt.Sprintf("it is not a JSON-RPC message (%v): %.60q", err, m)
		}
		out = append(append(out, m...), '\n')
	}
	return out, 0, ""
}

// lineWriter serializes writes, so that the library's lines and those of the method "refuse" do not
// mix.
type lineWriter struct {
	mu sync.Mutex
	w  io.Writer
}

// Close implements io.Closer. Like the library's own transport, it does not close the program's
// output.
func (*lineWriter) Close() error { return nil }

// Write implements io.Writer. The library calls it with whole lines.
func (w *lineWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.w.Write(b)
}

// refuse answers a refused line with an error. The answer's id is null, because the id in the line is
// unknown.
func (w *lineWriter) refuse(code int, why string) error {
	b, err := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": nil, "error": map[string]any{"code": code, "message": "the line was refused: " + why}})
	if err == nil {
		_, err = w.Write(append(b, '\n'))
	}
	return err
}
