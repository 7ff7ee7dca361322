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

// Error codes of JSON-RPC: for what is not JSON, and for JSON that is not a message.
const (
	codeParse   = -32700
	codeInvalid = -32600
)

// stdio is MCP over two streams, with one message per line. At a line that is not a
// message, the protocol library would end the connection, and with it the running
// tasks. Here such a line is answered with an error, as JSON-RPC demands.
func stdio(in io.ReadCloser, out io.Writer) mcp.Transport {
	w := &lineWriter{w: out}
	return &mcp.IOTransport{Reader: &lineReader{in: in, lines: bufio.NewReaderSize(in, 64<<10), refuse: w.refuse}, Writer: w}
}

// lineReader reads the messages in its input and refuses all other lines.
type lineReader struct {
	in     io.Closer
	lines  *bufio.Reader
	ready  []byte // messages that are not read yet
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

// maxLine is how many bytes a line may have: as many as the protocol library allows.
const maxLine = mcp.DefaultMaxLineLength

// line returns the next line. If it is too long, line returns only its beginning.
func (r *lineReader) line() (line []byte, err error) {
	for {
		part, err := r.lines.ReadSlice('\n')
		line = append(line, part[:min(len(part), maxLine-len(line))]...)
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, err
		}
	}
}

// messagesOf returns the messages of a line, each as a line, or the reason why there
// are none and its code. It splits an array of messages, because later versions of
// the protocol have no arrays and the library would end the connection.
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

// lineWriter keeps the library's lines and ours from mixing.
type lineWriter struct {
	mu sync.Mutex
	w  io.Writer
}

// Close implements io.Closer. The program's output stays open, as with the library's
// own transport.
func (*lineWriter) Close() error { return nil }

// Write implements io.Writer. The library writes whole lines.
func (w *lineWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.w.Write(b)
}

// refuse answers a line whose id is unknown.
func (w *lineWriter) refuse(code int, why string) error {
	b, err := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": nil, "error": map[string]any{"code": code, "message": "the line was refused: " + why}})
	if err == nil {
		_, err = w.Write(append(b, '\n'))
	}
	return err
}
