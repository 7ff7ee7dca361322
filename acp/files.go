package acp

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/permission"
	sdk "github.com/coder/acp-go-sdk"
	"github.com/google/uuid"
)

// FileAccess is the file access that an agent has through the client. The access is confined to the
// session's directory. Paths that lead out of that directory, by .. or through a symbolic link, are
// refused.
type FileAccess uint8

// Kinds of file access.
const (
	FilesNone      FileAccess = iota // no access; the client does not offer file access to the agent
	FilesRead                        // read text files
	FilesReadWrite                   // read, write and create text files
)

// maxFile is the maximum size, in bytes, of a text that can be read or written.
const maxFile = 8 << 20

// readFile implements fs/read_text_file.
func (c *Client) readFile(t *turn, q sdk.ReadTextFileRequest) (_ any, err error) {
	defer func() { err = c.refusedFile(t, "reading", q.Path, err) }()
	if c.cfg.Files < FilesRead {
		return nil, errors.New("the host does not let agents read files through it")
	}
	root, name, err := c.open(t, q.Path, "read")
	if err != nil {
		return nil, err
	}
	defer closing(root)
	f, err := root.OpenFile(name, os.O_RDONLY|nonBlocking, 0)
	if err != nil {
		return nil, cleared(err)
	}
	defer closing(f)
	if err := isRegular(f); err != nil {
		return nil, err
	}
	text, err := readLines(f, value(q.Line), q.Limit)
	if err != nil {
		return nil, err
	}
	return sdk.ReadTextFileResponse{Content: text}, nil
}

// writeFile implements fs/write_text_file.
func (c *Client) writeFile(t *turn, q sdk.WriteTextFileRequest) (_ any, err error) {
	defer func() { err = c.refusedFile(t, "writing", q.Path, err) }()
	switch {
	case c.cfg.Files < FilesReadWrite:
		return nil, errors.New("the host does not let agents write files through it")
	case len(q.Content) > maxFile:
		return nil, fmt.Errorf("the text has %d bytes; write at most %d", len(q.Content), maxFile)
	}
	root, name, err := c.open(t, q.Path, "edit")
	if err != nil {
		return nil, err
	}
	defer closing(root)
	if err := root.MkdirAll(filepath.Dir(name), 0o777); err != nil {
		return nil, cleared(err)
	}
	if err := writeText(root, name, q.Content); err != nil {
		return nil, cleared(err)
	}
	return sdk.WriteTextFileResponse{}, nil
}

// writeText writes the file. It first writes the text into a new file in the same
// directory and then renames it, so that the old text is not lost if the disk is full.
// It overwrites symbolic links and files with several hard links in place, because
// replacing them would break the links.
func writeText(root *os.Root, name, text string) error {
	old, err := root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return replace(root, name, text, nil)
	case err != nil:
		return err
	case !old.Mode().IsRegular() || names(old) > 1:
		return overwrite(root, name, text)
	}
	f, err := root.OpenFile(name, os.O_WRONLY|nonBlocking, 0) // if the file cannot be opened for writing, it must not be replaced either
	if err != nil {
		return err
	}
	closing(f)
	if err = replace(root, name, text, old); errors.Is(err, errInPlace) {
		err = overwrite(root, name, text)
	}
	return err
}

// errInPlace means that it is not possible to create a new file with the owner and mode of the old
// file.
var errInPlace = errors.New("it can only be written in place")

// The function "replace" writes the text into a new file and then renames that file to the given
// name. If there is an old file, the new file replaces it and gets its owner and mode.
func replace(root *os.Root, name, text string, old fs.FileInfo) (err error) {
	beside := filepath.Join(filepath.Dir(name), ".bgagent-"+uuid.NewString())
	f, err := root.OpenFile(beside, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		if old != nil && errors.Is(err, fs.ErrPermission) { // the directory is not writable
			return errInPlace
		}
		return err
	}
	defer func() {
		if err != nil {
			_ = root.Remove(beside) // the first error is more helpful than an error from Remove
		}
	}()
	_, err = io.WriteString(f, text)
	if err == nil && old != nil && (chownAs(f, old) != nil || f.Chmod(old.Mode()) != nil) {
		err = errInPlace
	}
	if e := f.Close(); err == nil {
		err = e // network file systems report a full disk only when a file is closed
	}
	if err == nil {
		err = root.Rename(beside, name)
	}
	return err
}

