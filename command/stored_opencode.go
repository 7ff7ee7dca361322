package command

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"strings"

	"github.com/bgagent/bgagent"
)

// maxListed is the maximum number of sessions that opencode is asked to list. Opencode's own default
// is smaller.
const maxListed = 100_000

// lookOpencode reads an opencode session with the command "export". If opencode has not reported
// the session's id, lookOpencode finds the session by its title with the command "session list".
func lookOpencode(ctx context.Context, l Lookup) (Stored, error) {
	id := l.Session
	if id == "" {
		var err error
		if id, err = findOpencode(ctx, l); err != nil {
			return Stored{}, err
		}
	}
	if !isName(id) { // for example, opencode would read an id that begins with a dash as an option
		return Stored{}, errName
	}
	out, err := l.Run(ctx, "export", id)
	if err != nil {
		if strings.Contains(strings.ToLower(err.Error()), "session not found") {
			err = errors.Join(err, bgagent.ErrNoSession)
		}
		return Stored{}, err
	}
	return readExport(id, out)
}

// findOpencode returns the id of the session whose title is the chosen id.
func findOpencode(ctx context.Context, l Lookup) (string, error) {
	if l.Chosen == "" {
		return "", errName
	}
	if l.Directory == "" {
		return "", errors.New("its working directory is not known, and it lists only the sessions of a project")
	}
	out, err := l.Run(ctx, "session", "list", "--format", "json", "--max-count", strconv.Itoa(maxListed))
	if err != nil {
		return "", err
	}
	if len(strings.TrimSpace(string(out))) == 0 { // opencode prints nothing if there are no sessions
		return "", bgagent.ErrNoSession
	}
	var list []struct{ ID, Title string }
	if err := json.Unmarshal(out, &list); err != nil || len(list) >= maxListed {
		return "", errors.New("its list of sessions is not understood")
	}
	for _, s := range list {
		if s.ID == "" {
			return "", errors.New("its list of sessions is not understood")
		}
		if s.Title == l.Chosen {
			return s.ID, nil
		}
	}
	return "", bgagent.ErrNoSession
}

// opencodeExport contains the fields that the reader needs from an exported session.
type opencodeExport struct {
	Info     struct{ ID string }
	Messages []struct {
		Info struct {
			ID       string
			Role     string
			ParentID string
			Finish   string
			Error    json.RawMessage
			Time     struct{ Completed float64 }
			Cost     count
			Tokens   struct {
				Input, Output count
				Cache         struct{ Read, Write count }
			}
		}
		Parts []struct {
			Type      string
			Text      string
			Synthetic bool
		}
	}
}

// readExport reads an exported session. The turn of the last prompt has ended if the last message is
// a completed answer to that prompt.
func readExport(id string, out []byte) (Stored, error) {
	var x opencodeExport
	if err := json.Unmarshal(out, &x); err != nil || x.Info.ID != id || x.Messages == nil {
		return Stored{}, errors.New("its exported session is not understood")
	}
	st, last := Stored{Session: id}, ""
	var used bgagent.Usage // usage of the answers to the last prompt
	for _, m := range x.Messages {
		st.Ended = false
		text, answer := "", ""
		for _, p := range m.Parts {
			if p.Type == "text" && !p.Synthetic {
				text += p.Text
				if strings.TrimSpace(p.Text) != "" {
					answer = p.Text
				}
			}
		}
		switch i := &m.Info; {
		case i.Role == "user" && text != "":
			st.Prompts, last, used = append(st.Prompts, text), i.ID, bgagent.Usage{}
		case i.Role == "user": // a message without text, such as a request to summarize the session
			last = ""
		case i.Role == "assistant":
			if u := &i.Tokens; i.ParentID == last {
				used = more(used, bgagent.Usage{InputTokens: (u.Input + u.Cache.Read + u.Cache.Write).tokens(), OutputTokens: u.Output.tokens(), Cost: float64(i.Cost)})
			}
			hasError := len(i.Error) > 0 && string(i.Error) != "null"
			if i.Finish == "stop" && i.Time.Completed > 0 && !hasError && i.ParentID == last && answer != "" {
				st.Ended, st.End = true, bgagent.TurnEnd{Stop: bgagent.StopEndOfTurn, Text: answer, Usage: used}
			}
		default:
			st.Unclear = true
		}
	}
	return st, nil
}
