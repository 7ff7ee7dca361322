package transcript

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The function "whole" returns the text of a log, which it reads in parts.
func whole(t *testing.T, dir, task string) string {
	t.Helper()
	var b strings.Builder
	for from := int64(0); ; {
		text, next, err := ReadLog(dir, task, from)
		require.NoError(t, err)
		require.LessOrEqual(t, len(text), partBytes)
		if next == from {
			require.Empty(t, text)
			return b.String()
		}
		b.WriteString(text)
		from = next
	}
}

func filesIn(t *testing.T, dir string, secrets *Secrets) *Files {
	return NewFiles(dir, secrets, func(err error) { t.Error(err) })
}

func TestLinesOfBothStreamsAreWrittenAsTheyEnd(t *testing.T) {
	dir := t.TempDir()
	f := filesIn(t, dir, &Secrets{})
	f.Printed("bg_1", 1, []byte("one\ntw"))
	require.Equal(t, "one\n", whole(t, dir, "bg_1"))
	f.Printed("bg_1", 2, []byte("a\x1b[31m problem\nand"))
	f.Printed("bg_1", 1, []byte("o\n"))
	f.Printed("bg_1", 2, []byte(" another\nand"))
	require.Equal(t, "one\nstderr: a problem\ntwo\nstderr: and another\n", whole(t, dir, "bg_1"))
	f.End("bg_1")
	require.Equal(t, "one\nstderr: a problem\ntwo\nstderr: and another\nstderr: and\n", whole(t, dir, "bg_1"))
	f.End("bg_1")
	f.Printed("bg_1", 1, []byte("again"))
	f.Printed("../x", 1, []byte("outside\n"))
	f.Close()
	require.True(t, strings.HasSuffix(whole(t, dir, "bg_1"), "stderr: and\nagain\n"))
	require.Empty(t, whole(t, dir, "bg_2"))
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 1)
	info, err := os.Stat(filepath.Join(dir, "bg_1", "0"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	require.NoError(t, RemoveLog(dir, "bg_1"))
	require.NoError(t, RemoveLog(dir, ".."))
	require.Empty(t, whole(t, dir, "bg_1"))
	require.DirExists(t, dir)
	(*Files)(nil).Close()
}

func TestSecretsAreMaskedHoweverTheOutputIsCut(t *testing.T) {
	const secret = "the-key-of-the-house"
	s := &Secrets{}
	s.Add("KEY", secret)
	text := "x " + secret + " y " + secret + "\n"
	long := strings.Repeat("x", lineBytes-7) + secret + " y\n"
	for cut := range len(text) {
		dir := t.TempDir()
		f := filesIn(t, dir, s)
		f.Printed("bg_1", 1, []byte(text[:cut]))
		f.Printed("bg_1", 1, []byte(text[cut:]))
		require.Equal(t, "x [KEY] y [KEY]\n", whole(t, dir, "bg_1"))
	}
	// A line that is too long is written in parts.
	for cut := lineBytes - 10; cut < len(long); cut++ {
		dir := t.TempDir()
		f := filesIn(t, dir, s)
		f.Printed("bg_1", 2, []byte(long[:cut]))
		f.Printed("bg_1", 2, []byte(long[cut:]))
		require.Equal(t, "stderr: "+strings.Repeat("x", lineBytes-7)+"[KEY] y\n", whole(t, dir, "bg_1"), cut)
	}
}

// A part of a long line must not end within a secret, even if the end of the secret is also the
// beginning of this or another secret.
func TestSecretsThatOverlapAreMaskedInLongLines(t *testing.T) {
	for _, values := range [][]string{
		{"sk-0123456789abcdefghijklmns"},
		{"aaaaaaaaaa"},
		{"abcabcabcabc"},
		{"the-first-key-shared", "shared-second-key"},
		{"abcdefgh", "abcdefghijkl"},
		{"key-of-\xe2\x80"}, // ends within a character
	} {
		s, secret := &Secrets{}, values[0]
		for i, v := range values {
			s.Add(fmt.Sprint("KEY", i), v)
		}
		line := strings.Repeat("x", lineBytes) + secret + " y " + values[len(values)-1] + secret + "\n"
		want := s.Mask(line)
		dir := t.TempDir()
		f := filesIn(t, dir, s)
		for cut := lineBytes - 1; cut < len(line); cut++ {
			task := fmt.Sprint("bg_", cut)
			f.Printed(task, 1, []byte(line[:cut]))
			f.Printed(task, 1, []byte(line[cut:]))
			if got := whole(t, dir, task); got != want {
				require.Equal(t, want[lineBytes:], got[min(lineBytes, len(got)):], "%q, cut at %d", values, cut)
			}
		}
	}
}

func TestALongLineIsNotCutWithinACharacter(t *testing.T) {
	dir := t.TempDir()
	f := filesIn(t, dir, &Secrets{})
	text := "a" + strings.Repeat("…", lineBytes)
	for from := 0; from < len(text); from += 10007 {
		f.Printed("bg_1", 1, []byte(text[from:min(from+10007, len(text))]))
	}
	f.End("bg_1")
	require.Equal(t, text+"\n", whole(t, dir, "bg_1"))
}

func TestTheBeginningAndTheEndOfALongLogAreKept(t *testing.T) {
	dir := t.TempDir()
	f := filesIn(t, dir, &Secrets{})
	var all strings.Builder
	for i := 0; all.Len() < 6*segmentBytes; i++ {
		lines := strings.Repeat(fmt.Sprintf("line %d of a program that prints much\n", i), 100)
		all.WriteString(lines)
		f.Printed("bg_1", 1, []byte(lines))
		if i%100 == 0 {
			f.End("bg_1") // the next output continues the log
		}
	}
	parts, err := segments(filepath.Join(dir, "bg_1"))
	require.NoError(t, err)
	require.Len(t, parts, segmentsKept)
	text := whole(t, dir, "bg_1")
	head, tail, found := strings.Cut(text, "[… ")
	require.True(t, found)
	note, tail, found := strings.Cut(tail, "\n")
	require.True(t, found)
	require.True(t, strings.HasPrefix(all.String(), head))
	require.True(t, strings.HasSuffix(all.String(), tail))
	require.GreaterOrEqual(t, len(head), segmentBytes)
	require.GreaterOrEqual(t, len(tail), segmentBytes)
	require.Equal(t, fmt.Sprintf("%d bytes are left out here …]", all.Len()-len(head)-len(tail)), note)

	_, next, err := ReadLog(dir, "bg_1", 1<<40)
	require.NoError(t, err)
	require.EqualValues(t, 1<<40, next, "no text is left")
}

func TestOldLogsAreRemovedAndTheLogsOfTasksThatPrintStay(t *testing.T) {
	dir := t.TempDir()
	old := filesIn(t, dir, &Secrets{})
	age := func(task string, by time.Duration) {
		old.Printed(task, 1, []byte(strings.Repeat("x", 1000)+"\n"))
		old.End(task)
		at := time.Now().Add(-by)
		require.NoError(t, os.Chtimes(filepath.Join(dir, task, "0"), at, at))
	}
	age("bg_new", 0)
	age("bg_older", 2*time.Hour)
	age("bg_oldest", 3*time.Hour)
	age("bg_prints", 8*24*time.Hour)
	age("bg_gone", 8*24*time.Hour)

	f := filesIn(t, dir, &Secrets{})
	f.Printed("bg_prints", 1, []byte("an unfinished line"))
	defer func(was int64) { logsBytes = was }(logsBytes)
	logsBytes = 3500
	f.End("bg_new") // the first call to End removes old logs
	for task, there := range map[string]bool{"bg_new": true, "bg_older": true, "bg_oldest": false, "bg_prints": true, "bg_gone": false} {
		require.Equal(t, there, whole(t, dir, task) != "", task)
	}
}

func TestALogThatCannotBeWrittenIsReportedOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	var got []error
	f := NewFiles(path, &Secrets{}, func(err error) { got = append(got, err) })
	for range 3 {
		f.Printed("bg_1", 1, []byte("x\n"))
	}
	require.Len(t, got, 1)
	require.ErrorContains(t, got[0], "the logs of tasks cannot be written")
	var pathError *os.PathError
	require.True(t, errors.As(got[0], &pathError))
}

