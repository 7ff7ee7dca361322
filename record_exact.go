package bgagent

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"time"
	"unicode/utf8"
)

// Ids, cursors and metadata come from hosts and clients and can contain any bytes. JSON strings
// contain only valid UTF-8, so the code in this file replaces each invalid byte with a rune.
// Decoding restores the bytes.

// firstEscape is the rune that stands for the byte 0. The runes for all bytes are private-use
// runes. If a string already contains such a rune, the rune is also escaped, so no information is
// lost.
const firstEscape = 0x10ff00

// escapeStart is the beginning of the UTF-8 encoding of each rune from firstEscape on.
var escapeStart = []byte("\xf4\x8f")

// encodeExactly is like json.Marshal, but decodeExactly can restore invalid UTF-8 in strings.
func encodeExactly(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil || !bytes.Contains(b, []byte(`\ufffd`)) && !bytes.Contains(b, escapeStart) {
		return b, err
	}
	return json.Marshal(mapStrings(reflect.ValueOf(v), escape).Interface())
}

// decodeExactly is the inverse of encodeExactly.
func decodeExactly(data []byte, v any) error {
	if err := json.Unmarshal(data, v); err != nil || !bytes.Contains(data, escapeStart) {
		return err
	}
	to := reflect.ValueOf(v).Elem()
	to.Set(mapStrings(to, unescape))
	return nil
}

// escape replaces invalid bytes with runes.
func escape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if invalid := r == utf8.RuneError && n == 1; invalid || r >= firstEscape {
			for _, c := range []byte(s[i : i+n]) {
				b.WriteRune(firstEscape + rune(c))
			}
		} else {
			b.WriteString(s[i : i+n])
		}
		i += n
	}
	return b.String()
}

// unescape is the inverse of escape.
func unescape(s string) string {
	var b strings.Builder
	for _, r := range s {
		if r >= firstEscape {
			b.WriteByte(byte(r - firstEscape))
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// mapStrings returns a copy of the value, with f applied to every string. Apart from byte slices,
// the copy does not share slices, maps or pointers with the value.
func mapStrings(v reflect.Value, f func(string) string) reflect.Value {
	to := reflect.New(v.Type()).Elem()
	to.Set(v)
	switch v.Kind() {
	case reflect.String:
		to.SetString(f(v.String()))
	case reflect.Pointer:
		if !v.IsNil() {
			to.Set(reflect.New(v.Type().Elem()))
			to.Elem().Set(mapStrings(v.Elem(), f))
		}
	case reflect.Slice:
		if !v.IsNil() && v.Type().Elem().Kind() != reflect.Uint8 {
			to.Set(reflect.MakeSlice(v.Type(), v.Len(), v.Len()))
			for i := range v.Len() {
				to.Index(i).Set(mapStrings(v.Index(i), f))
			}
		}
	case reflect.Map:
		if !v.IsNil() {
			to.Set(reflect.MakeMap(v.Type()))
			for _, key := range v.MapKeys() {
				to.SetMapIndex(mapStrings(key, f), mapStrings(v.MapIndex(key), f))
			}
		}
	case reflect.Struct:
		if v.Type() != reflect.TypeFor[time.Time]() {
			for i := range v.NumField() {
				if to.Field(i).CanSet() {
					to.Field(i).Set(mapStrings(v.Field(i), f))
				}
			}
		}
	}
	return to
}
