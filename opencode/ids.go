package opencode

import (
	"crypto/sha256"
	"fmt"
	"strconv"
)

// An id of opencode is a prefix like msg_, 12 hexadecimal digits and 14
// characters. The digits are the low 48 bits of the time in milliseconds times
// 4096, plus a count: ids sort by time.
//
// A message that this client sends has an id of its own, so that sending it
// again is harmless. Its characters come from bgagent's id of the prompt, so
// that it can be found again. Its digits follow those of the newest message of
// the session, and not this machine's clock: a clock that is ahead of the
// server's would have the message sort after its own answer, and some versions
// of the server take that for a prompt which has not been answered.

const (
	digits     = 12
	characters = 14
	alphabet   = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)

// stamp is the part of an id that sorts: 48 bits.
type stamp uint64

const stampMask = 1<<48 - 1

// stampAt returns the first stamp of a millisecond.
func stampAt(ms int64) stamp { return stamp(uint64(ms)<<12) & stampMask }

// stampOf returns the stamp of an id, if it has the form of one.
func stampOf(id string) (stamp, bool) {
	const from = len("msg_")
	if len(id) < from+digits || id[from-1] != '_' {
		return 0, false
	}
	n, err := strconv.ParseUint(id[from:from+digits], 16, 64)
	return stamp(n), err == nil
}

// tail returns the characters for a prompt's or a notice's id.
func tail(key string) string {
	sum := sha256.Sum256([]byte(key))
	b := make([]byte, characters)
	for i := range b {
		b[i] = alphabet[int(sum[i])%len(alphabet)]
	}
	return string(b)
}

// messageID returns the id of a message for a prompt's or a notice's id.
func (s stamp) messageID(key string) string {
	return fmt.Sprintf("msg_%0*x%s", digits, uint64(s)&stampMask, tail(key))
}

// partID returns the id of the only part of such a message.
func partID(messageID string) string { return "prt_" + messageID[len("msg_"):] }
