// Package jsonlines reads the JSON objects that a program prints, one to a line,
// whatever else it prints beside them.
//
//	in := jsonlines.NewReader(stdout, jsonlines.Config{Echo: prompt})
//	for {
//		object, err := in.Next()
//		if err != nil {
//			break // io.EOF, ErrNoise, or the error of stdout
//		}
//		var x event
//		if !jsonlines.Decode(object, &x) || !known(x) {
//			in.Reject(object)
//		}
//	}
//	if noise := in.Noise(); bad && noise.Any() {
//		problem += "; " + noise.String() // 2 lines were not understood, the first: "…"
//	}
//
// # What counts as an object
//
// Escape sequences, other control characters, byte-order marks and white space
// are removed wherever they stand. A carriage return ends what a line has so far,
// as on a terminal. What is left is divided into objects and text:
//
//   - An object counts when no text stands before it: {"a":1}, {"a":1}{"b":2}
//     and {"a":1} done.
//   - An object behind text counts when nothing but objects follows: a banner that
//     has no line end, or a line that was cut and joined with the next.
//   - An object between texts does not count: log: {"a":1} done.
//   - An object that is the value in another one never counts, even when the
//     outer one is broken or was cut off.
//   - An object on a line with text does not count when Config.Echo holds it: what
//     a program was told, and prints again, is no event. JSON in a string is
//     escaped and so never looks like an object.
//
// Words such as NaN, Infinity and None, which other languages write into JSON,
// are read as null, and raw control characters in strings are removed. In a line
// that is too long, long strings are cut. UTF-16 is read where a byte-order mark
// says so.
package jsonlines