func TestTextThatCouldNotBeWrittenIsWrittenLater(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "bg_1")
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	problems := 0
	f := NewFiles(dir, &Secrets{}, func(error) { problems++ })
	f.Printed("bg_1", 1, []byte("one\n"))
	f.Printed("bg_1", 2, []byte("two\nth"))
	require.Equal(t, 1, problems)
	require.NoError(t, os.Remove(path))
	f.Printed("bg_1", 2, []byte("ree\n"))
	require.Equal(t, "one\nstderr: two\nstderr: three\n", whole(t, dir, "bg_1"))

	// The amount of unsent text is limited, and the text begins with a whole line.
	path = filepath.Join(dir, "bg_2")
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	lines := strings.Repeat("a line\n", lineBytes/7)
	for range 2 * unsentBytes / lineBytes {
		f.Printed("bg_2", 1, []byte(lines))
	}
	require.NoError(t, os.Remove(path))
	f.Close()
	text := whole(t, dir, "bg_2")
	require.LessOrEqual(t, len(text), unsentBytes)
	require.Greater(t, len(text), unsentBytes-10)
	require.True(t, strings.HasPrefix(text, "a line\n"))
	require.Empty(t, f.logs)
}

func TestALogWhoseFolderWasRemovedGoesOn(t *testing.T) {
	dir := t.TempDir()
	f := filesIn(t, dir, &Secrets{})
	f.Printed("bg_1", 1, []byte("one\n"))
	require.NoError(t, RemoveLog(dir, "bg_1"))
	f.Printed("bg_1", 1, []byte("two\n"))
	text, next, err := ReadLog(dir, "bg_1", 4)
	require.NoError(t, err)
	require.Equal(t, "two\n", text, "the offsets continue")
	require.EqualValues(t, 8, next)
	require.Equal(t, "[… 4 bytes are left out here …]\ntwo\n", whole(t, dir, "bg_1"))
}

