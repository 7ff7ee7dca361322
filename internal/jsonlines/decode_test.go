package jsonlines

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFieldsThatCannotBeReadAreLeftOut(t *testing.T) {
	type inner struct {
		Message string
		Code    int
	}
	type object struct {
		Type  string
		Cost  float64
		N     int64
		List  []string
		Inner inner
		Last  string
	}
	for in, want := range map[string]object{
		`{"type":"x","cost":0.5,"n":1,"list":["a"],"inner":{"message":"m"},"last":"l"}`: {"x", 0.5, 1, []string{"a"}, inner{"m", 0}, "l"},
		`{"type":"x","cost":"0.5","n":1.5,"list":"a","inner":[],"last":"l"}`:            {Type: "x", Last: "l"},
		`{"type":"x","cost":1e999,"n":1e99,"list":[{"a":1},"b"],"last":"l"}`:            {Type: "x", List: []string{"", "b"}, Last: "l"},
		`{"type":"x","inner":{"message":7,"code":8},"last":"l"}`:                        {Type: "x", Inner: inner{"", 8}, Last: "l"},
		`{"type":"x","cost":null,"n":null,"list":null,"inner":null,"last":"l"}`:         {Type: "x", Last: "l"},
		`{"type":"x","type":7,"last":"k","last":"l","inner":{"code":1},"inner":"no"}`:   {Type: "x", Inner: inner{"", 1}, Last: "l"},
		`{"type":{"a":{"b":[1,2,{}]}},"last":"l"}`:                                      {Last: "l"},
	} {
		var got object
		require.True(t, Decode([]byte(in), &got), in)
		require.Equal(t, want, got, in)
	}
	for _, in := range []string{"", "[]", "1", "null", `"x"`, "{", `{"type":"x"} y`} {
		require.False(t, Decode([]byte(in), &object{}), in)
	}
}
