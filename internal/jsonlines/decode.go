package jsonlines

import (
	"bytes"
	"encoding/json"
	"errors"
)

// Decode decodes an object into the struct that v points to, as far as possible. A
// value of the wrong type leaves the field of v unchanged. null sets pointers, maps,
// slices and interfaces to nil, and leaves other fields unchanged. If a field occurs twice,
// its last value of the right type counts. Decode reports whether the data was an object.
//
// A type with its own UnmarshalJSON must return nil for data that it cannot decode.
// Otherwise, the fields after that data are lost.
func Decode(object []byte, v any) bool {
	if object = bytes.TrimSpace(object); len(object) == 0 || object[0] != '{' {
		return false
	}
	err := json.Unmarshal(object, v)
	var other *json.UnmarshalTypeError
	return err == nil || errors.As(err, &other)
}
