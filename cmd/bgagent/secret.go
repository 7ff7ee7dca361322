package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"unicode"
	"unicode/utf8"
)

// minSecret is the minimum length of a token or password, in bytes. A shorter secret could be
// guessed.
const minSecret = 16

// maxSecret is the maximum size, in bytes, of a file with a token or password.
const maxSecret = 64 << 10

// The type "secrets" reads tokens and passwords from environment variables and files.
type secrets struct {
	used []string // names of the environment variables that were read
}

// read reads a secret. The argument "from" is the name of an environment variable, or an @ followed by the
// path of a file. The other arguments are for error messages: the flag with its value, and a noun for the
// secret, such as "token".
func (s *secrets) read(flag, from, what string) (string, error) {
	text := ""
	if path, ok := strings.CutPrefix(from, "@"); ok {
		var err error
		if text, err = readSecret(path); err != nil {
			return "", fmt.Errorf("%s: reading the %s: %w", flag, what, err)
		}
	} else if text = os.Getenv(from); text == "" {
		return "", fmt.Errorf("%s: the environment variable %s is not set; it must hold the %s", flag, from, what)
	} else {
		s.used = append(s.used, from)
	}
	if !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl) {
		return "", fmt.Errorf("%s: the %s in %s contains bytes that are not text; save it as UTF-8 text, in one line", flag, what, from)
	}
	if len(text) < minSecret {
		return "", fmt.Errorf("%s: the %s in %s has %d bytes; it must have at least %d", flag, what, from, len(text), minSecret)
	}
	return text, nil
}

// readSecret returns the text of a file without a byte-order mark and without trailing
// line breaks.
func readSecret(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err == nil && len(b) > maxSecret {
		err = fmt.Errorf("%s is larger than %d bytes", path, maxSecret)
	}
	return strings.TrimRight(strings.TrimPrefix(string(b), "\ufeff"), "\r\n"), err
}

// The function "private" returns an error if other users can access the file.
func private(path string) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return unpathed(err)
	case runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("other users can access the file (its mode is %04o); chmod 600 it", info.Mode().Perm())
	}
	return nil
}

// forget removes the variables from this program's environment, so that the programs that it starts do not
// inherit them.
func (s *secrets) forget() {
	for _, name := range s.used {
		_ = os.Unsetenv(name)
	}
}
