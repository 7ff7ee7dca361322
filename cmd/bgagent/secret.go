package main

import (
	"fmt"
	"io"
	"os"
	"strings"
)

// minSecret is how many bytes a token or password must have, so that nobody can
// guess it.
const minSecret = 16

// maxSecret is how many bytes a file with a secret may have.
const maxSecret = 64 << 10

// secrets reads tokens and passwords, each from an environment variable or, if its
// name begins with @, from a file.
type secrets struct {
	used []string // the variables that were read
}

// read reads a secret. Errors begin with flag, which is the flag with its value, and
// call the secret what, such as "token".
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

// readSecret reads a file, without the line ends at its end.
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

// forget removes the variables from this program's environment, so that nothing that
// it starts inherits them.
func (s *secrets) forget() {
	for _, name := range s.used {
		_ = os.Unsetenv(name)
	}
}
