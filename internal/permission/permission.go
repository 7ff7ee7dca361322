// Package permission defines the vocabulary of permission rules ([bgagent.Permission]). All
// session clients use it to interpret rules, so a word has the same meaning for all clients.
// Spelling variants of a word are accepted. Each client declares with [Client] which rules it
// can enforce. A rule that the client cannot enforce is refused.
package permission

import (
	"slices"
	"strings"

	"github.com/bgagent/bgagent"
)

// Kind is a kind of access. Its value is this library's own word for that kind.
type Kind string

// The kinds of access.
const (
	Read      Kind = "read"
	Search    Kind = "search" // glob, grep or list
	Glob      Kind = "glob"
	Grep      Kind = "grep"
	List      Kind = "list"
	Edit      Kind = "edit"
	Delete    Kind = "delete"
	Move      Kind = "move"
	Bash      Kind = "bash"
	Web       Kind = "web" // webfetch or websearch
	WebFetch  Kind = "webfetch"
	WebSearch Kind = "websearch"
	Task      Kind = "task" // starting further agents
	Skill     Kind = "skill"
	Todo      Kind = "todowrite"
	Question  Kind = "question"
	Think     Kind = "think"
	Mode      Kind = "mode"
)

// entry describes one kind.
type entry struct {
	kind   Kind
	within Kind   // kind that contains this kind; empty if there is none
	what   string // name of the access in error messages
	some   string // name of the access in error messages about rules with patterns
	minor  bool   // a client accepts a rule for all names even if it cannot enforce the rule for this kind
	words  string // other words for the kind, folded and separated by spaces
}

// vocabulary lists the kinds. Each kind comes after the kind that contains it.
var vocabulary = []entry{
	{kind: Read, what: "reading", some: "reading some files only",
		words: "view cat open readfile readfiles readmanyfiles readtextfile fsread viewfile openfile notebookread"},
	{kind: Search, within: Read, what: "searching", some: "searching in some places only", words: "find searchfiles codebasesearch"},
	{kind: Glob, within: Search, what: "looking for files", some: "looking for some files only", words: "findfiles filesearch globfiles"},
	{kind: Grep, within: Search, what: "searching in files", some: "searching in some files only", words: "ripgrep rg grepsearch searchfilecontent searchtext"},
	{kind: List, within: Search, what: "listing folders", some: "listing some folders only", words: "ls dir listdir listdirectory listfiles readfolder"},
	{kind: Edit, what: "editing", some: "editing some files only",
		words: "write patch multiedit editfile editfiles writefile writefiles writetextfile fswrite applypatch applydiff create createfile " +
			"replace strreplace searchreplace insert append update modify notebookedit"},
	{kind: Delete, within: Edit, what: "deleting files", some: "deleting some files only", words: "remove unlink deletefile removefile"},
	{kind: Move, within: Edit, what: "moving files", some: "moving some files only", words: "rename movefile renamefile"},
	{kind: Bash, what: "running commands", some: "running some commands only",
		words: "shell execute exec terminal command commands cmd run sh zsh powershell pwsh process script localshell unifiedexec " +
			"shellcommand runcommand runcommands runshellcommand runterminalcmd runinterminal execcommand executecommand executebash"},
	{kind: Web, what: "the web", some: "some addresses only", words: "internet browse browser http https url"},
	{kind: WebFetch, within: Web, what: "fetching from the web", some: "some addresses only", words: "fetch fetchurl urlfetch readurl httprequest httpget download"},
	{kind: WebSearch, within: Web, what: "searching the web", some: "some searches only", words: "googlewebsearch searchweb googlesearch internetsearch"},
	{kind: Task, what: "starting agents of its own", some: "starting some agents of its own only", words: "agent subagent spawnagent runagent invokeagent workflow"},
	{kind: Skill, what: "using skills", some: "using some skills only", words: "skills activateskill", minor: true},
	{kind: Todo, what: "writing todos", some: "writing some todos only", words: "todo todos todoread writetodos updateplan taskcreate taskupdate tasklist taskget", minor: true},
	{kind: Question, what: "asking the user", some: "asking the user some things only", words: "askuser askuserquestion", minor: true},
	{kind: Think, what: "thinking", some: "thinking some things only", minor: true},
	{kind: Mode, what: "changing its mode", some: "changing to some modes only", words: "switchmode planexit exitplanmode planenter enterplanmode", minor: true},
}

