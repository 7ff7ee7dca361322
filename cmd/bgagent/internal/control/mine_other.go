//go:build !unix

package control

import "os"

// onlyMine returns nil: the permissions of the state folder decide who can read the file.
func onlyMine(*os.File) error { return nil }
