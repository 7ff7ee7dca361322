package modelserver

import "strings"

// kindOf tells the turns of an agent from the questions that programs ask the
// model for themselves, by how those questions begin.
func kindOf(r Request) Kind {
	system := strings.ToLower(shorten(r.System, 400))
	switch {
	case strings.Contains(system, "title generator"):
		return Title
	case strings.Contains(system, "summar") && len(r.Tools) == 0:
		return Summary
	}
	return Main
}

// sideAnswer answers a question that is not a turn of an agent.
func sideAnswer(Request) Reply { return Say("{}") }

// sessionOf returns the id that a program sends with the requests of a session.
func sessionOf(r Request) string {
	for _, name := range []string{"X-Session-Affinity", "Session_id", "Conversation_id", "Session-Id", "X-Session-Id"} {
		if id := r.Header.Get(name); id != "" {
			return id
		}
	}
	return ""
}