// byWord maps every folded word to its kind.
var byWord = func() map[string]Kind {
	m := map[string]Kind{}
	for _, e := range vocabulary {
		for _, w := range append(strings.Fields(e.words), string(e.kind)) {
			m[w] = e.kind
		}
	}
	return m
}()

func lookup(k Kind) entry {
	i := slices.IndexFunc(vocabulary, func(e entry) bool { return e.kind == k })
	if i < 0 {
		return entry{kind: k, what: string(k), some: "some of " + string(k)}
	}
	return vocabulary[i]
}

// Kinds returns all kinds. Each kind comes after the kind that contains it.
func Kinds() []Kind {
	list := make([]Kind, len(vocabulary))
	for i, e := range vocabulary {
		list[i] = e.kind
	}
	return list
}

// KindOf returns the kind that a word stands for. It ignores case, hyphens, underscores and
// spaces.
func KindOf(word string) (Kind, bool) {
	k, ok := byWord[fold(word)]
	return k, ok
}

// Covers reports whether k equals the other kind or contains it.
func (k Kind) Covers(other Kind) bool {
	for ; other != ""; other = lookup(other).within {
		if k == other {
			return true
		}
	}
	return false
}

// Parts returns the kind and all kinds that it contains.
func (k Kind) Parts() []Kind {
	return slices.DeleteFunc(Kinds(), func(x Kind) bool { return !k.Covers(x) })
}

// The function "fold" returns a word in lower case, without hyphens, underscores, spaces and tabs.
func fold(word string) string {
	return strings.Map(func(r rune) rune {
		switch r {
		case '-', '_', ' ', '\t':
			return -1
		}
		return r
	}, strings.ToLower(word))
}

// Named returns the kinds that the name of a rule stands for, without their parts. A name
// outside the vocabulary stands for no kind. If the name has wildcards, a forbidding rule
// stands for every kind with a matching word. An allowing rule stands only for kinds whose own
// word matches.
func Named(r bgagent.Permission) (list []Kind) {
	name := fold(r.Name)
	switch {
	case forAllNames(r):
		return topKinds()
	case !strings.ContainsAny(name, "*?["):
		if k, ok := byWord[name]; ok {
			list = append(list, k)
		}
		return list
	}
	for _, e := range vocabulary {
		matches := wild(r.Name, string(e.kind))
		if !Allows(r) {
			matches = matches || slices.ContainsFunc(strings.Fields(e.words), func(w string) bool { return wild(r.Name, w) })
		}
		if matches {
			list = append(list, e.kind)
		}
	}
	return list
}

// forAllNames reports whether the rule applies to every name.
func forAllNames(r bgagent.Permission) bool { return r.Name != "" && strings.Trim(r.Name, "*") == "" }

func topKinds() (list []Kind) {
	for _, e := range vocabulary {
		if e.within == "" {
			list = append(list, e.kind)
		}
	}
	return list
}

// Action returns the action of the rule. An unknown action counts as "deny".
func Action(r bgagent.Permission) bgagent.PermissionAction {
	switch a := bgagent.PermissionAction(strings.ToLower(strings.TrimSpace(string(r.Action)))); a {
	case bgagent.PermissionAllow, bgagent.PermissionAsk:
		return a
	}
	return bgagent.PermissionDeny
}

// Allows reports whether the action of the rule is "allow". The action "ask" does not count as
// "allow".
func Allows(r bgagent.Permission) bool { return Action(r) == bgagent.PermissionAllow }

// ForAll reports whether the rule has no pattern, or a pattern that matches everything.
func ForAll(r bgagent.Permission) bool {
	return strings.Trim(r.Pattern, "*") == "" || r.Pattern == "**/*"
}
