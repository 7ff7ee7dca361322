package main

import (
	"fmt"
	"net"
	"strings"
)

// sayHow prints what to type so that the usual clients use the server: once for each
// caller if there are tokens.
func (c *serveCmd) sayHow(addr net.Addr) {
	host, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "HOST" // callers know which of its addresses they reach
	}
	url := "http://" + net.JoinHostPort(host, port) + "/mcp"
	if len(c.Token) == 0 {
		fmt.Print(pasteLines(url, "", ""))
		return
	}
	for _, t := range c.Token {
		name, from, _ := strings.Cut(t, "=")
		fmt.Print(pasteLines(url, name, from))
	}
}

// pasteLines returns what one caller types. from names the variable that holds the
// token, or, after an @, the file.
func pasteLines(url, caller, from string) string {
	var b strings.Builder
	title, header, variable, file := "to use it from", "", "", ""
	if from != "" {
		title = "to use it as " + caller + " from"
		header, variable, file = "$"+from, from, "{env:"+from+"}"
		if path, ok := strings.CutPrefix(from, "@"); ok {
			header, variable, file = "$(cat "+path+")", "BGAGENT_TOKEN", "{file:"+path+"}"
		}
	}
	fmt.Fprintf(&b, "%s\n", title)
	line := func(client, text string) { fmt.Fprintf(&b, "  %-9s %s\n", client+":", text) }
	if header == "" {
		line("claude", "claude mcp add --transport http bgagent "+url)
		line("codex", "codex mcp add bgagent --url "+url)
		line("gemini", "gemini mcp add --transport http bgagent "+url)
		line("opencode", fmt.Sprintf(`"mcp": { "bgagent": { "type": "remote", "url": %q } } in opencode.json`, url))
		return b.String()
	}
	bearer := `"Authorization: Bearer ` + header + `"`
	line("claude", "claude mcp add --transport http bgagent "+url+" --header "+bearer)
	line("codex", "codex mcp add bgagent --url "+url+" --bearer-token-env-var "+variable)
	line("gemini", "gemini mcp add --transport http bgagent "+url+" --header "+bearer)
	line("opencode", fmt.Sprintf(`"mcp": { "bgagent": { "type": "remote", "url": %q, "headers": { "Authorization": "Bearer %s" } } } in opencode.json`, url, file))
	return b.String()
}
