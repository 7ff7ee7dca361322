//go:build !unix

package sqlite

import "io/fs"

// ownedAndPrivate accepts every file, because this system controls who can access a user's folders.
func ownedAndPrivate(string, fs.FileInfo) error { return nil }

// syncFolder does nothing, because this package syncs folders only on Unix systems.
func syncFolder(string) error { return nil }
