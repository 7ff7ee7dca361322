//go:build !unix

package settings

// trusted accepts every file, because this system does not show who owns a file.
func trusted(string) error { return nil }
