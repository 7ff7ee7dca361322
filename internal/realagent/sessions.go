package realagent

import (
	"os"
	"path/filepath"
	"strings"
)

// sessionFiles are the patterns for the files where the programs store their sessions. ID stands
// for the id of the session, and PART for its first 8 characters. opencode's database contains all
// sessions.
var sessionFiles = []string{
	"claude/projects/*/*ID.jsonl",
	"codex/sessions/*/*/*/rollout-*ID.jsonl",
	"home/.gemini/tmp/*/chats/session-*PART*",
	"data/opencode/opencode.db*",
}

// SessionFiles returns the files where the programs have stored the session. If the id is empty,
// it returns the files of all sessions.
func (w *World) SessionFiles(id string) (files []string) {
	in := strings.NewReplacer("ID", id, "PART", id[:min(8, len(id))])
	for _, pattern := range sessionFiles {
		found, _ := filepath.Glob(w.path(in.Replace(filepath.FromSlash(pattern)))) // cannot fail, because the patterns are valid
		files = append(files, found...)
	}
	return files
}

// HasStored reports whether a program has stored a prompt that contains the text. The text must not
// contain characters that JSON escapes.
func (w *World) HasStored(text string) bool {
	for _, file := range w.SessionFiles("") {
		content, _ := os.ReadFile(file) // fails if opencode has just removed this file of its database
		for line := range strings.Lines(string(content)) {
			// Before it stores the prompt, Claude Code also stores the text in other lines.
			if strings.Contains(line, text) && (strings.Contains(line, `"user"`) || strings.Contains(file, "opencode.db")) {
				return true
			}
		}
	}
	return false
}
