// Package calldigest computes the digests of tool calls that session clients report. Agent programs add text
// to results. This text differs from call to call, even if the calls are the same. The package removes the
// text that the tested programs are known to add: the names of the files where Claude Code and opencode store
// results that are too long for the model.
package calldigest

import (
	"bytes"
	"encoding/json"
	"strings"

	"github.com/bgagent/bgagent"
)

// Input returns the digest of a tool's input, which is a JSON value. The order of the keys in an
// object does not matter. If the value is missing, null or not JSON, the input is unknown.
func Input(raw []byte) bgagent.Digest { return InputValue(decode(raw)) }

// InputValue is like [Input] for a decoded JSON value.
func InputValue(v any) bgagent.Digest {
	if v == nil {
		return 0
	}
	return digest(v, nil)
}

// Result returns the digest of a tool's result. The result consists of a JSON value and possibly of
// further parts, such as an exit code. If the value is missing, null or not JSON, the result is
// unknown.
func Result(raw []byte, more ...string) bgagent.Digest { return ResultValue(decode(raw), more...) }

// ResultValue is like [Result] for a decoded JSON value.
func ResultValue(v any, more ...string) bgagent.Digest {
	if v == nil {
		return 0
	}
	return digest(lasting(v), more)
}

func decode(raw []byte) (v any) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber() // as floats, different large numbers could become equal
	if d.Decode(&v) != nil {
		return nil
	}
	return v
}

func digest(v any, more []string) bgagent.Digest {
	b, err := json.Marshal(v) // sorts the keys of objects
	if err != nil {
		return 0
	}
	return bgagent.DigestOf(append([]string{string(b)}, more...)...)
}

// The function "lasting" returns the value without the parts that differ in every call. It does not
// change v.
func lasting(v any) any {
	switch v := v.(type) {
	case string:
		return withoutFile(v)
	case []any:
		out := make([]any, len(v))
		for i, x := range v {
			out[i] = lasting(x)
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, x := range v {
			if k != "outputPath" && k != "persistedOutputPath" {
				out[k] = lasting(x)
			}
		}
		return out
	}
	return v
}

// savedTo precedes the name of the file in a result that Claude Code or opencode has shortened. The
// text before these words says that the result was shortened.
const savedTo = "Full output saved to: "

// withoutFile removes the name of the file from a result that was shortened.
func withoutFile(s string) string {
	i := strings.Index(s, savedTo)
	if i < 0 || !strings.HasPrefix(s, "<persisted-output>") && !strings.Contains(s[max(0, i-200):i], "truncated") {
		return s
	}
	i += len(savedTo)
	rest := strings.IndexByte(s[i:], '\n')
	if rest < 0 {
		return s[:i]
	}
	return s[:i] + s[i+rest:]
}
