package main

import (
	"fmt"
	"io"
	"os"
	"strings"
)

// minSecret is how many bytes a token and a password must have, so that nobody
// guesses them.
const minSecret = 16

// maxSecret is how much of a file is read for one.
const maxSecret = 64 << 10

// secrets reads tokens and passwords, each from an environment variable, or from a
// file that is named with an @ before it.
type secrets struct {
	used []string // the variables that were read
}

// read reads a secret. The flag, with its value, is what the error calls it, and
// what says what it is, such as "token".
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
	if len(text) < minSecret {
		return "", fmt.Errorf("%s: the %s in %s has %d bytes; it must have at least %d", flag, what, from, len(text), minSecret)
	}
	return text, nil
}

// readSecret reads a file, without the line end at its end.
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

// forget removes the variables from this program's environment, so that nothing
// that it starts can be given them.
func (s *secrets) forget() {
	for _, name := range s.used {
		_ = os.Unsetenv(name)
	}
}
