package bgagent

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// The names of the host's file, the newest first. The one for all harnesses lies in
// a directory of its own.
var (
	hostNames    = []string{"oh-my-openagent.jsonc", "oh-my-openagent.json", "oh-my-opencode.jsonc", "oh-my-opencode.json"}
	unifiedNames = []string{"omo.jsonc", "omo.json"}
)

const unifiedDir = ".omo"

// FindConfigFiles returns the configuration files that exist in the usual places
// in the order in which [LoadConfig] wants them: the user's, then the project's. An
// empty projectDir means that there is no project. That nothing is found is no
// error.
//
// The user's is ~/.omo/omo.jsonc, whose settings stand under "[opencode]"; or else
// oh-my-openagent.jsonc in $XDG_CONFIG_HOME/opencode (~/.config/opencode where that
// is not set); or else, under the older name, oh-my-opencode.jsonc there. The
// project's is .omo/omo.jsonc or one of the others in .opencode. Each may end in
// .json instead. The newest that exists is returned and the older ones beside it
// are left alone, with one exception: a file for all harnesses that has no section
// for us is returned after the older one, so that the older one applies and
// [FileConfig.Ignored] says of the newer one that nothing in it does.
func FindConfigFiles(projectDir string) ([]string, error) {
	user, project := configPlaces{}, configPlaces{}
	home, err := os.UserHomeDir()
	if err == nil { // a service may well have no home, and so no file in it
		user.unified = filepath.Join(home, unifiedDir)
		user.own = filepath.Join(home, ".config", "opencode")
	}
	if dir := os.Getenv("XDG_CONFIG_HOME"); filepath.IsAbs(dir) { // a relative one is to be ignored, says the XDG specification
		user.own = filepath.Join(dir, "opencode")
	}
	if projectDir != "" {
		project = configPlaces{own: filepath.Join(projectDir, ".opencode"), unified: filepath.Join(projectDir, unifiedDir)}
	}
	var found []string
	for _, p := range []configPlaces{user, project} {
		paths, err := p.find()
		if err != nil {
			return nil, err
		}
		for _, path := range paths {
			if !slices.Contains(found, path) { // the project may be the user's home
				found = append(found, path)
			}
		}
	}
	return found, nil
}

// configPlaces are the directories in which the file of a user or a project may lie.
// An empty one does not exist.
type configPlaces struct{ own, unified string }

func (p configPlaces) find() ([]string, error) {
	own, err := firstFile(p.own, hostNames)
	if err != nil {
		return nil, err
	}
	unified, err := firstFile(p.unified, unifiedNames)
	switch {
	case err != nil:
		return nil, err
	case unified == "" && own == "":
		return nil, nil
	case unified == "":
		return []string{own}, nil
	case own == "" || hasSection(unified):
		return []string{unified}, nil
	}
	return []string{own, unified}, nil
}

// firstFile returns the first of the names that exists in the directory, or "".
func firstFile(dir string, names []string) (string, error) {
	if dir == "" {
		return "", nil
	}
	for _, name := range names {
		path := filepath.Join(dir, name)
		_, err := os.Lstat(path) // not Stat: a link that leads nowhere is a mistake to report, not an absent file
		if err == nil {
			return path, nil
		}
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
			return "", fileError(path, err)
		}
	}
	return "", nil
}

// hasSection reports whether the file has a section for us. One that cannot be read
// counts as if it had, so that loading it says what is wrong.
func hasSection(path string) bool {
	data, err := readConfigFile(path)
	if err != nil {
		return true
	}
	p := parseFile(path, data)
	return p.found || len(p.errs) > 0
}
