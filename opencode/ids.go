package opencode

import (
	"crypto/rand"
	"encoding/hex"
	"time"
)

// Messages and parts are sorted by their ids, which begin with the time: 12 hex
// digits of the milliseconds since 1970 times 4096, plus a counter, cut off at
// the top; 14 random letters and digits follow. A prompt that looks older than
// what is there already would never be answered, and one that looks newer than its
// own answer is taken for another one: so the time is the server's, rather a
// little early than late, but after that of the newest message there is.

const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// keptPrompts bounds how many prompts and notices are recognised when they are
// repeated.
const keptPrompts = 10_000

// messageID returns the id of the message for a prompt or a notice, always the
// same one for the same, and newer than the session's newest message.
func (c *Client) messageID(prompt, newest string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if id, ok := c.prompts[prompt]; ok {
		return id
	}
	ms := time.Now().Add(c.clock).UnixMilli()
	if ms <= c.last {
		ms = c.last
		c.counter++
	} else {
		c.counter = 0
	}
	c.last = ms
	stamp := uint64(ms)*0x1000 + uint64(c.counter&0xfff)
	id := "msg_" + ascending(stamp)
	if n := len("msg_") + 12; len(newest) >= n && id[:n] <= newest[:n] {
		if at, err := hex.DecodeString(newest[len("msg_"):n]); err == nil {
			id = "msg_" + ascending(fromBytes(at)+1)
		}
	}
	c.prompts[prompt], c.names[id] = id, prompt
	c.order = append(c.order, prompt)
	if len(c.order) > keptPrompts {
		delete(c.names, c.prompts[c.order[0]])
		delete(c.prompts, c.order[0])
		c.order = c.order[1:]
	}
	return id
}

// partID returns the id of the only part of a message.
func partID(message string) string { return "prt_" + message[len("msg_"):] }

func ascending(stamp uint64) string {
	var b [6]byte
	for i := range b {
		b[i] = byte(stamp >> (40 - 8*i))
	}
	var random [14]byte
	_, _ = rand.Read(random[:]) // never fails
	for i, r := range random {
		random[i] = base62[int(r)%len(base62)]
	}
	return hex.EncodeToString(b[:]) + string(random[:])
}

func fromBytes(b []byte) (n uint64) {
	for _, x := range b {
		n = n<<8 | uint64(x)
	}
	return n
}
