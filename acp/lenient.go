package acp

import (
	"bytes"
	"encoding/json"
	"reflect"
	"slices"

	"github.com/bgagent/bgagent/internal/asktext"
)

// Decoding a value into the SDK's types fails if any part of the value has the wrong type. The
// function "readable" leaves out only the wrong parts.

const (
	mostTries = 2000 // maximum number of attempts to decode one value; after that, the value is refused
	mostDepth = 12   // number of nesting levels at which parts of a value can be left out
)

// The function "readable" decodes the JSON value into v, which is a pointer. If that fails, it
// leaves out the parts that cannot be decoded, at any level, and reports true. If the rest cannot
// be decoded either, it returns the error for the whole value.
func readable(raw []byte, v any) (left bool, err error) {
	if err = json.Unmarshal(raw, v); err == nil {
		return false, nil
	}
	typ := reflect.TypeOf(v).Elem()
	m := mender{tries: mostTries}
	mended, ok := m.mend(raw, mostDepth, func(b []byte) bool { return json.Unmarshal(b, reflect.New(typ).Interface()) == nil })
	if !ok {
		return true, err
	}
	reflect.ValueOf(v).Elem().SetZero()
	return true, json.Unmarshal(mended, v)
}

// The function "exact" returns the input of a tool call, with all numbers as the agent wrote them.
// It reads the input from the parameters of the message. The argument "input" holds the input as
// the SDK decoded it, with large numbers rounded. The argument "name" is the name of the field that
// contains the call.
func exact(params json.RawMessage, name string, input any) any {
	if input == nil {
		return nil
	}
	var fields map[string]json.RawMessage
	var call struct {
		RawInput json.RawMessage `json:"rawInput"`
	}
	if json.Unmarshal(params, &fields) != nil || json.Unmarshal(fields[name], &call) != nil {
		return input
	}
	if v, ok := asktext.Decode(call.RawInput); ok {
		return v
	}
	return input
}

// The function "rounded" returns the value with its numbers as the package encoding/json decodes them by
// default. It does not change v.
func rounded(v any) any {
	switch v := v.(type) {
	case json.Number:
		f, _ := v.Float64() // infinite if the number is too large
		return f
	case []any:
		out := make([]any, len(v))
		for i, x := range v {
			out[i] = rounded(x)
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, x := range v {
			out[k] = rounded(x)
		}
		return out
	}
	return v
}

// mender makes values decodable by leaving out parts.
type mender struct{ tries int }

// kinds are the names of fields that determine the type of a value, and thus how the value's other
// fields are decoded.
var kinds = []string{"sessionUpdate", "type", "outcome"}

// field is a field of an object or an element of an array. An element has no name.
type field struct {
	name  string
	value json.RawMessage
}

// The method "mend" returns the value without the parts for which the function "fits" returns
// false. It reports false if no part can be kept.
func (m *mender) mend(value []byte, depth int, fits func([]byte) bool) ([]byte, bool) {
	if m.tries--; m.tries < 0 {
		return nil, false
	}
	if fits(value) {
		return value, true
	}
	list, object, ok := parts(value)
	if !ok || depth == 0 {
		return nil, false
	}
	var kept []field
	if object { // every other field is tried together with the fields named in "kinds"
		for _, f := range list {
			if slices.Contains(kinds, f.name) {
				kept = append(kept, f)
			}
		}
	}
	with := slices.Clip(kept)
	for _, f := range list {
		if object && slices.Contains(kinds, f.name) {
			continue
		}
		fitting, ok := m.mend(f.value, depth-1, func(b []byte) bool { return fits(whole(append(with, field{f.name, b}), object)) })
		if ok {
			kept = append(kept, field{f.name, fitting})
		}
	}
	all := whole(kept, object)
	return all, fits(all)
}

// parts returns the fields of an object, or the elements of an array.
func parts(value []byte) (list []field, object, ok bool) {
	in := json.NewDecoder(bytes.NewReader(value))
	begin, err := in.Token()
	if object = begin == json.Delim('{'); err != nil || !object && begin != json.Delim('[') {
		return nil, false, false
	}
	for in.More() {
		var f field
		if object {
			name, err := in.Token()
			if err != nil {
				return nil, object, false
			}
			f.name, _ = name.(string)
		}
		if in.Decode(&f.value) != nil {
			return nil, object, false
		}
		list = append(list, f)
	}
	return list, object, true
}

// The function "whole" joins the fields into an object or the elements into an array.
func whole(list []field, object bool) []byte {
	ends := "[]"
	if object {
		ends = "{}"
	}
	b := []byte{ends[0]}
	for i, f := range list {
		if i > 0 {
			b = append(b, ',')
		}
		if object {
			name, _ := json.Marshal(f.name) // strings can always be encoded
			b = append(append(b, name...), ':')
		}
		b = append(b, f.value...)
	}
	return append(b, ends[1])
}
