package agents

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// FindModule returns the top directory of the module that dir belongs to. Its errors are sentences
// that are meant for the user who named the directory.
func FindModule(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("the directory %s cannot be found: %w", dir, err)
	}
	info, err := os.Stat(abs)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "", fmt.Errorf("the directory %s does not exist", dir)
	case err != nil:
		return "", fmt.Errorf("the directory %s cannot be read: %w", dir, err)
	case !info.IsDir():
		return "", fmt.Errorf("%s is not a directory", dir)
	}
	for at := abs; ; at = filepath.Dir(at) {
		if info, err := os.Stat(filepath.Join(at, "go.mod")); err == nil && info.Mode().IsRegular() {
			return at, nil
		}
		if at == filepath.Dir(at) {
			return "", fmt.Errorf("there is no go.mod in %s or above it; name a Go module with -dir", abs)
		}
	}
}
