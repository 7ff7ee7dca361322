// Package jsonlines reads the JSON objects in the output of a program that prints one object
// per line. It copes with any other text in the output.
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
// Escape sequences and other control characters are removed. Byte-order marks and white space
// around objects and text are ignored. A carriage return divides a line into parts that are
// treated as separate lines. A line is divided into objects and text:
//
//   - An object without text in front of it counts: {"a":1}, {"a":1}{"b":2} and
//     {"a":1} done.
//   - An object after text counts if only objects follow it. The text may be a banner without
//     a newline, or a truncated line that was joined with the next line.
//   - An object with text on both sides does not count: log: {"a":1} done.
//   - An object that is a value in another object never counts, even if the outer
//     object is broken or truncated.
//   - An object on a line with text does not count if Config.Echo contains the object,
//     because a repetition of the program's input is not an event. JSON in a string is
//     escaped, so it is never treated as an object.
//
// Words such as NaN, Infinity and None, which other languages write into JSON, are read
// as null. Control characters in strings become spaces. In a line that is too long, long
// strings are shortened and end with a note. Input that begins with a UTF-16 byte-order mark is decoded.
package jsonlines
