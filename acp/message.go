package acp

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"

	sdk "github.com/coder/acp-go-sdk"
)

// message is an outgoing line of JSON-RPC 2.0: a request, a notification or an
// answer.
type message struct {
	Version string            `json:"jsonrpc"`
	ID      json.RawMessage   `json:"id,omitempty"`
	Method  string            `json:"method,omitempty"`
	Params  json.RawMessage   `json:"params,omitempty"`
	Result  json.RawMessage   `json:"result,omitempty"`
	Error   *sdk.RequestError `json:"error,omitempty"`
}

// received is an incoming line. Its fields are decoded later, so that an answer completes its
// request even if only part of the answer can be read.
type received struct {
	ID     json.RawMessage `json:"id"`
	Method json.RawMessage `json:"method"`
	Params json.RawMessage `json:"params"`
	Result json.RawMessage `json:"result"`
	Error  json.RawMessage `json:"error"`
	method string
}

// The function "decode" decodes a line. It reports whether the line is a message.
func decode(line []byte) (m received, ok bool) {
	if json.Unmarshal(line, &m) != nil {
		return brokenAnswer(line)
	}
	if present(m.Method) && json.Unmarshal(m.Method, &m.method) != nil {
		return m, false
	}
	return m, m.method != "" || len(m.ID) > 0
}

// brokenAnswer looks for an answer in a line that is not valid JSON. Such a line can occur if the
// program prints other text in the middle of an answer. If the line is an answer, brokenAnswer
// returns an error answer, so that the request does not wait forever.
func brokenAnswer(line []byte) (m received, ok bool) {
	in := json.NewDecoder(bytes.NewReader(line))
	if start, err := in.Token(); err != nil || start != json.Delim('{') {
		return m, false
	}
	for {
		switch key, err := in.Token(); {
		case err != nil || key == "method":
			return m, false
		case key == "id" && in.Decode(&m.ID) != nil:
			return m, false
		case key == "id":
		case key == "result" || key == "error":
			why, err := json.Marshal(fmt.Sprintf("its answer cannot be read: %.*q", shownOfLine, line))
			m.Error = why
			return m, len(m.ID) > 0 && err == nil
		default:
			var skipped json.RawMessage
			if in.Decode(&skipped) != nil {
				return m, false
			}
		}
	}
}

// The function "present" reports whether a field exists and is not null.
func present(raw json.RawMessage) bool { return len(raw) > 0 && string(raw) != "null" }

// The method "request" returns the id of the request that the message answers. Some agents write
// the id in quotation marks, or as a number that is not written like an integer, such as 2.0.
func (m *received) request() (id int64, ok bool) {
	digits := strings.TrimSpace(strings.Trim(string(m.ID), `"`))
	if id, err := strconv.ParseInt(digits, 10, 64); err == nil {
		return id, true
	}
	f, err := strconv.ParseFloat(digits, 64)
	return int64(f), err == nil && f == math.Trunc(f) && math.Abs(f) < 1<<53
}

// problem returns the error in an answer from the agent, or nil. If part of the error does not
// follow the protocol, the error's text contains that part.
func (m *received) problem() *sdk.RequestError {
	if !present(m.Error) {
		return nil
	}
	var e sdk.RequestError
	if json.Unmarshal(m.Error, &e) == nil && (e.Code != 0 || e.Message != "") {
		return &e
	}
	var parts struct {
		Code    json.RawMessage `json:"code"`
		Message json.RawMessage `json:"message"`
		Data    any             `json:"data"`
	}
	if json.Unmarshal(m.Error, &parts) != nil || !present(parts.Code) && !present(parts.Message) {
		return &sdk.RequestError{Code: codeUnread, Message: text(m.Error)}
	}
	e = sdk.RequestError{Code: codeUnread, Message: text(parts.Message), Data: parts.Data}
	if json.Unmarshal(parts.Code, &e.Code) != nil && present(parts.Code) {
		e.Message = text(parts.Code) + ": " + e.Message
	}
	return &e
}

// text returns the value of a JSON string. It returns any other JSON value as JSON text,
// cut to shownOfError bytes.
func text(raw json.RawMessage) (s string) {
	if json.Unmarshal(raw, &s) != nil {
		s = string(raw[:min(len(raw), shownOfError)])
	}
	return s
}

// The method "into" decodes the result of an answer, or returns the error in the answer.
func (m *received) into(method string, result any) error {
	if e := m.problem(); e != nil {
		return e
	}
	if len(m.Result) == 0 || result == nil {
		return nil
	}
	if _, err := readable(m.Result, result); err != nil {
		return fmt.Errorf("the answer to %s cannot be read: %w", method, err)
	}
	return nil
}

// codeUnread replaces an error code that is missing or unreadable.
const codeUnread = -32603
