package bridge

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// The restrictions that apply to a task's launch are in the task's metadata. A bridge inside a turn can also
// restrict tasks that were launched before it was opened. Such restrictions are stored in a file, so that
// they still apply after the server restarts.

// keptScope is the record of a scope inside a turn, as it is stored in the file.
type keptScope struct {
	Task   string   `json:"task"`
	Narrow []Narrow `json:"narrow"`
}

// save writes the restrictions of the scopes inside turns into the file. s.mu must be held.
func (s *Server) save(scopes map[string]*scope) error {
	if s.cfg.File == "" {
		return nil
	}
	kept := map[string]keptScope{}
	for name, sc := range scopes {
		if sc.task != "" && len(sc.narrow) > 0 {
			kept[name] = keptScope{sc.task, sc.narrow}
		}
	}
	b, err := json.Marshal(kept)
	if err != nil {
		return err
	}
	part := s.cfg.File + ".part"
	f, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(part, s.cfg.File)
}

// load reads the file of an earlier server.
func (s *Server) load() error {
	if s.cfg.File == "" {
		return nil
	}
	b, err := os.ReadFile(s.cfg.File)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var kept map[string]keptScope
	if err == nil {
		dec := json.NewDecoder(bytes.NewReader(b))
		dec.DisallowUnknownFields() // an unknown field could be a restriction
		err = dec.Decode(&kept)
	}
	if err != nil {
		return fmt.Errorf("the server cannot read the restrictions that bridges inside turns had set before it was started: %w; to give them up, remove %s and start the server again", err, s.cfg.File)
	}
	for name, k := range kept {
		s.scopes[name] = &scope{task: k.Task, narrow: k.Narrow}
	}
	return nil
}
