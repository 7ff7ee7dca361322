//go:build !unix

package settings

// trusted trusts every file, because this system shows no owners.
func trusted(string) error { return nil }
