package opencode

import (
	"crypto/sha256"
	"fmt"
	"strconv"
)

// An opencode id consists of a prefix such as msg_, then 12 hexadecimal digits and 14 characters.
// The digits are the low 48 bits of the number 4096·t + n, where t is the time in milliseconds and
// n is a counter. Therefore, ids sort by time.
//
// This client chooses the ids of its messages, so that sending a message again is harmless. The characters
// are derived from bgagent's id for the prompt, so that the message can be found again. The number in the
// digits is one higher than in the id of the session's newest message. In an empty session, it comes from the
// time at which the server created the session. It does not come from this machine's clock, because this
// clock can be ahead of the server's clock. In that case, the message would sort after its own answer, and
// some versions of the server would treat the message as an unanswered prompt.

const (
	digits     = 12
	characters = 14
	alphabet   = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)

// stamp is the number in an id that determines the order of ids. It has 48 bits.
type stamp uint64

const stampMask = 1<<48 - 1

// stampAt returns the lowest stamp for a Unix time in milliseconds.
func stampAt(ms int64) stamp { return stamp(uint64(ms)<<12) & stampMask }

// stampOf returns the stamp of an id. The second result is false if the id has another
// form.
func stampOf(id string) (stamp, bool) {
	const from = len("msg_")
	if len(id) < from+digits || id[from-1] != '_' {
		return 0, false
	}
	n, err := strconv.ParseUint(id[from:from+digits], 16, 64)
	return stamp(n), err == nil
}

// tail derives the last characters of a message id from the id of a prompt or a notice.
func tail(key string) string {
	sum := sha256.Sum256([]byte(key))
	b := make([]byte, characters)
	for i := range b {
		b[i] = alphabet[int(sum[i])%len(alphabet)]
	}
	return string(b)
}

// messageID returns the message id for a prompt or a notice. key is bgagent's id for the prompt or notice.
func (s stamp) messageID(key string) string {
	return fmt.Sprintf("msg_%0*x%s", digits, uint64(s)&stampMask, tail(key))
}

// partID returns the id of a message's part. Each message that this client sends has
// only one part.
func partID(messageID string) string { return "prt_" + messageID[len("msg_"):] }