// The function "overwrite" writes the text directly into the file, without creating a temporary
// file.
func overwrite(root *os.Root, name, text string) error {
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|nonBlocking, 0o666)
	if err != nil {
		return err
	}
	err = isRegular(f) // check this before Truncate deletes the old text
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		_, err = io.WriteString(f, text)
	}
	if e := f.Close(); err == nil {
		err = e
	}
	return err
}

// refusedFile adds the operation and the path to the error. It records the refusal unless
// the file does not exist.
func (c *Client) refusedFile(t *turn, doing, path string, err error) error {
	if err == nil {
		return nil
	}
	err = fmt.Errorf("%s %.300q: %w", doing, path, err)
	if !errors.Is(err, fs.ErrNotExist) {
		c.refuse(t, err.Error())
	}
	return err
}

// The method "open" checks the rules for the path and opens the session's directory. It returns the
// path relative to that directory.
func (c *Client) open(t *turn, path, kind string) (*os.Root, string, error) {
	name, err := inside(t.s.dir, path)
	if err != nil {
		return nil, "", err
	}
	if ruling(t.prompt.Permissions, subject{access: permission.Of(kind), texts: []string{filepath.Join(t.s.dir, name)}, dir: t.s.dir, real: realPath(t.s.dir)}) == bgagent.PermissionDeny {
		return nil, "", errors.New("a rule of the host denies it")
	}
	root, err := os.OpenRoot(t.s.dir)
	if err != nil {
		return nil, "", fmt.Errorf("the working directory of the session cannot be opened: %w", err)
	}
	return root, name, nil
}

// The function "inside" returns the path relative to the directory. It checks only the text of
// the path; os.Root prevents links from leading out of the directory.
func inside(dir, path string) (string, error) {
	if path == "" {
		return "", errors.New("the path is empty")
	}
	if !filepath.IsAbs(path) {
		return "", errors.New("the path is not absolute")
	}
	dirs := []string{dir}
	if real, err := filepath.EvalSymlinks(dir); err == nil && real != dir {
		dirs = append(dirs, real) // agents often resolve the links in paths
	}
	for _, d := range dirs {
		if rel, err := filepath.Rel(d, path); err == nil && filepath.IsLocal(rel) && rel != "." {
			return rel, nil
		}
	}
	return "", fmt.Errorf("it is not in the working directory of the session, %s", dir)
}

// isRegular returns an error unless f is a regular file. Reading any other kind of file can block
// or never end.
func isRegular(f *os.File) error {
	info, err := f.Stat()
	switch {
	case err != nil:
		return cleared(err)
	case !info.Mode().IsRegular():
		return fmt.Errorf("it is not a regular file but %s", info.Mode().Type())
	}
	return nil
}

// The function "cleared" removes the path from an error that the file system returned. That path is
// relative to the session's directory, and the caller adds the path that the agent sent.
func cleared(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	var le *os.LinkError
	if errors.As(err, &le) {
		return le.Err
	}
	return err
}

// readLines returns the text from the given line to the end. Lines are counted from 1. limit is the
// maximum number of lines; nil means that there is no maximum.
func readLines(r io.Reader, line int, limit *int) (string, error) {
	in := bufio.NewReader(io.LimitReader(r, maxFile+1))
	var b strings.Builder
	read, taken := 0, 0
	for n := 1; limit == nil || taken < *limit; n++ {
		s, err := in.ReadString('\n')
		if read += len(s); read > maxFile {
			return "", fmt.Errorf("it has more than %d bytes; read a smaller file, or only lines within the first %[1]d bytes", maxFile)
		}
		if n >= line {
			b.WriteString(s)
			taken++
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "", cleared(err)
		}
	}
	if text := b.String(); utf8.ValidString(text) {
		return text, nil
	}
	return "", errors.New("it is not UTF-8 text")
}

func closing(c io.Closer) { _ = c.Close() }