func TestNoLogIsRemovedWhileItIsWritten(t *testing.T) {
	defer func(was int64) { logsBytes = was }(logsBytes)
	logsBytes = 0 // each sweep removes all logs of tasks that do not print
	dir := t.TempDir()
	f := filesIn(t, dir, &Secrets{})
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 200 {
				f.Printed("bg_1", 1, []byte("x\n"))
				f.End("bg_1")
			}
		})
		all.Go(func() {
			for range 200 {
				f.sweep()
			}
		})
	}
	all.Wait()
	require.Empty(t, f.logs)
	f.Printed("bg_1", 1, []byte("the last line"))
	f.sweep()
	f.End("bg_1")
	require.True(t, strings.HasSuffix(whole(t, dir, "bg_1"), "the last line\n"))
}

func TestManyProgramsPrintAtTheSameTime(t *testing.T) {
	dir := t.TempDir()
	f := filesIn(t, dir, &Secrets{})
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for n := range 200 {
				f.Printed(fmt.Sprintf("bg_%d", i%4), 1+i/4, fmt.Appendf(nil, "%d\n", n))
			}
		})
	}
	all.Wait()
	for i := range 4 {
		text := whole(t, dir, fmt.Sprintf("bg_%d", i))
		require.Equal(t, 400, strings.Count(text, "\n"))
		require.Equal(t, 200, strings.Count(text, errPrefix))
	}
}
