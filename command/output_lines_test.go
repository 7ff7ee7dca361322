//go:build unix

package command

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

func TestLinesOfAnyLength(t *testing.T) {
	c := linesClient(t, func(cfg *Config) { cfg.MaxLine = 300 << 10 })
	end, err := play(t, c, create(t, c), "big 200000")
	require.NoError(t, err)
	require.Len(t, end.Text, 200000)
	end, err = play(t, c, create(t, c), "big 400000")
	require.NoError(t, err)
	kept := 300 << 10 / 8
	require.Equal(t, fmt.Sprintf(" [cut: %d more bytes]", 400000-kept), end.Text[kept:], "a long string in a line that is too long is cut")
	_, err = play(t, c, create(t, c), "flood 3000000")
	require.NoError(t, err)
}

func TestADroppedLineIsNamedWhenTheEndIsMissing(t *testing.T) {
	p := Lines("fake")
	p.Decode = func() Decoder {
		inner := DecodeLines()
		return func(line []byte, o *Output) {
			if !strings.Contains(string(line), `"end"`) {
				inner(line, o)
			}
		}
	}
	c := clientOf(t, fakeAgent(t, p), func(cfg *Config) { cfg.MaxLine = 1000 })
	_, err := play(t, c, create(t, c), "many 4000")
	require.Contains(t, failure(t, err).Problem, "; 1 line was too long to be read (Config.MaxLine: 1000 bytes)")
}

func TestAProgramThatPrintsGarbageForEverIsStopped(t *testing.T) {
	c := linesClient(t)
	end, err := play(t, c, create(t, c), "muteforever")
	require.Contains(t, failure(t, err).Problem, `first "garbage in, garbage out"`)
	require.Equal(t, bgagent.StopError, end.Stop)
}

func TestAProgramThatNeverEndsItsFirstLineIsStopped(t *testing.T) {
	c := linesClient(t, func(cfg *Config) { cfg.MaxLine = 100 << 10 })
	_, err := play(t, c, create(t, c), "muteline")
	require.Contains(t, failure(t, err).Problem, "it printed a line of more than 102400 bytes (Config.MaxLine), and nothing that its decoder knows; check that the program")
}

func TestAProgramThatReadsNothingDelaysNothing(t *testing.T) {
	a := fakeAgent(t, Lines("fake"))
	a.Args = []string{"--deaf"}
	c := clientOf(t, a)
	end, err := play(t, c, create(t, c), strings.Repeat("more than a pipe holds ", 50_000))
	require.NoError(t, err)
	require.Equal(t, "I hear nothing", end.Text)
}

func TestAPanicInADecoderIsTheErrorOfTheTurn(t *testing.T) {
	for name, bad := range map[string]func(){"panic": func() { panic("boom") }, "goexit": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			p := Lines("fake")
			p.Decode = func() Decoder { return func([]byte, *Output) { bad() } }
			c := clientOf(t, fakeAgent(t, p))
			id := create(t, c)
			_, err := play(t, c, id, "slow")
			require.Contains(t, failure(t, err).Problem, "its decoder panicked")
		})
	}
}
