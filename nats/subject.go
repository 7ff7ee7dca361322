package bgnats

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"regexp"
	"strconv"
)

// names contains the names that one store uses on the servers.
type names struct {
	stream string
	root   string // beginning of all subjects
}

// validName matches valid store names. A name is part of a subject, so it must not contain dots,
// wildcards or spaces.
var validName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

func namesOf(store string) (names, error) {
	if !validName.MatchString(store) {
		return names{}, fmt.Errorf("bgnats: the name %q of a store must have 1 to 64 characters, each of which is a letter, a digit, - or _", store)
	}
	return names{stream: "BGAGENT_" + store, root: "bgagent." + store}, nil
}

// subjects returns the subjects of the stream.
func (n names) subjects() []string {
	return []string{n.meta(), n.root + ".r.*", n.root + ".x.*.*.*", n.root + ".j.*.*"}
}

// meta returns the subject of the message about the store itself.
func (n names) meta() string { return n.root + ".m" }

func (n names) record(key string) string { return n.root + ".r." + token(key) }

// parts returns the common beginning of the subjects for a text, or for data that needs several messages. The
// number of the part follows.
func (n names) parts(key, name string) string { return n.root + ".x." + token(key) + "." + name + "." }

// allParts returns a subject that matches the parts of all of a record's texts and data.
func (n names) allParts(key string) string { return n.root + ".x." + token(key) + ".>" }

func (n names) journal(id string, part int) string {
	return n.root + ".j." + id + "." + strconv.Itoa(part)
}

// alive returns the subject on which the owner with the given token answers that it is alive. It does not
// belong to the stream.
func (n names) alive(owner string) string { return n.root + ".alive." + owner }

// ask returns the subject on which the owner with the given token answers a question. It does not
// belong to the stream.
func (n names) ask(owner, verb string) string { return n.root + ".ask." + owner + "." + verb }

// These are the names of parts. The name of a text begins with textName.
const (
	dataName = "d"
	textName = "t"
)

// longToken is the minimum length, in bytes, of a key that is replaced with its hash. The limit is needed
// because servers limit a protocol line to 4,096 bytes.
const longToken = 512

// token encodes any string as a subject token. Different strings have different tokens.
func token(s string) string {
	if len(s) >= longToken {
		sum := sha256.Sum256([]byte(s))
		return "h" + hex.EncodeToString(sum[:])
	}
	return "k" + base64.RawURLEncoding.EncodeToString([]byte(s))
}

// untoken returns the string that the token encodes, or false if the token is a hash.
func untoken(t string) (string, bool) {
	if t == "" || t[0] != 'k' {
		return "", false
	}
	s, err := base64.RawURLEncoding.DecodeString(t[1:])
	return string(s), err == nil
}
