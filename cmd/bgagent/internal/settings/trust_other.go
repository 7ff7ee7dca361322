//go:build !unix

package settings

// trusted believes every file: there are no owners to look at here.
func trusted(string) error { return nil }
