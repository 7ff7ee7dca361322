package bridge

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// idFolder is the name of the folder that contains the file with the id. This folder is in the state folder.
const idFolder = "bridge-id"

// ID returns the id that all keys of a user's bridges have in common. It is random, so that the bridges of
// two users never have the same key. The first bridge writes it into the state folder. The argument "base" is
// the state folder's path. The folder must exist.
//
// Several processes can call ID at the same time. The folder with the file gets its name only when
// the file is complete, and no file system renames a folder to the name of an existing folder that
// is not empty. Therefore, all processes return the same id. A hard link to a complete file would
// have the same effect, but not every file system supports links.
func ID(base string) (string, error) {
	folder := filepath.Join(base, idFolder)
	path := filepath.Join(folder, "id")
	id, err := readID(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return id, err
	}
	part, err := os.MkdirTemp(base, idFolder+".")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(part)
	if err := writeID(filepath.Join(part, filepath.Base(path))); err != nil {
		return "", err
	}
	renamed := os.Rename(part, folder)
	// If another process was faster, its id is used. The rename's error differs between systems.
	if id, err = readID(path); err != nil && renamed != nil {
		return "", errors.Join(renamed, err)
	}
	return id, err
}

func readID(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err == nil && len(b) == 0 {
		return "", fmt.Errorf("%s is empty; remove the folder it is in", path)
	}
	return string(b), err
}

// writeID writes a new id. The file is complete even if the machine stops.
func writeID(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(rand.Text())
	return errors.Join(err, f.Sync(), f.Close())
}
