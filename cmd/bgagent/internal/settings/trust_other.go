//go:build !unix

package settings

// The function "trusted" accepts every file, because this package checks owners and modes only on Unix.
func trusted(string) error { return nil }
