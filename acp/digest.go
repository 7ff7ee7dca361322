package acp

import (
	"encoding/json"
	"hash"
	"hash/fnv"
	"io"
	"strconv"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/calldigest"
	sdk "github.com/coder/acp-go-sdk"
)

// callOutput is the part of a message that shows the result of a tool call.
type callOutput struct {
	raw     any // raw output of the tool
	content []sdk.ToolCallContent
	meta    map[string]any
}

// callResult collects the digest of a tool call's result from the messages about the call.
type callResult struct {
	digest  bgagent.Digest // digest of the last raw output; if there was none, digest of the last content
	raw     bool           // whether the field "digest" is the digest of a raw output
	printed hash.Hash64    // running hash of the output in the agent's own terminal, because this output arrives in pieces; nil if there is none
	exit    string         // how the command in that terminal ended
	lost    bool           // whether part of a message about the call could not be read
}

// The method "add" adds the content of a message.
func (r *callResult) add(o callOutput) {
	if d := calldigest.ResultValue(o.raw); d != 0 {
		r.digest, r.raw = d, true
	} else if len(o.content) > 0 && !r.raw {
		r.digest = ofContent(o.content)
	}
	if piece, ok := o.meta["terminal_output_delta"].(map[string]any); ok {
		data, _ := piece["data"].(string)
		r.open()
		io.WriteString(r.printed, data) // writing to a hash never fails
	}
	if exit, ok := o.meta["terminal_exit"].(map[string]any); ok {
		r.open()
		if b, err := json.Marshal([]any{exit["exit_code"], exit["signal"]}); err == nil {
			r.exit = string(b)
		}
	}
}

func (r *callResult) open() {
	if r.printed == nil {
		r.printed = fnv.New64a()
	}
}

// The method "of" returns the digest of the result, or 0 if the result is unknown.
func (r *callResult) of() bgagent.Digest {
	switch {
	case r.lost:
		return 0
	case r.printed != nil && !r.raw:
		return bgagent.DigestOf(strconv.FormatUint(r.printed.Sum64(), 16), r.exit)
	}
	return r.digest
}

// ofContent returns the digest of a call's content. If a terminal is part of the content, the
// digest is 0, because the content does not contain the terminal's output.
func ofContent(content []sdk.ToolCallContent) bgagent.Digest {
	for _, c := range content {
		if c.Terminal != nil {
			return 0
		}
	}
	raw, err := json.Marshal(content)
	if err != nil {
		return 0
	}
	return calldigest.Result(raw)
}

// compactionTitle is the title of the tool call with which codex-acp reports that it is compacting
// the session.
const compactionTitle = "Compact conversation"

// isCompaction reports whether the message announces that the agent is compacting the session.
func isCompaction(x *sdk.SessionUpdateToolCall) bool {
	return x.Kind == sdk.ToolKindThink && x.Title == compactionTitle
}
