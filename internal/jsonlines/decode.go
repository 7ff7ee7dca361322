package jsonlines

import (
	"bytes"
	"encoding/json"
	"errors"
)

// Decode reads an object into the struct that v points to, as far as it can be
// read. A field that has another type than v has for it, or null, is left as it
// is; of a field that comes twice the last one that can be read counts. It
// reports whether the data was an object.
//
// A type with an UnmarshalJSON of its own must return nil for what it cannot
// read, or the fields after it are lost.
func Decode(object []byte, v any) bool {
	if object = bytes.TrimSpace(object); len(object) == 0 || object[0] != '{' {
		return false
	}
	err := json.Unmarshal(object, v)
	var other *json.UnmarshalTypeError
	return err == nil || errors.As(err, &other)
}
