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

// Codes of JSON-RPC for what is no JSON, and for JSON that is no message.
const (
	codeParse   = -32700
	codeInvalid = -32600
)

// stdio is MCP over two streams, one message a line. The protocol library ends
// the connection with the first line that is no message, and with it the tasks
// that run; here such a line is answered with an error, as JSON-RPC has it.
func stdio(in io.ReadCloser, out io.Writer) mcp.Transport {
	w := &lineWriter{w: out}
	return &mcp.IOTransport{Reader: &lineReader{in: in, lines: bufio.NewReaderSize(in, 64<<10), refuse: w.refuse}, Writer: w}
}

// lineReader reads what of its input is messages.
type lineReader struct {
	in     io.Closer
	lines  *bufio.Reader
	ready  []byte // of messages, not read yet
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
			warn("standard input: refused a line: %s", why)
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

// maxLine is how long a line may be: as long as the protocol library allows.
const maxLine = mcp.DefaultMaxLineLength

// line returns the next line; of one that is too long only its beginning, which
// is no JSON then.
func (r *lineReader) line() (line []byte, err error) {
	for {
		part, err := r.lines.ReadSlice('\n')
		line = append(line, part[:min(len(part), maxLine-len(line))]...)
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, err
		}
	}
}

// messagesOf returns the messages of a line, each as a line; or the reason why
// there are none, with its code. An array of messages is divided: later versions
// of the protocol know none, and the library would end the connection.
func messagesOf(line []byte) (out []byte, code int, why string) {
	line = bytes.TrimSpace(line)
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
		return nil, codeParse, fmt.Sprintf("it is no JSON: %.60q; MCP has one JSON-RPC message a line", line)
	}
	for _, m := range all {
		if _, err := jsonrpc.DecodeMessage(m); err != nil {
			return nil, codeInvalid, fmt.Sprintf("it is no JSON-RPC message (%v): %.60q", err, m)
		}
		out = append(append(out, m...), '\n')
	}
	return out, 0, ""
}

// lineWriter keeps the library's lines and ours apart.
type lineWriter struct {
	mu sync.Mutex
	w  io.Writer
}

// Close implements io.Closer. The program's output stays open, as it does with
// the library's own transport.
func (*lineWriter) Close() error { return nil }

// Write implements io.Writer. The library writes whole lines.
func (w *lineWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.w.Write(b)
}

// refuse answers a line of which no id is known.
func (w *lineWriter) refuse(code int, why string) error {
	b, err := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": nil, "error": map[string]any{"code": code, "message": "the line was refused: " + why}})
	if err == nil {
		_, err = w.Write(append(b, '\n'))
	}
	return err
}
