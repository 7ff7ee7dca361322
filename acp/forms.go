package acp

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode"

	sdk "github.com/coder/acp-go-sdk"
)

// The functions in this file read values that deviate from the protocol but have a clear meaning.

// versionIn returns the protocol version in the answer to an "initialize" request. The result is as
// the agent wrote it, but without quotation marks. It returns "" if the answer does not contain a
// version.
func versionIn(result []byte) string {
	var answer struct {
		Version json.RawMessage `json:"protocolVersion"`
	}
	if json.Unmarshal(result, &answer) != nil || !present(answer.Version) {
		return ""
	}
	return text(answer.Version)
}

// checkVersion returns an error if the agent and this client speak different versions of the
// protocol.
func checkVersion(version string) error {
	if version == "" {
		return fmt.Errorf("its answer to initialize contains no version of the Agent Client Protocol; this client speaks version %d", sdk.ProtocolVersionNumber)
	}
	if v, err := strconv.ParseFloat(version, 64); err != nil || v != sdk.ProtocolVersionNumber {
		return fmt.Errorf("it speaks version %.80s of the Agent Client Protocol, this client speaks version %d; update the older of the two", version, sdk.ProtocolVersionNumber)
	}
	return nil
}

// stopReasons are the protocol's stop reasons.
var stopReasons = []sdk.StopReason{
	sdk.StopReasonEndTurn, sdk.StopReasonMaxTokens, sdk.StopReasonMaxTurnRequests, sdk.StopReasonRefusal, sdk.StopReasonCancelled,
}

// stopReason returns the protocol's stop reason that has the same letters as s, such as "end_turn"
// for "endTurn" or "END-TURN". It returns any other reason unchanged.
func stopReason(s sdk.StopReason) sdk.StopReason {
	for _, known := range stopReasons {
		if letters(s) == letters(known) {
			return known
		}
	}
	return s
}

// letters returns the letters of a stop reason in lower case.
func letters(s sdk.StopReason) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) {
			return unicode.ToLower(r)
		}
		return -1
	}, string(s))
}

// chunk returns a copy of a message update, with the content converted to one text block, as the
// protocol requires. It reports false if the update is of another kind, or if its content is
// neither a string nor a list of texts.
func chunk(params json.RawMessage) (json.RawMessage, bool) {
	var n, update map[string]json.RawMessage
	if json.Unmarshal(params, &n) != nil || json.Unmarshal(n["update"], &update) != nil ||
		!strings.HasSuffix(text(update["sessionUpdate"]), "_chunk") {
		return nil, false
	}
	said, ok := wordsOf(update["content"])
	if !ok {
		return nil, false
	}
	var err error
	if update["content"], err = json.Marshal(sdk.TextBlock(said)); err != nil {
		return nil, false
	}
	if n["update"], err = json.Marshal(update); err != nil {
		return nil, false
	}
	whole, err := json.Marshal(n)
	return whole, err == nil
}

// wordsOf returns the text in the content, which is a string or a list of strings and text blocks.
func wordsOf(content json.RawMessage) (string, bool) {
	var s string
	if json.Unmarshal(content, &s) == nil && present(content) {
		return s, true
	}
	var list []json.RawMessage
	if json.Unmarshal(content, &list) != nil || len(list) == 0 {
		return "", false
	}
	for _, e := range list {
		var piece string
		var block struct{ Text *string }
		switch {
		case json.Unmarshal(e, &piece) == nil:
		case json.Unmarshal(e, &block) == nil && block.Text != nil:
			piece = *block.Text
		default:
			return "", false
		}
		s += piece
	}
	return s, true
}
