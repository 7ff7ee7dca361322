package bgagent

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// The possible names of the host's configuration file, newest first. The names in unifiedNames
// belong to the host's file for all harnesses. That file is in the directory unifiedDir.
var (
	hostNames    = []string{"oh-my-openagent.jsonc", "oh-my-openagent.json", "oh-my-opencode.jsonc", "oh-my-opencode.json"}
	unifiedNames = []string{"omo.jsonc", "omo.json"}
)

const unifiedDir = ".omo"

// FindConfigFiles returns the paths of the existing configuration files in the usual
// places, in the order that [LoadConfig] needs: the user's file, then the project's file. An empty
// projectDir means that there is no project. If there are no files, FindConfigFiles returns neither
// paths nor an error.
//
// The user's file is ~/.omo/omo.jsonc, with the settings under "[opencode]". If that
// file does not exist, the user's file is oh-my-openagent.jsonc in
// $XDG_CONFIG_HOME/opencode or, under its older name, oh-my-opencode.jsonc in the same
// directory. If XDG_CONFIG_HOME is not set, the directory is ~/.config/opencode. The
// project's file is .omo/omo.jsonc in projectDir, or else a file with one of the other
// two names in projectDir/.opencode. The name of each file can end in .json instead of
// .jsonc.
//
// If several of these files exist, only the newest kind of file is returned, with one exception: if
// omo.jsonc has no section background_task, it is returned after the older file. The values of the
// older file then apply, and [FileConfig.Ignored] reports that omo.jsonc has no effect.
func FindConfigFiles(projectDir string) ([]string, error) {
	user, project := configPlaces{}, configPlaces{}
	home, err := os.UserHomeDir()
	if err == nil { // a service might have no home directory
		user.unified = filepath.Join(home, unifiedDir)
		user.own = filepath.Join(home, ".config", "opencode")
	}
	if dir := os.Getenv("XDG_CONFIG_HOME"); filepath.IsAbs(dir) { // the XDG specification requires programs to ignore relative paths
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
			if !slices.Contains(found, path) { // the project directory can be the user's home directory
				found = append(found, path)
			}
		}
	}
	return found, nil
}

// configPlaces holds the directories for the files of a user or of a project. An empty
// path means that there is no such directory.
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

// firstFile returns the path of the first of the named files that exists in the
// directory, or "" if none of them exists.
func firstFile(dir string, names []string) (string, error) {
	if dir == "" {
		return "", nil
	}
	for _, name := range names {
		path := filepath.Join(dir, name)
		_, err := os.Lstat(path) // with Stat, a broken link would count as an absent file and would not be reported
		if err == nil {
			return path, nil
		}
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
			return "", fileError(path, err)
		}
	}
	return "", nil
}

// hasSection reports whether the file has a section background_task. It returns true for
// a file that cannot be read or parsed, so that LoadConfig reports the error.
func hasSection(path string) bool {
	data, err := readConfigFile(path)
	if err != nil {
		return true
	}
	p := parseFile(path, data)
	return p.found || len(p.errs) > 0
}
